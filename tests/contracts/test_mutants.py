"""The contracts have teeth: algorithms with a known bug must fail them.

Every mutant is a bug that was found in published code, or in ours while it was written.
Beside each stands what it must fail, and for the treacherous ones what it passes.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import test_algorithms as contracts
import test_replicas as replica_contracts
from conftest import VirtualRanks

from dsgd_bench import graphs
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.algorithms.base import Steps, algorithm
from dsgd_bench.algorithms.facts import Facts
from dsgd_bench.arrays import Array
from dsgd_bench.errors import FabricError
from dsgd_bench.exchanges.replicas import Replicas
from dsgd_bench.exchanges.wait_free import HandoverReplicas
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual.strict_window import StrictWindow, StrictWordWindow
from dsgd_bench.spec.ranges import GraphName

FAILURES = (AssertionError, FabricError)

Promise = Callable[..., None]

ONE_WORKER = contracts.test_one_worker_is_sequential_sgd
KEEPS_MEAN = contracts.test_the_mean_model_moves_by_the_mean_gradient
KEEPS_SUM = contracts.test_the_mean_model_moves_by_the_gradients_of_all
AGREES = contracts.test_without_gradients_the_workers_come_to_agree_on_their_mean
SAME_STEPS = contracts.test_all_ranks_take_equally_many_steps_although_one_clock_decides
SAME_SEED = contracts.test_one_seed_gives_one_trace_bit_for_bit
WHOLE_BATCH = contracts.test_many_ranks_equal_one_rank_with_all_their_samples
FINAL = contracts.test_the_array_handed_in_holds_the_final_model_after_closing
TRAFFIC = contracts.test_traffic_counted_is_traffic_predicted


@pytest.fixture
def breed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Enter a generator function in the table; return its name there."""

    def enter(steps: Callable[..., Steps], *traits: str) -> str:
        promised = frozenset(traits)
        facts = Facts(
            paper="", traits=promised, vectors=3, waits_for="all", models_sent=1
        )
        entry = algorithm("mutant", facts)(steps)
        monkeypatch.setitem(ALGORITHMS, "mutant", entry)
        return "mutant"

    return enter


def passes(promise: Promise, kind: str, size: int, *more: Any) -> None:
    if promise is ONE_WORKER:
        promise(VirtualRanks(), kind, "plain")
    else:
        promise(VirtualRanks(), size, kind)


def fails(promise: Promise, kind: str, size: int) -> None:
    with pytest.raises(FAILURES):
        passes(promise, kind, size)


# --- synchronous mutants


def gossip(weights: Callable[[int, int], dict[int, float]], what: str = "x") -> Any:
    """Return D-PSGD with mixing weights of one's own, mixing `x` or, wrongly, `g`."""

    def steps(x: Array, worker: Any) -> Iterator[Array]:
        fabric, whole = worker.fabric, slice(0, x.size)
        g, theirs = np.zeros_like(x), np.zeros_like(x)
        window = fabric.vectors(x.size, x)
        while True:
            yield x
            worker.gradient(x, out=g)
            mixed = x if what == "x" else g
            window.memory[:] = mixed
            fabric.barrier()
            mixed[:] = 0.0
            for rank, weight in weights(worker.rank, worker.size).items():
                window.get(rank, whole, out=theirs)
                window.flush(rank)
                mixed += weight * theirs
            fabric.barrier()
            worker.update(x, g)

    return steps


def ring(rank: int, size: int) -> dict[int, float]:
    row = graphs.make("ring", size).weights()[rank]
    return {other: weight for other, weight in enumerate(row) if weight}


def ring_that_lists_a_neighbor_twice(rank: int, size: int) -> dict[int, float]:
    """The one neighbor of two ranks counts twice, so the weights add up to 4/3."""
    listed = [(rank - 1) % size, (rank + 1) % size]
    weights = {rank: 1 - len(set(listed)) / 3}
    for other in listed:
        weights[other] = weights.get(other, 0.0) + 1 / 3
    return weights


