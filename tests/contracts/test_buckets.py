"""All-reduce in buckets: the same steps as in one piece, sooner done."""

from typing import Any

import numpy as np
import pytest
from conftest import Ranks
from driving import Walk, bowl, walk

from dsgd_bench.errors import FabricError
from dsgd_bench.exchanges.buckets import Buckets
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.slow_links import SlowLinks
from dsgd_bench.fabric.virtual.fabric import Network, World
from dsgd_bench.problems import Problem
from dsgd_bench.problems.mlp import MLP
from dsgd_bench.spec.trial import SlowdownSpec, SlowLinksSpec

COMPUTE = 0.03
"""Emulated seconds of a gradient."""

ELEMENTS = 900


def start(rank: int = 0) -> np.ndarray:
    return np.sin(np.arange(float(ELEMENTS)))


def network() -> MLP:
    return MLP(
        data="generated", samples=1024, features=9, hidden=(8, 7), dtype="float64"
    )


@pytest.mark.parametrize("nbytes", [1, 400, 10**9])
def test_the_steps_are_those_of_one_piece(world: Ranks, size: int, nbytes: int) -> None:
    def work(fabric: Fabric) -> tuple[Walk, Walk]:
        problem: Problem = network()
        one = walk(fabric, "allreduce", problem=problem)
        settings = {"bucket_bytes": nbytes}
        return one, walk(
            fabric, "allreduce-bucketed", problem=problem, settings=settings
        )

    for one, other in world.together(size, work):
        for expected, found in zip(one.models, other.models, strict=True):
            if world.kind == "virtual":
                np.testing.assert_array_equal(found, expected)
            else:  # a library may sum parts in another order than the whole
                np.testing.assert_allclose(found, expected, rtol=1e-12)
        np.testing.assert_array_equal(
            other.column("bytes_out"), one.column("bytes_out")
        )


def buckets_of(nbytes: int) -> float:
    """Return the messages of a step with one hidden layer: 9 x 8 + 8, 8 x 10 + 10."""

    def work(fabric: Fabric) -> Walk:
        problem: Problem = MLP(
            data="generated", samples=1024, features=9, hidden=(8,), dtype="float64"
        )
        settings = {"bucket_bytes": nbytes}
        return walk(fabric, "allreduce-bucketed", problem=problem, settings=settings)

    return float(World(2, Network()).run(work)[0].column("messages_out")[0])


def test_layers_share_a_bucket_until_it_is_full() -> None:
    assert buckets_of(8 * 90) == 2
    assert buckets_of(8 * 90 + 1) == 1


def step_times(kind: str, transfer: float, **more: Any) -> np.ndarray:
    """Return seconds of the steps on two ranks, if sums take `transfer` seconds."""
    bandwidth = 8 * ELEMENTS / transfer
    settings = {"bucket_bytes": 1} if kind == "allreduce-bucketed" else {}

    def work(fabric: Fabric) -> Walk:
        return walk(
            fabric, kind, start=start(), settings=settings, compute=COMPUTE, **more
        )

    walks = World(2, Network(latency=0.0, bandwidth=bandwidth)).run(work)
    return np.array([walked.column("duration") for walked in walks])


def test_what_is_ready_early_hides_behind_the_rest() -> None:
    """Half of the gradient is ready after two thirds of its time.

    In units of that time, sums of half a unit: in one piece 1 + 1/2; in two, the first
    is done at 2/3 + 1/4 and the second, begun at 1, at 1 + 1/4.
    """
    one = step_times("allreduce", COMPUTE / 2)
    two = step_times("allreduce-bucketed", COMPUTE / 2)
    np.testing.assert_allclose(one, 1.5 * COMPUTE, rtol=1e-6)
    np.testing.assert_allclose(two, 1.25 * COMPUTE, rtol=1e-6)


def test_buckets_share_the_network_one_after_the_other() -> None:
    """Sums of two units: the second waits for the first until 2/3 + 1, then takes 1."""
    two = step_times("allreduce-bucketed", 2 * COMPUTE)
    np.testing.assert_allclose(two, (2 / 3 + 2) * COMPUTE, rtol=1e-6)


def test_a_slow_rank_is_late_with_every_bucket() -> None:
    """Three times as slow: its halves are ready at 2 and at 3, and all wait."""
    slow = SlowdownSpec(kind="constant", ranks=(1,), factor=3.0)
    two = step_times("allreduce-bucketed", COMPUTE / 2, slowdown=slow)
    np.testing.assert_allclose(two, 3.25 * COMPUTE, rtol=1e-6)


def test_slow_links_carry_one_bucket_after_the_other() -> None:
    """n = 2: a ring sends the whole sum through the slow link once, 2 (n - 1) / n."""
    rate, seconds, elements = 8e6, 0.001, 1000

    def work(fabric: Fabric) -> float:
        settings = SlowLinksSpec(rate=rate, seconds=seconds)
        links = SlowLinks(fabric, settings)
        x = np.ones(elements)
        began = fabric.now()
        with Buckets(links, x, 8) as ready:
            ready(slice(elements // 2, elements))
            ready(slice(0, elements // 2))
        return fabric.now() - began

    network = Network(latency=0.0, bandwidth=1e15)
    for took in World(2, network).run(work):
        # bytes in a row, and the way of the last one, two messages long
        expected = 8 * elements * 8 / rate + 2 * seconds
        assert took == pytest.approx(expected, rel=1e-6)


def test_parts_out_of_order_are_refused() -> None:
    def work(fabric: Fabric) -> None:
        with Buckets(fabric, np.zeros(10), 8) as ready:
            ready(slice(5, 10))
            ready(slice(3, 10))

    with pytest.raises(FabricError, match=r"3 to 10.*before 5 must come next"):
        World(1, Network()).run(work)


def test_computing_is_booked_without_what_the_buckets_take() -> None:
    def work(fabric: Fabric) -> Walk:
        settings = {"bucket_bytes": 1}
        return walk(fabric, "allreduce-bucketed", settings=settings, slope=bowl)

    for walked in World(3, Network(latency=1e-4)).run(work):
        spans = walked.column("compute") + walked.column("transfer")
        np.testing.assert_allclose(
            spans + walked.column("update"), walked.column("duration"), rtol=1e-9
        )
