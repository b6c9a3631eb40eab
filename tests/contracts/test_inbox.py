"""Slots: nothing lost, nothing twice, never torn, in order; or the newest one whole.

The hostile schedules are seeds of a virtual network that stretches every delay up to
fourfold and delivers every transfer in pieces.
"""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import Ranks

from dsgd_bench.arrays import Array
from dsgd_bench.errors import FabricError
from dsgd_bench.exchanges.inbox import Inbox
from dsgd_bench.exchanges.newest import Newest
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual.fabric import Network, VirtualFabric, World

HOSTILE = Network(latency=2e-6, bandwidth=2e7, jitter=3.0, pieces=2)

SCHEDULES = 1000

SIZES = (2, 3, 2, 3, 4)

DIMENSION = 6


def others(fabric: Fabric) -> list[int]:
    return [rank for rank in range(fabric.size) if rank != fabric.rank]


def message(rank: int, stamp: int, length: int = DIMENSION) -> Array:
    """A constant vector, so every mixture of two messages shows."""
    return np.full(length, 1000.0 * rank + stamp)


def on_schedules(work: Callable[[VirtualFabric], Any], schedules: int) -> Any:
    for seed in range(schedules):
        yield seed, World(SIZES[seed % len(SIZES)], HOSTILE, seed).run(work)


# --- Inbox: first in, first out, lossless


def converse(
    fabric: Fabric, messages: int, *, slots: int = 2, nap: float = 3e-5
) -> Any:
    """Push `messages` to everybody; return all that was taken, until all have left."""
    near = others(fabric)
    hurry = random.Random(fabric.rank)
    taken: list[tuple[int, int, Array]] = []
    buffer = np.zeros(DIMENSION)

    def take() -> None:
        found = inbox.take(buffer)
        if found is None:
            fabric.pause(1e-6)
        else:
            taken.append((*found, buffer.copy()))

    with Inbox(fabric, buffer, near, near, slots=slots) as inbox:
        for stamp in range(messages):
            fabric.pause(nap * hurry.random())
            for target in near:
                while not inbox.push(target, message(fabric.rank, stamp), stamp):
                    take()
        inbox.leave()
        while not inbox.exhausted:
            take()
    return taken


def check_conversation(ranks: list[Any], messages: int, what: str) -> None:
    for rank, taken in enumerate(ranks):
        for source in set(range(len(ranks))) - {rank}:
            stamps = [stamp for who, stamp, _ in taken if who == source]
            # nothing lost, nothing twice, and in the order sent
            assert stamps == list(range(messages)), what
        for source, stamp, values in taken:
            np.testing.assert_array_equal(values, message(source, stamp), what)


def test_nothing_is_lost_doubled_torn_or_overtaken_under_a_thousand_schedules() -> None:
    for seed, ranks in on_schedules(lambda fabric: converse(fabric, 4), SCHEDULES):
        check_conversation(ranks, 4, f"schedule {seed}")


def test_messages_arrive_once_whole_and_in_order(world: Ranks, size: int) -> None:
    ranks = world.together(size, lambda fabric: converse(fabric, 12), jitter=1.0)
    check_conversation(ranks, 12, "")


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_a_full_ring_refuses_the_next_message_and_sends_nothing(
    world: Ranks, slots: int
) -> None:
    size = min(2, world.most)

    def work(fabric: Fabric) -> list[Any]:
        near, buffer = others(fabric), np.zeros(DIMENSION)
        said: list[Any] = []
        with Inbox(fabric, buffer, near, near, slots=slots) as inbox:
            for target in near:
                for stamp in range(slots + 2):
                    said.append(inbox.push(target, message(0, stamp), stamp))
            fabric.barrier()  # both are full
            said += [found and found[1] for found in map(inbox.take, [buffer] * slots)]
            said.append(inbox.take(buffer))
            fabric.barrier()  # both are empty
            said += [inbox.push(target, buffer, 9) for target in near]
            sent = fabric.ledger.traffic.messages_out
        return [*said, sent]

    [left, *right] = world.together(size, work)
    assert all(other == left for other in right)
    if size == 2:
        sent = [True] * slots + [False, False]
        assert left == [*sent, *range(slots), None, True, slots + 1]


def test_sources_take_turns() -> None:
    """Two ranks send three messages each; the third takes one of each in turn."""

    def work(fabric: VirtualFabric) -> list[tuple[int, int]]:
        buffer = np.zeros(DIMENSION)
        receives = fabric.rank == 2
        sources, targets = ((0, 1), ()) if receives else ((), (2,))
        turns = []
        with Inbox(fabric, buffer, sources, targets) as inbox:
            if not receives:
                for stamp in range(3):
                    inbox.push(2, message(fabric.rank, stamp), stamp)
            fabric.barrier()
            while found := inbox.take(buffer):
                turns.append(found)
        return turns

    turns = World(3).run(work)[2]
    assert turns == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]


def test_one_source_can_be_asked_for_alone() -> None:
    def work(fabric: VirtualFabric) -> list[Any]:
        near, buffer = others(fabric), np.zeros(DIMENSION)
        with Inbox(fabric, buffer, near, near) as inbox:
            for target in near:
                inbox.push(target, message(fabric.rank, 5), 5)
            fabric.barrier()
            return [inbox.take(buffer, near[1]), inbox.take(buffer, near[1])]

    assert World(3).run(work)[0] == [(2, 5), None]


def test_traffic_of_an_inbox_is_booked_where_it_leaves_and_where_it_is_taken(
    world: Ranks, size: int
) -> None:
    def work(fabric: Fabric) -> tuple[int, ...]:
        converse(fabric, 3)
        t = fabric.ledger.traffic
        return t.messages_out, t.messages_in, t.bytes_out, t.bytes_in

    expected = 3 * (size - 1)
    for booked in world.together(size, work):
        assert booked == (expected,) * 2 + (expected * DIMENSION * 8,) * 2


