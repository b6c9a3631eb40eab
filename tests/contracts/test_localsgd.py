"""Local SGD and post-local SGD: averaged when they should be, and right in between."""

from typing import Any

import numpy as np
import pytest
from conftest import Ranks
from driving import Walk, start_of, walk

from dsgd_bench.arrays import Array
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual.fabric import World
from dsgd_bench.spec.trial import BudgetSpec, OptimizerSpec, SlowdownSpec


def test_averaging_in_every_step_is_allreduce(world: Ranks, size: int) -> None:
    def work(fabric: Fabric) -> tuple[Walk, Walk]:
        ours = walk(fabric, "localsgd", steps=8, settings={"every": 1})
        return ours, walk(fabric, "allreduce", steps=8)

    for ours, theirs in world.together(size, work):
        # the mean of models instead of gradients: rounding
        np.testing.assert_allclose(ours.models, theirs.models, rtol=0, atol=1e-14)


@pytest.mark.parametrize("every", [2, 3, 5])
def test_models_are_equal_after_every_averaging_and_alone_in_between(
    world: Ranks, size: int, every: int
) -> None:
    walks = world.together(
        size,
        lambda fabric: walk(fabric, "localsgd", steps=11, settings={"every": every}),
    )
    models = np.array([w.models for w in walks])
    for step in range(12):
        apart = np.abs(models[:, step] - models[0, step]).max()
        if step % every == 0:
            # an MPI library may add in another order on every rank: rounding
            assert apart <= 1e-14
        elif size > 1:
            assert apart > 1e-3
    for w in walks:
        # a step that is not averaged is plain SGD
        np.testing.assert_allclose(
            w.models[1], w.models[0] - 0.1 * w.gradients[0], rtol=0, atol=1e-15
        )


def final_error(curvatures: Array, every: int, lr: float) -> float:
    """Return how far the mean is from the optimum, right after an averaging."""

    def slope(rank: int, step: int, x: Array) -> Array:
        return curvatures[rank] * (x - np.cos(np.arange(x.size) + rank))

    def work(fabric: Fabric) -> Walk:
        more: dict[str, Any] = {
            "optimizer": OptimizerSpec(lr=lr),
            "settings": {"every": every},
        }
        return walk(fabric, "localsgd", slope=slope, steps=900, compute=0.0, **more)

    final = World(len(curvatures)).run(work)[0].final
    centers = np.array([np.cos(np.arange(7) + r) for r in range(len(curvatures))])
    optimum = (curvatures[:, None] * centers).sum(axis=0) / curvatures.sum()
    return float(np.abs(final - optimum).max())


@pytest.mark.parametrize("every", [1, 3, 10])
def test_equal_curvatures_are_solved_exactly_for_any_interval(every: int) -> None:
    assert final_error(np.full(4, 0.5), every, 0.2) < 1e-13


def test_uneven_curvatures_are_off_by_the_rate_and_the_interval() -> None:
    """By O(lr (H - 1)): nothing for H = 1, about half for half the rate."""
    curvatures = np.array([0.3, 0.5, 0.7, 0.9])
    assert final_error(curvatures, 1, 0.1) < 1e-13
    coarse, fine = (final_error(curvatures, 5, lr) for lr in (0.1, 0.05))
    assert coarse > 1e-3
    assert 0.4 < fine / coarse < 0.6
    assert final_error(curvatures, 9, 0.05) > 1.5 * fine


def test_post_local_sgd_is_allreduce_first_and_local_afterwards(
    world: Ranks, size: int
) -> None:
    """1024 samples are an epoch here and a batch is one: 4 steps of all workers."""

    def work(fabric: Fabric) -> tuple[Walk, Walk]:
        after = 4 * fabric.size / 1024
        budget = BudgetSpec(steps=10)
        ours = walk(
            fabric,
            "postlocal",
            budget=budget,
            settings={"after": after, "every": 3},
        )
        return ours, walk(fabric, "allreduce", budget=budget)

    results = world.together(size, work)
    for ours, theirs in results:
        np.testing.assert_array_equal(ours.models[:5], theirs.models[:5])
    models = np.array([ours.models for ours, _ in results])
    apart = np.abs(models - models[0]).max(axis=(0, 2))
    if size > 1:
        assert (apart[[5, 6, 8, 9]] > 1e-3).all()
    assert (apart[[0, 1, 2, 3, 4, 7, 10]] <= 1e-14).all()


def test_jitter_averages_out_between_two_meetings() -> None:
    """Steps that are slow at random cost less time if ranks meet less often."""

    def seconds(every: int) -> float:
        slow = SlowdownSpec("transient", factor=5.0, probability=0.2)

        def work(fabric: Fabric) -> float:
            more: dict[str, Any] = {
                "slowdown": slow,
                "compute": 0.01,
                "settings": {"every": every},
            }
            return float(
                walk(fabric, "localsgd", steps=40, **more).column("duration").sum()
            )

        return max(World(4).run(work))

    assert seconds(10) < 0.8 * seconds(1)


def test_the_start_may_differ_and_is_averaged_away() -> None:
    def work(fabric: Fabric) -> Walk:
        start = start_of(fabric.rank)
        return walk(fabric, "localsgd", start=start, steps=4, settings={"every": 4})

    walks = World(3).run(work)
    spent = np.mean([w.spent for w in walks], axis=0)
    expected = np.mean([start_of(rank) for rank in range(3)], axis=0) - 0.1 * spent
    np.testing.assert_allclose(walks[1].final, expected, rtol=0, atol=1e-14)
