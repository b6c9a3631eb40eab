"""Evaluation: the same points on every rank, and numbers that theory gives."""

from typing import Any

import numpy as np
import pytest
from conftest import Ranks
from driving import Sloped, flat

from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual.fabric import World
from dsgd_bench.trace.judgments import Judgments
from dsgd_bench.trial.evaluation import evaluate
from dsgd_bench.trial.snapshots import Snapshots


def evaluated(fabric: Fabric, *, step: float, steps: int, capacity: int) -> Judgments:
    """Judge a run whose model is (time, rank) in every element, by squared norm."""
    snapshots = Snapshots(np.zeros(2), capacity=capacity, distance=1e-3, by_step=False)
    x, time = np.zeros(2), 0.0
    for k in range(steps + 1):
        time = k * step
        x[:] = time, fabric.rank
        snapshots.take_if_due(x, step=k, time=time)
    problem: Any = Sloped(fabric.rank, x, flat)
    return evaluate(problem, fabric, snapshots, (x, time, time))


def test_the_mean_is_evaluated_once_and_the_distance_is_to_the_mean(
    world: Ranks, size: int
) -> None:
    results = world.together(
        size, lambda fabric: evaluated(fabric, step=1e-3, steps=10, capacity=20)
    )
    times = np.arange(11) * 1e-3
    middle = (size - 1) / 2
    of_mean = np.array([result.loss_of_mean for result in results])
    assert (np.isfinite(of_mean).sum(axis=0) == 1).all()
    # rounding of squares of numbers up to eight, in double precision
    rounding: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(
        np.nansum(of_mean, axis=0), times**2 + middle**2, **rounding
    )
    for rank, result in enumerate(results):
        np.testing.assert_allclose(result.copy_time, times, **rounding)
        np.testing.assert_allclose(result.local_loss, times**2 + rank**2, **rounding)
        np.testing.assert_allclose(
            result.distance_squared, (rank - middle) ** 2, **rounding
        )


def test_no_more_points_are_evaluated_than_snapshots_were_asked_for(
    world: Ranks, size: int
) -> None:
    """Steps are twenty times as long as the first distance, and uneven."""

    def work(fabric: Fabric) -> Judgments:
        step = 0.02 * (1 + fabric.rank)
        return evaluated(fabric, step=step, steps=12, capacity=10)

    results = world.together(size, work)
    points = {len(result.copy_time) for result in results}
    assert len(points) == 1
    assert 5 <= points.pop() <= 11  # and the end
    for rank, result in enumerate(results):
        assert result.copy_time[-1] == 12 * (0.02 * (1 + rank))


def test_where_ranks_serve_the_center_is_evaluated_and_workers_are_apart_from_it() -> (
    None
):
    """Two servers have half of (3, 4) each; the three workers' models are their own."""
    parts = {3: [3.0, 0.0], 4: [0.0, 4.0]}

    def work(fabric: Fabric) -> Judgments:
        x = np.array(parts.get(fabric.rank, [3.0 + fabric.rank, 4.0]))
        snapshots = Snapshots(x, capacity=4, distance=1.0, by_step=False)
        snapshots.take_if_due(x, step=0, time=0.0)
        problem: Any = Sloped(fabric.rank, x, flat)
        return evaluate(problem, fabric, snapshots, (x, 2.0, 2.0), servers=2)

    results = World(5).run(work)
    for point in range(len(results[0].copy_time)):
        losses = [result.loss_of_mean[point] for result in results]
        assert np.nansum(losses) == pytest.approx(25.0)
        distances = [result.distance_squared[point] for result in results]
        np.testing.assert_allclose(distances[:3], [0.0, 1.0, 4.0], atol=1e-12)
        assert np.isnan(distances[3:]).all()
        assert np.isnan([result.local_loss[point] for result in results[3:]]).all()