@pytest.mark.parametrize("kind", [Inbox, Newest])
def test_ranks_that_disagree_on_an_edge_are_told_so(kind: type[Inbox | Newest]) -> None:
    def work(fabric: VirtualFabric) -> None:
        targets = [1] if fabric.rank == 0 else []
        with kind(fabric, np.zeros(2), [], targets):
            pass

    with pytest.raises(FabricError, match="rank 0 sends to rank 1, which does not"):
        World(2).run(work)


def test_ranks_that_expect_what_nobody_sends_are_told_so() -> None:
    def work(fabric: VirtualFabric) -> None:
        sources = [1] if fabric.rank == 0 else []
        with Inbox(fabric, np.zeros(2), sources, []):
            pass

    with pytest.raises(FabricError, match="rank 0 expects rank 1, which does not"):
        World(2).run(work)


# --- Newest


def gossip(fabric: Fabric, messages: int, *, slots: int = 3) -> Any:
    """Rank 0 publishes in a row; the others read all, and publish as they go."""
    near = others(fabric)
    hurry = random.Random(fabric.rank)
    reads: list[tuple[int, int, Array]] = []
    buffer = np.zeros(DIMENSION)

    def read() -> None:
        for source in near:
            stamp = models.newest(source, buffer)
            reads.append((source, stamp, buffer.copy()))

    with Newest(fabric, message(fabric.rank, 0), near, near, slots=slots) as models:
        read()
        fabric.barrier()
        for stamp in range(1, messages + 1):
            if fabric.rank == 0:
                for target in near:
                    models.publish(target, message(0, stamp), stamp)
            else:
                models.broadcast(message(fabric.rank, stamp), stamp)
                fabric.pause(1e-5 * hurry.random())
                read()
        models._overlapped.join()
        fabric.barrier()
        read()
    return reads, dict(fabric.ledger.counts)


def check_gossip(ranks: list[Any], messages: int, what: str) -> None:
    for rank, (reads, _) in enumerate(ranks):
        for source in set(range(len(ranks))) - {rank}:
            stamps = [stamp for who, stamp, _ in reads if who == source]
            assert stamps[0] == 0  # the initial model, before any arrival
            assert stamps == sorted(stamps), what  # never backwards
            if source == 0:
                assert stamps[-1] == messages, what
        for source, stamp, values in reads:
            np.testing.assert_array_equal(values, message(source, stamp), what)


RUSH = Network(latency=0.0, bandwidth=2e7, jitter=3.0, pieces=2)
"""Two messages may be written while one is read."""


def on_rushes(work: Callable[[VirtualFabric], Any], schedules: int) -> Any:
    for seed in range(schedules):
        yield seed, World(SIZES[seed % len(SIZES)], RUSH, seed).run(work)


@pytest.mark.parametrize("slots", [2, 3])
def test_the_newest_is_whole_and_never_older_under_a_thousand_schedules(
    slots: int,
) -> None:
    retries = 0
    for seed, ranks in on_rushes(lambda f: gossip(f, 6, slots=slots), SCHEDULES // 2):
        check_gossip(ranks, 6, f"schedule {seed}")
        retries += sum(counts.get("slot_retries", 0) for _, counts in ranks)
    assert retries > 0  # else these schedules would not have met the writer


def test_the_newest_is_whole_and_never_older(world: Ranks, size: int) -> None:
    check_gossip(world.together(size, lambda fabric: gossip(fabric, 50)), 50, "")


def test_without_the_look_afterwards_some_reads_would_be_torn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hostile schedules can tell: so it is the look that prevents it."""
    monkeypatch.setattr(Newest, "newest", careless)

    def whole(reads: Any) -> bool:
        return all((values == message(who, k)).all() for who, k, values in reads)

    rushes = on_rushes(lambda fabric: gossip(fabric, 6, slots=2), 300)
    assert not all(whole(reads) for _, ranks in rushes for reads, _ in ranks)


def careless(models: Newest, source: int, out: Array) -> int:
    place = models._place[source]
    return models._copy(place, int(models._look()[place]) - 1, out)


def test_what_nobody_read_is_counted_and_was_received_all_the_same() -> None:
    def work(fabric: VirtualFabric) -> Any:
        near, x = others(fabric), np.zeros(DIMENSION)
        with Newest(fabric, x, near, near) as models:
            for stamp in range(1, 6):
                models.publish(near[0], message(fabric.rank, stamp), stamp)
            fabric.barrier()
            stamp = models.newest(near[0], x)
        traffic = fabric.ledger.traffic
        return stamp, fabric.ledger.counts["overwritten"], traffic.messages_in

    assert World(2).run(work) == [(5, 4, 5)] * 2


def test_broadcasts_that_would_pile_up_are_left_out() -> None:
    """A model takes a second on the way; broadcasting it takes the sender no time."""

    def work(fabric: VirtualFabric) -> Any:
        near, x = others(fabric), np.zeros(DIMENSION)
        with Newest(fabric, x, near, near) as models:
            fabric.ledger.open()
            for stamp in range(1, 9):
                models.broadcast(x, stamp)
                fabric.pause(1.0)
            spans = fabric.ledger.training
        counts = fabric.ledger.counts
        return spans.transfer + spans.waiting, counts["unpublished"] + sum(
            fabric.ledger.exchanges.values()
        )

    slow = Network(latency=1.0)
    assert World(2, slow).run(work) == [(0.0, 8)] * 2
