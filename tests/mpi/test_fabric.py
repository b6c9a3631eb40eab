"""The measured fabric on the MPI library at hand: exact, whole, and honest about it.

What these tests check the virtual fabric cannot show: real atomics, real threads, and
whether a computing target answers.
"""

import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import Ranks
from numpy.typing import DTypeLike

from dsgd_bench import graphs
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.lock_free import DifferenceReplicas
from dsgd_bench.exchanges.replicas import Replicas
from dsgd_bench.exchanges.resumable import State
from dsgd_bench.fabric import preflight
from dsgd_bench.fabric.base import Fabric

pytestmark = pytest.mark.mpi

MIB = 2**20


def nothing(x: Array, g: Array) -> None:
    pass


@pytest.fixture
def all_ranks(world: Ranks) -> Callable[[Callable[[Any], Any]], list[Any]]:
    """Run ``work(fabric)`` on every rank and return all results."""
    return lambda work: world.together(world.most, work)


def shared(all_ranks: Any, value: Any) -> set[Any]:
    """Return what any rank says, so that all of them fail together."""
    return set(all_ranks(lambda fabric: value))


# --- collectives


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_average_is_the_mean_over_all_ranks(all_ranks: Any, dtype: str) -> None:
    def work(fabric: Fabric) -> tuple[Array, Array]:
        x = np.arange(5, dtype=dtype) + fabric.rank
        y = np.arange(5, dtype=dtype) * fabric.rank
        fabric.average(x)
        with fabric.averaging(y):
            time.sleep(1e-3)
        return x, y

    results = all_ranks(work)
    middle = (len(results) - 1) / 2
    rounding = 10 * np.finfo(dtype).eps  # of sums of at most ten
    for x, y in results:
        np.testing.assert_allclose(x, np.arange(5) + middle, rtol=rounding)
        np.testing.assert_allclose(y, np.arange(5) * middle, rtol=rounding)


def test_gathering_gives_everybody_everything_by_rank(all_ranks: Any) -> None:
    results = all_ranks(lambda fabric: fabric.gather({"rank": fabric.rank}))
    assert results == [[{"rank": rank} for rank in range(len(results))]] * len(results)


def test_ranks_of_one_host_share_a_clock(all_ranks: Any) -> None:
    def work(fabric: Any) -> Any:
        return fabric.nodes(), fabric.clock_offset(), fabric.gather(fabric.rank)

    for nodes, offset, ranks in all_ranks(work):
        assert ranks == list(range(len(nodes)))
        if len(set(nodes)) == 1:
            assert offset == (0.0, 0.0)


# --- windows


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_window_moves_exactly_the_part_that_is_named(
    all_ranks: Any, dtype: DTypeLike
) -> None:
    def work(fabric: Fabric) -> list[Array]:
        window = fabric.vectors(6, np.zeros(0, dtype))
        after = (fabric.rank + 1) % fabric.size
        fresh = window.memory.copy()
        fabric.barrier()
        window.put(np.array([1, 2], dtype), after, slice(1, 3))
        window.flush(after)
        fabric.barrier()
        window.accumulate(np.full(3, 10, dtype), after, slice(2, 5))
        window.flush(after)
        fabric.barrier()
        got, fetched = np.zeros(4, dtype), np.zeros(4, dtype)
        window.get(after, slice(1, 5), out=got)
        window.fetch(after, slice(1, 5), out=fetched)
        window.flush(after)
        window.sync()
        memory = window.memory.copy()
        fabric.barrier()
        window.free()
        return [fresh, memory, got, fetched]

    for fresh, memory, got, fetched in all_ranks(work):
        np.testing.assert_array_equal(fresh, np.zeros(6))
        np.testing.assert_array_equal(memory, [0, 1, 12, 10, 10, 0])
        np.testing.assert_array_equal(got, [1, 12, 10, 10])
        np.testing.assert_array_equal(fetched, [1, 12, 10, 10])


def test_adding_to_one_word_at_once_loses_and_repeats_nothing(all_ranks: Any) -> None:
    times = 300

    def work(fabric: Fabric) -> tuple[list[int], int]:
        window = fabric.words(2)
        fabric.barrier()
        before = [window.add(1, 0, 1) for _ in range(times)]
        fabric.barrier()
        total = window.read(0, 1)
        fabric.barrier()
        window.free()
        return before, total

    results = all_ranks(work)
    seen = sorted(value for before, _ in results for value in before)
    assert seen == list(range(times * len(results)))
    assert {total for _, total in results} == {times * len(results)}