def test_gossip_without_a_bug_passes(breed: Callable[..., str]) -> None:
    kind = breed(gossip(ring), "synchronous")
    passes(ONE_WORKER, kind, 1)
    for size in (1, 2, 3, 5):
        passes(KEEPS_MEAN, kind, size)
        passes(AGREES, kind, size)


def test_a_neighbor_listed_twice_is_caught(breed: Callable[..., str]) -> None:
    kind = breed(gossip(ring_that_lists_a_neighbor_twice), "synchronous")
    fails(KEEPS_MEAN, kind, 2)
    fails(ONE_WORKER, kind, 1)
    passes(KEEPS_MEAN, kind, 3)  # why a test of three ranks is not enough


def test_mixing_gradients_instead_of_models_is_caught(
    breed: Callable[..., str],
) -> None:
    kind = breed(gossip(ring, "g"), "synchronous")
    fails(AGREES, kind, 3)
    passes(KEEPS_MEAN, kind, 3)  # nothing else would see it
    passes(ONE_WORKER, kind, 1)


def test_a_wrong_sign_is_caught(breed: Callable[..., str]) -> None:
    def steps(x: Array, worker: Any) -> Iterator[Array]:
        g = np.zeros_like(x)
        while True:
            yield x
            worker.gradient(x, out=g)
            worker.fabric.average(g)
            worker.update(x, -g)

    kind = breed(steps, "synchronous")
    fails(ONE_WORKER, kind, 1)
    fails(KEEPS_MEAN, kind, 3)


def test_a_sum_instead_of_a_mean_is_caught(breed: Callable[..., str]) -> None:
    def steps(x: Array, worker: Any) -> Iterator[Array]:
        g = np.zeros_like(x)
        while True:
            yield x
            worker.gradient(x, out=g)
            worker.fabric.average(g)
            g *= worker.size
            worker.update(x, g)

    kind = breed(steps, "synchronous")
    fails(KEEPS_MEAN, kind, 2)
    fails(WHOLE_BATCH, kind, 3)
    passes(ONE_WORKER, kind, 1)


def test_a_gradient_touched_while_it_is_averaged_is_caught(
    breed: Callable[..., str],
) -> None:
    def steps(x: Array, worker: Any) -> Iterator[Array]:
        g, sent = np.zeros_like(x), np.zeros_like(x)
        while True:
            yield x
            with worker.fabric.averaging(sent):
                worker.gradient(x, out=g)
                sent[:] = g
            worker.update(x, sent)

    fails(KEEPS_MEAN, breed(steps, "synchronous"), 1)


def test_a_model_sent_and_received_in_one_array_is_caught(
    breed: Callable[..., str],
) -> None:
    def steps(x: Array, worker: Any) -> Iterator[Array]:
        g, whole = np.zeros_like(x), slice(0, x.size)
        window = worker.fabric.vectors(x.size, x)
        other = (worker.rank + 1) % worker.size
        while True:
            yield x
            worker.gradient(x, out=g)
            window.put(x, other, whole)
            window.get(other, whole, out=x)
            window.flush(other)
            worker.update(x, g)

    fails(KEEPS_MEAN, breed(steps, "synchronous"), 2)


def test_ranks_that_take_unequally_many_steps_are_caught(
    breed: Callable[..., str],
) -> None:
    def steps(x: Array, worker: Any) -> Iterator[Array]:
        g = np.zeros_like(x)
        while True:
            yield x
            worker.gradient(x, out=g)
            if worker.rank != 1:
                worker.fabric.average(g)
                worker.update(x, g)

    fails(SAME_STEPS, breed(steps, "synchronous"), 2)


def test_a_random_number_without_an_address_is_caught(
    breed: Callable[..., str],
) -> None:
    def steps(x: Array, worker: Any) -> Iterator[Array]:
        g, unseeded = np.zeros_like(x), np.random.default_rng()
        while True:
            yield x
            worker.gradient(x, out=g)
            worker.fabric.average(g)
            g += 1e-15 * unseeded.standard_normal(g.size)
            worker.update(x, g)

    with pytest.raises(AssertionError):
        SAME_SEED(breed(steps, "synchronous"))


