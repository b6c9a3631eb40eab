"""Gossip-PGA: a mean over all in every H-th step, D-PSGD in the others."""

import numpy as np
from conftest import Ranks
from driving import Walk, walk

from dsgd_bench import graphs
from dsgd_bench.fabric.base import Fabric


def test_models_follow_the_two_kinds_of_steps(world: Ranks, size: int) -> None:
    """X <- (X - lr G(X)) W, or the mean of X - lr G(X); a model per row here."""
    every, settings = 3, {"graph": "ring", "every": 3}

    def work(fabric: Fabric) -> Walk:
        return walk(fabric, "gossip-pga", steps=8, settings=settings)

    walks = world.together(size, work)
    models = np.array([w.models for w in walks]).swapaxes(0, 1)
    slopes = np.array([w.gradients for w in walks]).swapaxes(0, 1)
    mixing = {False: graphs.make("ring", size).weights()}
    mixing[True] = np.full((size, size), 1 / size)
    for step in range(8):
        moved = models[step] - 0.1 * slopes[step]
        expected = mixing[(step + 1) % every == 0] @ moved
        # the same sums in another order: rounding
        np.testing.assert_allclose(models[step + 1], expected, rtol=0, atol=1e-14)


def test_a_mean_in_every_step_is_allreduce(world: Ranks, size: int) -> None:
    def work(fabric: Fabric) -> tuple[Walk, Walk]:
        ours = walk(fabric, "gossip-pga", steps=8, settings={"every": 1})
        return ours, walk(fabric, "allreduce", steps=8)

    for ours, theirs in world.together(size, work):
        # the mean of models instead of gradients: rounding
        np.testing.assert_allclose(ours.models, theirs.models, rtol=0, atol=1e-14)
