"""Vectors on a GPU and the way to other ranks; without a GPU, on a stand-in for one.

On the host these tests still say what a window and a channel promise.
"""

import os
from typing import Any

import numpy as np
from conftest import Ranks

from dsgd_bench import arrays
from dsgd_bench.arrays import HOST, on_gpu
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.slow_links import slowed
from dsgd_bench.spec.trial import SlowLinksSpec

LENGTH = 11
"""Elements: several chunks of the stand-in, the last one smaller."""


def put(fabric: Fabric, values: Any) -> Any:
    return getattr(fabric, "gpu", HOST).put(np.array(values, float))


def vector(fabric: Fabric, rank: int) -> Any:
    return put(fabric, np.arange(LENGTH) + 100 * rank)


def test_a_mean_is_right_in_every_chunk(world: Ranks, size: int) -> None:
    def work(fabric: Fabric) -> Any:
        one, other = vector(fabric, fabric.rank), vector(fabric, 2 * fabric.rank)
        fabric.average(one)
        with fabric.averaging(other):
            pass
        return arrays.host(one), arrays.host(other)

    for one, other in world.together(size, work):
        # sums of integers below 2^53, then one division
        np.testing.assert_allclose(one, np.arange(LENGTH) + 50 * (size - 1), rtol=1e-15)
        np.testing.assert_allclose(
            other, np.arange(LENGTH) + 100 * (size - 1), rtol=1e-15
        )


def test_one_vector_goes_to_several_ranks_while_others_come(
    world: Ranks, size: int
) -> None:
    """Twice, so that staging buffers are used again, with other values."""

    def work(fabric: Fabric) -> Any:
        others = [rank for rank in range(size) if rank != fabric.rank]
        out = vector(fabric, fabric.rank)
        into = {rank: put(fabric, np.zeros(LENGTH)) for rank in others}
        messages = fabric.messages()
        seen = []
        for _ in range(2):
            for rank in others:
                messages.receive(into[rank], rank)
            for rank in others:
                messages.send(out, rank)
            messages.wait()
            seen.append({rank: arrays.host(into[rank]).copy() for rank in others})
            out *= 2.0
        messages.close()
        return seen

    for seen in world.together(size, work):
        for factor, vectors in enumerate(seen, 1):
            for rank, found in vectors.items():
                expected = factor * (np.arange(LENGTH) + 100.0 * rank)
                np.testing.assert_array_equal(found, expected)


def test_a_window_takes_and_gives_vectors_from_where_they_lie(
    world: Ranks, size: int
) -> None:
    """Every rank puts, reads back, and adds to a part of its neighbor's memory."""

    def work(fabric: Fabric) -> Any:
        right = (fabric.rank + 1) % size
        out, into = vector(fabric, fabric.rank), put(fabric, np.zeros(LENGTH))
        window = fabric.vectors(2 * LENGTH, out)
        first, second = slice(0, LENGTH), slice(LENGTH, 2 * LENGTH)
        window.put(out, right, first)
        window.flush(right)
        fabric.barrier()
        window.get(right, first, into)
        window.flush(right)
        window.accumulate(out, right, second)
        window.accumulate(out, right, second)
        window.flush(right)
        fabric.barrier()
        window.sync()
        got, own = arrays.host(into).copy(), arrays.host(window.local).copy()
        where = on_gpu(window.local)
        window.free()
        return got, own, where == on_gpu(out)

    for rank, (got, own, lies_there) in enumerate(world.together(size, work)):
        theirs = np.arange(LENGTH) + 100.0 * ((rank - 1) % size)
        np.testing.assert_array_equal(got, np.arange(LENGTH) + 100.0 * rank)
        np.testing.assert_array_equal(own, np.concatenate([theirs, 2 * theirs]))
        assert lies_there


def test_slow_links_slow_down_whatever_carries_them(world: Ranks) -> None:
    def work(fabric: Fabric) -> float:
        slow = slowed(fabric, SlowLinksSpec(seconds=0.01))
        x = vector(fabric, fabric.rank)
        started = slow.now()
        slow.average(x)
        return slow.now() - started

    size = min(2, world.most)
    for seconds in world.together(size, work):
        assert seconds >= 0.02 * (size > 1)


def test_the_transport_is_what_was_asked_for_and_says_why(world: Ranks) -> None:
    def work(fabric: Fabric) -> Any:
        transport = getattr(fabric, "transport", None)
        return transport and (transport.windows, transport.messages, transport.why)

    (found,) = set(world.together(min(3, world.most), work))
    _, _, asked = os.environ.get("DSGD_BENCH_TEST_DEVICE", "").partition(":")
    if not asked:
        assert found is None
        return
    windows, messages, why = found
    assert windows == ("ipc" if asked == "ipc" else "staged")
    assert messages == ("gpu-aware" if asked == "gpu-aware" else "staged")
    assert why
