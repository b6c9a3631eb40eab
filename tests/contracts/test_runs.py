"""Whole trials of every algorithm, from build to merged trace, in virtual time."""

from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.fabric.virtual.fabric import Network, World
from dsgd_bench.spec.trial import (
    AlgorithmSpec,
    BudgetSpec,
    ComputeSpec,
    MeasureSpec,
    OptimizerSpec,
    ProblemSpec,
    SlowdownSpec,
    Trial,
)
from dsgd_bench.trace import Trace, open_trace
from dsgd_bench.trial.run import Run

SECONDS = 0.6
NETWORK = Network(latency=20e-6, bandwidth=1e9, jitter=0.5)

every = pytest.mark.parametrize("kind", ALGORITHMS)

EQUAL = [
    name
    for name, algorithm in ALGORITHMS.items()
    if algorithm.traits & {"identical", "eventually-identical"}
]


def run(kind: str, folder: Path, *, ranks: int = 4, **more: Any) -> Trace:
    """Run one trial of softmax regression for a while of virtual time."""
    settings = {"warmup": 5} if "warmup" in ALGORITHMS[kind].settings else {}
    options: dict[str, Any] = {
        "budget": BudgetSpec(seconds=SECONDS),
        "slowdown": SlowdownSpec(),
        **more,
    }
    trial = Trial(
        ranks=ranks,
        algorithm=AlgorithmSpec(kind, settings),
        optimizer=OptimizerSpec(lr=0.5),
        problem=ProblemSpec(
            "softmax",
            batch=8,
            dtype="float64",
            settings={"data": "generated", "samples": 400, "features": 6, "classes": 3},
        ),
        compute=ComputeSpec("emulated", 0.01),
        measure=MeasureSpec(copies=12),  # fewer than steps, so they are thinned out
        **options,
    )
    work = Run(trial, folder, "runs", "none", {})
    World(ranks, NETWORK).run(work)
    return open_trace(folder / "trace.h5")


@every
def test_a_trial_ends_as_its_budget_says_and_learns(kind: str, tmp_path: Path) -> None:
    trace = run(kind, tmp_path)
    losses = trace["loss_of_mean"]
    assert np.isfinite(losses).all()
    algorithm = ALGORITHMS[kind]
    # a center that follows the workers, who move by fresh gradients, does so slowly
    follows = algorithm.traits >= {"center", "asynchronous"}
    slow = follows and algorithm.staleness == "none"
    assert losses[-1] < (0.95 if slow else 0.7) * losses[0]
    works = trace["serves"] == 0
    assert (trace["elapsed"][works] >= SECONDS).all()
    assert (trace["elapsed"][works] < SECONDS + 0.15).all()
    if algorithm.synchronous:
        assert len(set(trace["steps_done"][works])) == 1


@every
def test_moments_are_spread_over_the_run_and_ranks_copy_them_together(
    kind: str, tmp_path: Path
) -> None:
    """Servers too, whose steps are messages."""
    trace = run(kind, tmp_path)
    times = trace["moment_time"]
    gaps = np.diff(times)
    assert 6 <= len(times) <= 13
    assert gaps.min() >= 0.0
    assert gaps.max() <= 0.25 * SECONDS
    apart = np.ptp(trace["copy_time"], axis=0)
    assert (apart <= 0.03).all()  # ranks copy at their own yields: a few steps of 10 ms


@every
def test_the_trace_tells_the_staleness_that_its_family_defines(
    kind: str, tmp_path: Path
) -> None:
    slow = SlowdownSpec("constant", ranks=(0,), factor=5.0)
    trace = run(kind, tmp_path, slowdown=slow)
    algorithm = ALGORITHMS[kind]
    _, limit = algorithm.stale(algorithm.setup({}, trace.trial.ranks))
    works = trace["serves"] == 0
    n = int(works.sum())
    staleness = trace["staleness"]
    known = staleness[np.isfinite(staleness)]
    assert np.isnan(staleness[~works]).all()
    assert (known >= 0).all()
    if algorithm.staleness == "none":
        assert known.size == 0
    elif limit < inf:
        assert known.max() == limit == 1  # tau, or the one-step delay
    elif algorithm.staleness != "steps":
        # n - 1 on average where workers are staggered; in lock step, as here, it
        # depends on who is first in a round: at most this round's and the last one's
        assert 0.3 * (n - 1) <= known.mean() <= 2 * (n - 1)
        slow_ones = staleness[0][np.isfinite(staleness[0])][1:]
        assert slow_ones.mean() > 3 * (n - 1)


@pytest.mark.parametrize("kind", EQUAL)
def test_equal_replicas_are_equal_at_every_moment_that_is_judged(
    kind: str, tmp_path: Path
) -> None:
    trace = run(kind, tmp_path)
    distances = trace["consensus_distance"]
    if "eventually-identical" in ALGORITHMS[kind].traits:
        distances = distances[-1:]  # once all has arrived
    assert (distances < 1e-12).all()


def test_what_is_judged_of_an_asynchronous_server_is_the_center(tmp_path: Path) -> None:
    """Workers' models are older than it, so they differ; and it is what improves."""
    trace = run("asgd", tmp_path)
    assert (trace["consensus_distance"][1:-1] > 0).any()
    assert trace["serves"].tolist() == [0, 0, 0, 1]
    assert np.isnan(trace["local_loss"][3]).all()
    assert np.isfinite(trace["local_loss"][:3]).all()


def test_push_sum_weights_are_in_the_trace(tmp_path: Path) -> None:
    weights = run("osgp", tmp_path)["weight"]
    known = weights[np.isfinite(weights)]
    assert (known > 0).all()
    assert known.min() < 0.9
    assert np.isnan(run("dpsgd", tmp_path)["weight"]).all()