# --- asynchronous mutants


def pairwise(change: Callable[[Replicas, Array, int], None]) -> Any:
    """Return AD-PSGD whose step on the replicas is `change(replicas, g, neighbor)`."""

    def steps(
        x: Array, worker: Any, *, graph: GraphName = "complete"
    ) -> Iterator[Array]:
        g = np.zeros_like(x)
        neighbors = worker.neighbors(graph)
        with Replicas(worker.fabric, x, worker.update) as replicas:
            while True:
                yield x
                worker.gradient(x, out=g)
                change(replicas, g, neighbors.draw())
                replicas.read(out=x)

    return steps


def test_pairwise_averaging_without_a_bug_passes(breed: Callable[..., str]) -> None:
    def right(replicas: Replicas, g: Array, neighbor: int) -> None:
        replicas.average_with(neighbor)
        replicas.apply(g, out=np.empty_like(g))

    kind = breed(pairwise(right), "asynchronous")
    for promise in (KEEPS_SUM, AGREES, FINAL, TRAFFIC):
        passes(promise, kind, 3)


def test_a_gradient_applied_at_both_ends_is_caught(breed: Callable[..., str]) -> None:
    def at_both(replicas: Replicas, g: Array, neighbor: int) -> None:
        replicas.average_with(neighbor)
        replicas.apply(g, out=np.empty_like(g))
        window, whole = replicas._models, slice(0, g.size)
        window.accumulate(-0.1 * g, neighbor, whole)
        window.flush(neighbor)

    kind = breed(pairwise(at_both), "asynchronous")
    fails(KEEPS_SUM, kind, 3)
    fails(FINAL, kind, 3)
    passes(AGREES, kind, 3)


def test_a_gradient_never_applied_is_caught(breed: Callable[..., str]) -> None:
    def forget(replicas: Replicas, g: Array, neighbor: int) -> None:
        replicas.average_with(neighbor)

    fails(KEEPS_SUM, breed(pairwise(forget), "asynchronous"), 3)


def test_averaging_one_end_only_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a worker pulls another one's model and keeps the average to itself."""
    monkeypatch.setattr(StrictWindow, "put", lambda *_: None)
    for kind in replica_contracts.LOCKED:
        fails(KEEPS_SUM, kind, 3)


def test_averaging_without_locks_is_caught(
    monkeypatch: pytest.MonkeyPatch, small_blocks: int
) -> None:
    """Every compare-and-swap seems to succeed, so nobody ever waits for a replica."""
    monkeypatch.setattr(
        StrictWordWindow, "compare_and_swap", lambda self, old, new, rank, index: old
    )
    mass = replica_contracts.test_no_mass_is_lost_under_a_thousand_hostile_schedules
    torn = replica_contracts.test_no_read_is_torn_under_hostile_schedules
    for kind in replica_contracts.LOCKED:
        for promise in (mass, torn):
            with pytest.raises(FAILURES):
                promise(kind, small_blocks)


small_blocks = replica_contracts.small_blocks


def test_gradients_left_in_the_accumulator_are_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The communication thread ends, and what it was handed last is forgotten."""
    take_over = HandoverReplicas.take_over

    def forget(self: HandoverReplicas) -> None:
        if self._handed < 7:
            take_over(self)

    monkeypatch.setattr(HandoverReplicas, "take_over", forget)
    fails(KEEPS_SUM, "adpsgd-waitfree", 2)


def test_traffic_that_is_not_booked_is_caught(breed: Callable[..., str]) -> None:
    def steps(x: Array, worker: Any) -> Iterator[Array]:
        g, twice = np.zeros_like(x), np.zeros_like(x)
        fabric: Fabric = worker.fabric
        while True:
            yield x
            worker.gradient(x, out=g)
            fabric.average(twice)
            fabric.average(g)
            worker.update(x, g)

    kind = breed(steps, "synchronous")
    fails(TRAFFIC, kind, 2)
    passes(TRAFFIC, kind, 1)
