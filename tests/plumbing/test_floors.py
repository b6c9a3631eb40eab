"""Floors of the benchmarks: how copies and products are counted; nothing is quoted."""

import numpy as np
import pytest

from dsgd_bench.arrays import HOST
from dsgd_bench.bench import floors
from dsgd_bench.bench.floors import Floor, copy_bandwidth, fastest, matmul_rate
from dsgd_bench.errors import ConfigError


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when it is told to."""
    now = [0.0]
    monkeypatch.setattr(floors, "monotonic", lambda: now[0])
    return now


def test_the_fastest_stretch_counts_and_is_shared_among_its_calls(clock):
    costs = iter([9.0, 0.3, 0.4, 0.2, 0.5, 0.3, 0.3, 0.3])  # the first one warms up

    def work():
        clock[0] += next(costs)

    assert fastest(HOST, work) == pytest.approx(0.2)


def test_short_calls_are_repeated_until_a_stretch_is_long_enough(clock):
    calls = [0]

    def work():
        calls[0] += 1
        clock[0] += 1e-4

    assert fastest(HOST, work) == pytest.approx(1e-4)
    assert calls[0] >= floors.TRIES * floors.STRETCH / 1e-4


def test_a_copy_counts_what_it_reads_and_what_it_writes(monkeypatch):
    monkeypatch.setattr(floors, "fastest", lambda device, work: 0.5)
    assert copy_bandwidth(nbytes=4000) == 2 * 4000 / 0.5


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_all_of_the_vector_is_copied_by_however_many_threads(monkeypatch, threads):
    copied = []

    def once(device, work):
        work()
        target = work.args[-1] if threads > 1 else work.args[0]
        copied.append(bool(np.all(target == 1)))
        return 1.0

    monkeypatch.setattr(floors, "fastest", once)
    copy_bandwidth(nbytes=4004, threads=threads)
    assert copied == [True]


def test_a_product_counts_an_addition_for_every_multiplication(monkeypatch):
    monkeypatch.setattr(floors, "fastest", lambda device, work: 0.25)
    assert matmul_rate(order=10) == 2 * 10**3 / 0.25


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_product_that_is_timed_is_the_one_asked_for(dtype):
    seen = []

    def multiply(a, b, out):
        np.matmul(a, b, out=out)
        seen.append((a.dtype, a.shape, out.dtype))

    assert matmul_rate(HOST, dtype, order=64, multiply=multiply) > 0
    assert set(seen) == {(np.dtype(dtype), (64, 64), np.dtype(dtype))}


@pytest.mark.parametrize("precision", ["tf32", "float8"])
def test_a_precision_that_the_device_does_not_have_is_refused(precision):
    with pytest.raises(ConfigError, match=precision):
        matmul_rate(HOST, precision=precision)


def test_the_floor_is_the_slower_one_of_memory_and_arithmetic():
    floor = Floor(bandwidth=10.0, rate=100.0)
    assert floor.seconds(nbytes=20, operations=100) == 2.0
    assert floor.seconds(nbytes=20, operations=300) == 3.0