def test_one_rank_at_a_time_holds_a_word_taken_by_compare_and_swap(
    all_ranks: Any,
) -> None:
    """A counter that is read and written unprotected, under the word as a lock."""
    times = 100

    def work(fabric: Fabric) -> tuple[int, list[int]]:
        words, counter = fabric.words(1), fabric.vectors(1, np.zeros(0))
        value, part = np.zeros(1), slice(0, 1)
        released = []
        for _ in range(times):
            while words.compare_and_swap(0, fabric.rank + 1, 0, 0) != 0:
                fabric.pause(0.0)
            counter.get(0, part, out=value)
            counter.flush(0)
            value += 1
            counter.put(value, 0, part)
            counter.flush(0)
            released.append(words.compare_and_swap(fabric.rank + 1, 0, 0, 0))
        fabric.barrier()
        counter.sync()
        total = int(counter.memory[0])
        fabric.barrier()
        counter.free()
        words.free()
        return total, released

    results = all_ranks(work)
    assert results[0][0] == times * len(results)
    for rank, (_, released) in enumerate(results):
        assert released == [rank + 1] * times


# --- replicas


@pytest.mark.mpi(min_size=2)
def test_no_read_is_torn_while_another_rank_writes_all_the_time(
    all_ranks: Any,
) -> None:
    """Constant models of 4 MiB: every whole read is constant, every torn one is not."""

    def work(fabric: Fabric) -> tuple[bool, float]:
        x = np.full(4 * MIB // 8, float(fabric.rank))
        start = float(x[0])
        whole = True
        with Replicas(fabric, x, nothing) as replicas:
            for _ in range(20):
                if fabric.rank:
                    replicas.average_with(0)
                else:
                    replicas.read(out=x)
                    whole = whole and bool((x == x[0]).all())
        return whole and bool((x == x[0]).all()), float(x[0]) - start

    results = all_ranks(work)
    assert all(whole for whole, _ in results)
    # rounding of some dozen averagings of numbers below ten
    assert abs(sum(moved for _, moved in results)) < 1e-13
    assert any(moved for _, moved in results)


HURRIED: dict[str, dict[str, Any]] = {
    "adpsgd-waitfree": {"interval": 0.0},
    "odsgd": {"warmup": 2},
}

CONSERVING = [
    name
    for name, a in ALGORITHMS.items()
    if a.traits >= {"asynchronous", "mean-preserving"} and "center" not in a.traits
]


@pytest.mark.parametrize("kind", CONSERVING)
def test_no_mass_is_lost_in_a_hurry(all_ranks: Any, kind: str) -> None:
    """Models of several blocks, threads that never rest; sums must come out exactly."""
    dimension, steps = 80_000, 40

    def work(fabric: Fabric) -> tuple[Array, Array, Array]:
        apart = 0.0 if "eventually-identical" in ALGORITHMS[kind].traits else 10.0
        start = np.sin(np.arange(dimension) + apart * fabric.rank)
        x, worker = start.copy(), Hurried(fabric, dimension, kind)
        walking = ALGORITHMS[kind].steps(x, worker, **HURRIED.get(kind, {}))
        for _ in range(steps + 1):
            next(walking)
        walking.close()
        return start, worker.spent, x

    results = all_ranks(work)
    lost = sum(start - 0.1 * spent - x for start, spent, x in results)
    # rounding of some hundred averagings and gradients of numbers of size one
    assert np.abs(lost).max() < 1e-12


class Hurried:
    """A worker whose gradients take no time but differ from step to step."""

    epochs = 0.0
    lead = 1

    def __init__(self, fabric: Fabric, dimension: int, kind: str) -> None:
        self.state = State()
        self.fabric, self.rank, self.size = fabric, fabric.rank, fabric.size
        self.optimizer, self.updating = self, fabric.ledger.updating
        self.workers = self.size - ALGORITHMS[kind].servers({}, self.size)
        self.serves = self.rank >= self.workers
        per_gradient = "per-gradient-lr" in ALGORITHMS[kind].traits
        self.lr = 0.1 / self.workers if per_gradient else 0.1
        self.spent = np.zeros(dimension)
        self._g = np.cos(np.arange(dimension) + fabric.rank)
        self._scratch, self._descent = np.zeros(dimension), np.zeros(dimension)
        self._steps = 0

    def gradient(
        self, x: Array, out: Array, ready: Callable[[slice], None] | None = None
    ) -> float:
        self._steps += 1
        np.multiply(self._g, self._steps % 3 - 1, out=out)
        self.spent += out
        if ready is not None:
            ready(slice(0, out.size))
        return 0.0

    def update(self, x: Array, g: Array) -> None:
        scratch = self._scratch[: g.size]
        np.multiply(g, self.lr, out=scratch)
        x -= scratch

    def descend(self, x: Array, g: Array, scale: float = 1.0) -> None:
        np.multiply(g, scale * self.lr, out=self._descent)
        x -= self._descent

    def graph(self, name: str, *, late: int = 0) -> graphs.Graph:
        return graphs.make(name, self.workers)

    def neighbors(self, graph: str) -> "Hurried":
        return self

    def draw(self) -> int | None:
        if self.size == 1:
            return None
        return (self.rank + 1 + self._steps % (self.size - 1)) % self.size


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_a_step_allocates_nothing_of_the_models_size(all_ranks: Any, kind: str) -> None:
    """Ten steps; the virtual fabric copies what is lent, so this is for MPI."""
    dimension = 2 * MIB // 8

    def work(fabric: Fabric) -> int:
        x, worker = np.zeros(dimension), Hurried(fabric, dimension, kind)
        walking = ALGORITHMS[kind].steps(x, worker, **HURRIED.get(kind, {}))
        round_ = worker.workers if worker.serves else 1  # a server's are messages
        next(walking)
        for _ in range(4 * round_):
            next(walking)
        tracemalloc.start()
        for _ in range(10 * round_):
            next(walking)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        for _ in walking if worker.serves else ():
            pass  # until the workers have left
        walking.close()
        return peak

    assert max(all_ranks(work)) < dimension * 8 / 4


def test_both_kinds_of_replicas_can_be_open_at_once(all_ranks: Any) -> None:
    def work(fabric: Fabric) -> float:
        x, y = np.full(3, float(fabric.rank)), np.full(3, -float(fabric.rank))
        with (
            Replicas(fabric, x, nothing) as one,
            DifferenceReplicas(fabric, y, nothing) as other,
        ):
            for _ in range(10):
                if fabric.size > 1:
                    one.average_with((fabric.rank + 1) % fabric.size)
                    other.average_with((fabric.rank + 1) % fabric.size)
        return float(x.sum() + y.sum())

    # rounding of some averagings of numbers below ten
    assert abs(sum(all_ranks(work))) < 1e-12


# --- progress


@pytest.mark.mpi(min_size=2)
def test_the_preflight_has_a_verdict_for_every_operation(all_ranks: Any) -> None:
    def work(fabric: Any) -> Any:
        verdict = preflight.preflight(fabric)
        return verdict, fabric.progress_running

    results = all_ranks(work)
    verdict, running = results[0]
    assert all(result == (verdict, running) for result in results)
    assert verdict.thread is running
    for pair in verdict.pairs.values():
        assert pair.origin == 0
        operations = pair.operations
        assert set(operations) == {"put", "get", "accumulate", "fetch_and_op"}
        for found in operations.values():
            assert found.verdict in {"passive", "with-thread", "waits"}
            assert found.seconds > 0


@pytest.mark.mpi(min_size=2)
def test_a_progress_thread_that_is_asked_for_runs_until_the_end(
    all_ranks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "BUSY_SECONDS", 0.02)
    monkeypatch.setattr(preflight, "PHASES", 1)
    before = set(threading.enumerate())

    def work(fabric: Any) -> Any:
        verdict = preflight.preflight(fabric, "thread")
        fabric.start_progress()  # again: one is enough
        started = set(threading.enumerate()) - before
        return verdict.thread, fabric.progress_running, len(started)

    assert set(all_ranks(work)) == {(True, True, 1)}
    assert shared(all_ranks, len(set(threading.enumerate()) - before)) == {0}


@pytest.mark.mpi(min_size=2)
def test_the_preflight_notices_a_window_that_waits_for_its_target(
    all_ranks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the suite would do wrong with ``MPI_Win_create``; `waits` is the truth."""
    from dsgd_bench.fabric.mpi.bare import created
    from dsgd_bench.fabric.mpi.window import MpiVectorWindow, MpiWordWindow

    def work(fabric: Any) -> Any:
        monkeypatch.setattr(
            fabric,
            "vectors",
            lambda length, like: MpiVectorWindow(fabric, length, like.dtype, created),
        )
        monkeypatch.setattr(
            fabric, "words", lambda count: MpiWordWindow(fabric, count, created)
        )
        return preflight.preflight(fabric, "none")

    verdict = all_ranks(work)[0]
    found = verdict.pairs["same_node"].operations
    assert "waits" in {operation.verdict for operation in found.values()}
    assert not verdict.thread


# --- threads and ends


def test_what_a_helper_thread_raises_is_raised_by_whoever_joins_it(
    all_ranks: Any,
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    def work(fabric: Fabric) -> list[str]:
        helper = fabric.helper()
        said = []
        helper.start(lambda: said.append("worked"))
        helper.join()
        helper.check()
        helper.start(fail)
        for look in (helper.join, helper.check):
            try:
                look()
            except ZeroDivisionError:
                said.append("raised")
        helper.close()
        return said

    for said in all_ranks(work):
        assert said == ["worked", "raised", "raised"]


def test_closing_a_fabric_leaves_no_communicator_and_no_thread(world: Ranks) -> None:
    from mpi4py import MPI

    kept = []
    before = set(threading.enumerate())

    def work(fabric: Any) -> None:
        fabric.start_progress()
        kept.append(fabric)

    world.together(world.most, work)
    [fabric] = kept
    left = len(set(threading.enumerate()) - before)
    open_still = fabric.comm != MPI.COMM_NULL or fabric.progress_running
    assert shared(
        lambda work: world.together(world.most, work), (left, open_still)
    ) == {(0, False)}
