"""Threads that share the work of a layer: what they compute is what one computes."""

import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from dsgd_bench.problems.layers import Team, team
from dsgd_bench.problems.lenet import LeNet
from dsgd_bench.problems.resnet20 import ResNet20

Threads = Callable[[int], None]


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Threads]:
    """Let what is built from now on have so many threads."""

    def take(count: int) -> None:
        monkeypatch.setenv("OMP_NUM_THREADS", str(count))
        team.cache_clear()

    yield take
    team.cache_clear()


def gradient(build: Any, batch: int, dtype: str) -> tuple[float, np.ndarray]:
    problem = build(data="generated", samples=40, dtype=dtype)
    x = problem.initial()
    x += 0.05 * np.random.default_rng(0).standard_normal(x.size).astype(x.dtype)
    g = np.empty_like(x)
    problem.gradient(x, np.arange(batch) + 1, g)  # whose remains change nothing
    return problem.gradient(x, np.arange(batch), g), g


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("build", [LeNet, ResNet20])
def test_gradients_are_those_of_one_thread(
    threads: Threads, build: Any, count: int, batch: int
) -> None:
    threads(1)
    loss, g = gradient(build, batch, "float64")
    threads(count)
    shared_loss, shared = gradient(build, batch, "float64")
    assert shared_loss == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(shared, g, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("build", [LeNet, ResNet20])
def test_gradients_repeat_bit_for_bit(threads: Threads, build: Any) -> None:
    threads(3)
    loss, g = gradient(build, 8, "float32")
    for _ in range(3):
        again_loss, again = gradient(build, 8, "float32")
        assert again_loss == loss
        np.testing.assert_array_equal(again, g)


@pytest.mark.parametrize("build", [LeNet, ResNet20])
def test_threads_allocate_nothing_of_the_size_of_model_or_batch(
    threads: Threads, build: Any
) -> None:
    threads(2)
    problem = build(data="generated", samples=40)
    x = problem.initial()
    g = np.zeros_like(x)
    problem.gradient(x, np.arange(32), g)
    tracemalloc.start()
    for _ in range(3):
        problem.gradient(x, np.arange(32), g)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300_000  # each thread has buffers of its own


@pytest.mark.filterwarnings("error")
def test_a_model_that_diverges_is_no_warning(threads: Threads) -> None:
    threads(2)
    problem = ResNet20(data="generated", samples=40)
    x = np.full_like(problem.initial(), 1e30)
    g = np.empty_like(x)
    assert not np.isfinite(problem.gradient(x, np.arange(8), g))


def test_things_are_dealt_in_order_and_to_as_many_as_get_some() -> None:
    assert Team(3).deal(range(7)) == [range(2), range(2, 4), range(4, 7)]
    assert Team(3).deal(range(2)) == [range(1), range(1, 2)]
    assert Team(1).deal([5, 6]) == [[5, 6]]


def test_parts_are_worked_on_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=20)

    def meet(_: int, __: int) -> None:
        meeting.wait()

    Team(3).share(meet, range(3))
    assert not meeting.broken


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_is_raised_after_everybody_has_finished(failing: int) -> None:
    done = threading.Event()

    def work(k: int, _: int) -> None:
        if k == failing:
            raise ZeroDivisionError
        done.wait(0.2)
        done.set()

    with pytest.raises(ZeroDivisionError):
        Team(2).share(work, range(2))
    assert done.is_set()


def test_linear_algebra_starts_no_threads_beside_ours() -> None:
    def counts() -> set[int]:
        found = threadpool_info()
        return {one["num_threads"] for one in found if one["user_api"] == "blas"}

    with threadpool_limits(2, "blas"):
        before = counts()
        with Team(2).alone():
            assert counts() <= {1}
        assert counts() == before
        with Team(1).alone():
            assert counts() == before
