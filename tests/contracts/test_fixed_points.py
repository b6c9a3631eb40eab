"""Where algorithms come to rest on quadratics: what speed and curvature do to it.

f_i(x) = a_i / 2 ||x - c_i||^2 on worker i, exact gradients, models of seven elements.
"""

from typing import Any

import numpy as np
import pytest
from driving import Slope, Walk, bowl, start_of, walk

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.arrays import Array
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual.fabric import World
from dsgd_bench.spec.trial import BudgetSpec, OptimizerSpec, SlowdownSpec

WORKERS = 4

AVERAGING = [
    name
    for name, algorithm in ALGORITHMS.items()
    if algorithm.traits >= {"asynchronous", "mean-preserving"}
    and algorithm.traits & {"center", "consensus", "eventually-identical"}
]
"""Asynchronous ones whose mean, or center, moves by every gradient once, and whose
models stay near each other."""

IDENTICAL = [name for name, a in ALGORITHMS.items() if "identical" in a.traits]


def centers() -> Array:
    return np.array([np.cos(np.arange(7) + rank) for rank in range(WORKERS)])


def settle(kind: str, slope: Slope, lr: float, **more: Any) -> tuple[Array, list[int]]:
    """Return the final center or mean of the workers' models, and their steps."""
    ranks = WORKERS + ("center" in ALGORITHMS[kind].traits)

    def work(fabric: Fabric) -> Walk:
        return walk(fabric, kind, slope=slope, optimizer=OptimizerSpec(lr=lr), **more)

    walks = World(ranks).run(work)
    workers = [w for w in walks if not w.serves]
    served = [w.final for w in walks if w.serves]
    final = served[0] if served else np.mean([w.final for w in workers], axis=0)
    return final, [len(w.rows) for w in workers]


@pytest.mark.parametrize("kind", IDENTICAL)
def test_averaged_gradients_solve_uneven_curvatures_exactly(kind: str) -> None:
    """sum_i g_i(x) = 0 for one x: no error of the order of the learning rate."""
    curvatures = np.array([0.3, 0.5, 0.7, 0.9])

    def slope(rank: int, step: int, x: Array) -> Array:
        return curvatures[rank] * (x - centers()[rank])

    final, _ = settle(kind, slope, 0.5, steps=200, compute=0.0)
    optimum = curvatures @ centers() / curvatures.sum()
    # 0.7**200 of the start is left, and rounding
    np.testing.assert_allclose(final, optimum, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", AVERAGING)
def test_a_slow_worker_counts_by_its_rate_where_nobody_waits(kind: str) -> None:
    """sum_i r_i g_i = 0, with r_i the gradients per second of worker i.

    In a synchronous algorithm every worker counts alike, so the plain mean of the
    centers is what a test must be able to tell from the weighted one.
    """
    slow = SlowdownSpec("constant", ranks=(0,), factor=5.0)
    budget = BudgetSpec(seconds=1.2)
    final, steps = settle(kind, bowl, 0.05, budget=budget, slowdown=slow)
    rates = np.array(steps) / sum(steps)
    np.testing.assert_allclose(rates, np.array([1, 5, 5, 5]) / 16, rtol=0.05)
    weighted, plain = rates @ centers(), centers().mean(axis=0)
    apart = np.abs(weighted - plain).max()
    # lr a = 0.025: the models come to rest within as much of the distances, which are
    # about one, and a slow worker's gradients come in jerks of that size
    assert np.abs(final - weighted).max() < 0.25 * apart


def test_where_all_wait_a_slow_worker_counts_like_any_other() -> None:
    slow = SlowdownSpec("constant", ranks=(0,), factor=5.0)
    final, _ = settle("allreduce", bowl, 0.05, steps=1200, slowdown=slow)
    # 0.975**1200 = 6e-14 of the start is left
    np.testing.assert_allclose(final, centers().mean(axis=0), rtol=0, atol=1e-12)
    assert np.abs(final - start_of(0)).max() > 0.1
