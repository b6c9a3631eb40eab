"""Linear speedup and the 1 / sqrt(n K) law, on a quadratic whose errors are known.

With curvature 1 everywhere and a new sample for every gradient the average model x of n
workers goes x <- x - lr (x - c), c the mean of n of the centers. So with q = (1 - lr)^2
its excess loss after k steps is, on average over the samples,

    e_k = q^k e_0 + (lr^2 / n) f* (1 - q^k) / (1 - q)

on any graph that conserves the mean: what the workers disagree on cancels in the mean
of their gradients, which are linear in the models.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_simulation import simulate, trial

from dsgd_bench import graphs
from dsgd_bench.analysis.rows import Row
from dsgd_bench.analysis.summary import summarize
from dsgd_bench.spec.trial import (
    AlgorithmSpec,
    BudgetSpec,
    MeasureSpec,
    OptimizerSpec,
    ProblemSpec,
    Trial,
)
from dsgd_bench.trace import Trace

C = 1 / 8
GRADIENTS = (1024, 4096)
BOWL = ProblemSpec(
    "quadratic",
    batch=1,
    dtype="float64",
    settings={
        "dimension": 100,
        "samples": 16_384,
        "conditioning": 1.0,
        "spread": 8.0,
    },
)


def scaled(
    kind: str, workers: int, gradients: int, lr: float | None = None, **settings: str
) -> Trial:
    """Return a trial with lr = C sqrt(n / K), or another."""
    steps = gradients // workers
    return trial(
        kind,
        algorithm=AlgorithmSpec(kind, settings),
        ranks=workers,
        problem=BOWL,
        budget=BudgetSpec(steps=steps),
        optimizer=OptimizerSpec(lr=lr or C * (workers / steps) ** 0.5),
        measure=MeasureSpec(copies=260),
    )


def expected(trace: Trace) -> float:
    """Return the excess loss that theory has for the average model, over the run."""
    n, lr = trace.trial.ranks, trace.trial.optimizer.lr
    steps = trace.trial.budget.steps or 0
    q = (1 - lr) ** 2
    lowest = trace.optimum or 0.0
    faded = q ** np.arange(steps + 1)
    left = faded * (trace["loss_of_mean"][0] - lowest)
    noise = lr**2 / n * lowest * (1 - faded) / (1 - q)
    return float(np.trapezoid(left + noise)) / steps


@pytest.fixture(scope="module")
def allreduce(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Trace]:
    """Traces of AllReduce-SGD by workers and gradients."""
    keys = [(n, gradients) for n in (1, 4, 16) for gradients in GRADIENTS]
    trials = [scaled("allreduce", *key) for key in keys]
    folder = tmp_path_factory.mktemp("allreduce")
    return dict(zip(keys, simulate(folder, *trials), strict=True))


def exponents(rows: list[Row]) -> list[float]:
    """Return the exponents of the power laws between neighboring runs."""
    points = [(np.log(row.times.gradients), np.log(row.quality.excess)) for row in rows]
    return [(e - f) / (m - n) for (n, f), (m, e) in pairwise(points)]


@pytest.mark.slow
def test_the_excess_is_that_of_the_formula(allreduce: dict[Any, Trace]) -> None:
    for trace in allreduce.values():
        assert summarize(trace).quality.excess == pytest.approx(
            expected(trace), rel=0.1
        )


def test_the_excess_falls_as_one_over_the_root_of_all_gradients(
    allreduce: dict[Any, Trace],
) -> None:
    for n in (1, 4, 16):
        rows = [summarize(allreduce[n, gradients]) for gradients in GRADIENTS]
        assert exponents(rows) == pytest.approx([-0.5], abs=0.06)


def test_it_does_not_with_a_rate_that_knows_nothing_of_the_steps(
    tmp_path: Path,
) -> None:
    fixed = (scaled("allreduce", 4, gradients, lr=1 / 32) for gradients in GRADIENTS)
    (exponent,) = exponents(list(map(summarize, simulate(tmp_path, *fixed))))
    assert exponent > -0.3


def test_who_took_the_gradients_makes_no_difference(
    allreduce: dict[Any, Trace],
) -> None:
    for gradients in GRADIENTS:
        one, *more = (
            summarize(allreduce[n, gradients]).quality.excess for n in (1, 4, 16)
        )
        assert more == pytest.approx([one, one], rel=0.05)


def test_it_does_make_one_with_a_rate_that_knows_nothing_of_the_workers(
    allreduce: dict[Any, Trace], tmp_path: Path
) -> None:
    alone = C * (16 / 4096) ** 0.5
    (trace,) = simulate(tmp_path, scaled("allreduce", 16, 4096, lr=alone))
    one = summarize(allreduce[1, 4096]).quality.excess
    assert (summarize(trace).quality.excess or 0.0) > 1.5 * (one or 0.0)


@pytest.mark.parametrize(
    ("kind", "graph"),
    [
        ("dpsgd", "ring"),
        ("dpsgd-atc", "hypercube"),
        ("sgp", "one-peer-exponential"),
    ],
)
def test_the_average_model_of_a_quadratic_does_not_feel_the_graph(
    kind: str, graph: str, allreduce: dict[Any, Trace], tmp_path: Path
) -> None:
    (trace,) = simulate(tmp_path, scaled(kind, 16, 1024, graph=graph))
    other = allreduce[16, 1024]
    for name in ("loss_of_mean", "moment_samples"):
        np.testing.assert_allclose(trace[name], other[name], rtol=1e-10)
    assert trace["moment_samples"].tolist() == [16 * k for k in range(65)]


def test_own_models_of_dpsgd_are_off_by_what_the_graph_lets_through(
    tmp_path: Path,
) -> None:
    """Along an eigenvector of W, v, what is left is a walk with factor v - lr."""
    (trace,) = simulate(tmp_path, scaled("dpsgd", 16, 1024, graph="ring"))
    row, lr, n = summarize(trace), trace.trial.optimizer.lr, 16
    weights = graphs.make("ring", n).weights()
    factors = (np.sort(np.linalg.eigvalsh(weights))[:-1] - lr) ** 2
    steps = np.arange(65)[:, None]
    spread = lr**2 * ((1 - factors**steps) / (1 - factors)).sum(axis=1) / n
    apart = float(np.trapezoid(spread * (trace.optimum or 0.0))) / 64
    assert (row.quality.own_excess or 0.0) - (
        row.quality.excess or 0.0
    ) == pytest.approx(apart, rel=0.1)


@pytest.mark.parametrize("gradients", GRADIENTS)
def test_asynchronous_averaging_speeds_up_as_much(
    gradients: int, tmp_path: Path
) -> None:
    (trace,) = simulate(tmp_path, scaled("adpsgd", 16, gradients))
    assert summarize(trace).quality.excess == pytest.approx(expected(trace), rel=0.15)
