"""Slow links in software: exact times in virtual time, and nothing else changes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import Ranks
from driving import Walk, walk
from test_algorithms import a_start, plainest, settle, workers

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.slow_links import slowed
from dsgd_bench.fabric.slow_ports import SlowPorts
from dsgd_bench.fabric.virtual.fabric import Network, World
from dsgd_bench.spec.trial import SlowLinksSpec

RATE = 8e6
"""bit/s: a byte takes a microsecond."""

LENGTH = 1000
"""Elements of 8 bytes: 8 ms through a slow link."""

BULK = 8 * LENGTH * 8 / RATE
LATER = 0.003
WORD = 8 * 8 / RATE

QUICK = Network(latency=1e-9, bandwidth=1e18)
"""A network that takes no time of its own worth speaking of."""

ROUNDING = 1e-7
"""What the quick network, and sums of floating-point times, may add to a theory."""

LAST = SlowLinksSpec(ranks=(2,), seconds=LATER, rate=RATE)
"""The last of three ranks has a slow link."""


def together(work: Callable[[Fabric], Any], settings: SlowLinksSpec, size: int = 3):
    """Run `work` on ranks whose links are slow as the settings say."""
    return World(size, QUICK).run(lambda fabric: work(slowed(fabric, settings)))


def timed(fabric: Fabric, operation: Callable[[], object]) -> float:
    started = fabric.now()
    operation()
    return fabric.now() - started


# --- which links are slow


@pytest.mark.parametrize(
    ("settings", "slow"),
    [
        (SlowLinksSpec(rate=1e6), {(0, 1), (0, 2), (1, 2)}),
        (SlowLinksSpec(ranks=(2,), rate=1e6), {(0, 2), (1, 2)}),
        (SlowLinksSpec(pairs=("1-0",), seconds=1.0), {(0, 1)}),
        (
            SlowLinksSpec(pairs=("0-1",), ranks=(2,), seconds=1.0),
            {(0, 1), (0, 2), (1, 2)},
        ),
    ],
)
def test_links_are_slow_where_a_chosen_rank_is_at_either_end_or_a_pair_at_both(
    settings: SlowLinksSpec, slow: set[tuple[int, int]]
) -> None:
    def work(fabric: Fabric) -> list[bool]:
        ports = SlowPorts(fabric, settings)
        return [ports.is_slow(rank) for rank in range(3)]

    found = World(3, QUICK).run(work)
    for one in range(3):
        for other in range(3):
            assert found[one][other] is ((min(one, other), max(one, other)) in slow)


def test_where_nothing_is_slow_the_fabric_is_the_same_object() -> None:
    def work(fabric: Fabric) -> bool:
        return slowed(fabric, SlowLinksSpec()) is fabric

    assert all(World(3, QUICK).run(work))
    alone = World(1, QUICK).run(lambda f: slowed(f, SlowLinksSpec(rate=1.0)) is f)
    assert alone == [True]


# --- one-sided operations


def bulk(window: Any, kind: str, rank: int) -> None:
    values, part = np.ones(LENGTH), slice(0, LENGTH)
    if kind in ("put", "accumulate"):
        getattr(window, kind)(values, rank, part)
    else:
        getattr(window, kind)(rank, part, values)
    window.flush(rank)


@pytest.mark.parametrize("kind", ["put", "get", "accumulate", "fetch"])
def test_a_transfer_takes_bytes_over_rate_and_the_delay_there_and_back(
    kind: str,
) -> None:
    def work(fabric: Fabric) -> tuple[float, float, float]:
        window = fabric.vectors(LENGTH, np.zeros(0))
        slow = quick = own = 0.0
        if fabric.rank == 0:
            slow = timed(fabric, lambda: bulk(window, kind, 2))
            quick = timed(fabric, lambda: bulk(window, kind, 1))
            own = timed(fabric, lambda: bulk(window, kind, 0))
        fabric.barrier()
        window.free()
        return slow, quick, own

    slow, quick, own = together(work, LAST)[0]
    request = WORD if kind in ("get", "fetch") else 0.0
    assert slow == pytest.approx(request + BULK + 2 * LATER, abs=ROUNDING)
    assert quick < ROUNDING
    assert own < ROUNDING


@pytest.mark.parametrize("kind", ["add", "read", "compare_and_swap"])
def test_a_control_word_takes_the_delay_there_and_back_and_eight_bytes(
    kind: str,
) -> None:
    arguments = {"add": (1, 2, 0), "read": (2, 0), "compare_and_swap": (0, 1, 2, 0)}

    def work(fabric: Fabric) -> float:
        window = fabric.words(1)
        spent = 0.0
        if fabric.rank == 0:
            spent = timed(fabric, lambda: getattr(window, kind)(*arguments[kind]))
        fabric.barrier()
        window.free()
        return spent

    assert together(work, LAST)[0] == pytest.approx(WORD + 2 * LATER, abs=ROUNDING)


def test_transfers_of_one_direction_queue_and_those_of_two_do_not() -> None:
    def work(fabric: Fabric) -> list[float]:
        window = fabric.vectors(2 * LENGTH, np.zeros(0))
        first, second = np.ones(LENGTH), np.ones(LENGTH)
        halves = slice(0, LENGTH), slice(LENGTH, 2 * LENGTH)

        def one_way() -> None:
            window.put(first, 2, halves[0])
            window.put(second, 2, halves[1])
            window.flush(2)

        def both_ways() -> None:
            window.get(2, halves[1], second)
            window.put(first, 2, halves[0])
            window.flush(2)

        def asking_last() -> None:
            window.put(first, 2, halves[0])
            window.get(2, halves[1], second)
            window.flush(2)

        spent = []
        if fabric.rank == 0:
            spent = [timed(fabric, do) for do in (one_way, both_ways, asking_last)]
        fabric.barrier()
        window.free()
        return spent

    one_way, both_ways, asking_last = together(work, LAST)[0]
    assert one_way == pytest.approx(2 * BULK + 2 * LATER, abs=ROUNDING)
    assert both_ways == pytest.approx(WORD + BULK + 2 * LATER, abs=ROUNDING)
    # the request waits behind the data of the put
    assert asking_last == pytest.approx(BULK + WORD + BULK + 2 * LATER, abs=ROUNDING)


def test_the_port_of_a_slow_rank_is_shared_by_its_transfers_to_all_others() -> None:
    def work(fabric: Fabric) -> float:
        window = fabric.vectors(LENGTH, np.zeros(0))
        values, part = np.ones(LENGTH), slice(0, LENGTH)

        def to_both() -> None:
            for rank in (0, 1):
                window.put(values, rank, part)
            for rank in (0, 1):
                window.flush(rank)

        spent = timed(fabric, to_both) if fabric.rank == 2 else 0.0
        fabric.barrier()
        window.free()
        return spent

    assert together(work, LAST)[2] == pytest.approx(2 * (BULK + LATER), abs=ROUNDING)
    pairs = SlowLinksSpec(pairs=("0-2", "1-2"), seconds=LATER, rate=RATE)
    assert together(work, pairs)[2] == pytest.approx(BULK + 2 * LATER, abs=ROUNDING)


def test_computing_hides_a_slow_transfer() -> None:
    def work(fabric: Fabric) -> float:
        window = fabric.vectors(LENGTH, np.zeros(0))
        values = np.ones(LENGTH)
        spent = 0.0
        if fabric.rank == 0:
            window.put(values, 2, slice(0, LENGTH))
            fabric.pause(BULK)
            spent = timed(fabric, lambda: window.flush(2))
        fabric.barrier()
        window.free()
        return spent

    assert together(work, LAST)[0] == pytest.approx(2 * LATER, abs=ROUNDING)


def test_where_the_network_is_slower_it_alone_counts() -> None:
    network = Network(latency=0.0, bandwidth=RATE / 8 / 3)

    def work(fabric: Fabric) -> float:
        fabric = slowed(fabric, SlowLinksSpec(rate=RATE))
        window = fabric.vectors(LENGTH, np.zeros(0))
        spent = 0.0
        if fabric.rank == 0:
            spent = timed(fabric, lambda: bulk(window, "put", 1))
        fabric.barrier()
        window.free()
        return spent

    assert World(2, network).run(work)[0] == pytest.approx(3 * BULK, abs=ROUNDING)


# --- two-sided messages


def messages(
    settings: SlowLinksSpec, edges: list[tuple[int, int]], late: float = 0.0
) -> list[tuple[float, float]]:
    """Send a message along every edge; return when each rank had its, and was done.

    The sources of the edges begin `late` seconds after the receivers.
    """

    def work(fabric: Fabric) -> tuple[float, float]:
        channel = fabric.messages()
        began = fabric.now()
        ours = [edge for edge in edges if edge[0] == fabric.rank]
        for source, target in edges:
            if target == fabric.rank:
                channel.receive(np.empty(LENGTH), source)
        if ours:
            fabric.pause(late)
        for _, target in ours:
            channel.send(np.ones(LENGTH), target)
        channel.arrive()
        arrived = fabric.now() - began
        channel.wait()
        done = fabric.now() - began
        channel.close()
        return arrived, done

    return together(work, settings)


@pytest.mark.parametrize("late", [0.0, 1.0])
def test_a_message_arrives_when_its_link_has_carried_it(late: float) -> None:
    found = messages(LAST, [(0, 2), (2, 1)], late)
    for rank in (1, 2):
        assert found[rank][0] == pytest.approx(late + BULK + LATER, abs=ROUNDING)
    assert found[0][1] == pytest.approx(late + BULK, abs=ROUNDING), "has left"


def test_messages_out_of_one_port_arrive_one_after_the_other() -> None:
    found = messages(LAST, [(2, 0), (2, 1)])
    assert found[0][0] == pytest.approx(BULK + LATER, abs=ROUNDING)
    assert found[1][0] == pytest.approx(2 * BULK + LATER, abs=ROUNDING)
    assert found[2][1] == pytest.approx(2 * BULK, abs=ROUNDING)


def test_messages_into_one_port_arrive_one_after_the_other() -> None:
    found = messages(LAST, [(0, 2), (1, 2)])
    assert found[2][0] == pytest.approx(2 * BULK + LATER, abs=ROUNDING)


def test_a_message_between_two_slow_ports_passes_both_at_once() -> None:
    found = messages(SlowLinksSpec(rate=RATE), [(0, 1), (1, 2), (2, 0)])
    for arrived, done in found:
        assert arrived == pytest.approx(BULK, abs=ROUNDING)
        assert done == pytest.approx(BULK, abs=ROUNDING)


def test_messages_of_anybody_are_taken_when_their_link_has_carried_them() -> None:
    def work(fabric: Fabric) -> list[tuple[int, float]]:
        channel = fabric.messages()
        began, taken = fabric.now(), []
        if fabric.rank == 0:
            for _ in range(2):
                source, count = channel.take(np.empty(LENGTH))
                assert count == LENGTH
                taken.append((source, fabric.now() - began))
        else:
            fabric.pause(0.001 * fabric.rank)
            channel.send(np.ones(LENGTH), 0)
            channel.wait()
        channel.close()
        return taken

    (first, at), (second, later) = together(work, LAST)[0]
    assert (first, second) == (1, 2)
    assert at == pytest.approx(0.001, abs=ROUNDING)
    assert later == pytest.approx(0.002 + BULK + LATER, abs=ROUNDING)


# --- collectives


@pytest.mark.parametrize("size", [2, 3, 5])
def test_an_average_takes_what_a_ring_takes_through_the_slowest_link(size: int) -> None:
    settings = SlowLinksSpec(pairs=("0-1",), seconds=LATER, rate=RATE)
    ring = 2 * (size - 1) * LATER + 2 * (size - 1) / size * BULK

    def work(fabric: Fabric) -> tuple[float, float, float]:
        x = np.full(LENGTH, float(fabric.rank))
        spent = timed(fabric, lambda: fabric.average(x))
        before = fabric.now()
        with fabric.averaging(x):
            fabric.pause(ring / 2)
        return x[0], spent, fabric.now() - before

    for mean, spent, beside in together(work, settings, size):
        assert mean == pytest.approx((size - 1) / 2)
        assert spent == pytest.approx(ring, abs=ROUNDING)
        assert beside == pytest.approx(ring, abs=ROUNDING), "computing is hidden"


# --- everything on top

ALL_SLOW = SlowLinksSpec(seconds=1e-4, rate=RATE)


def walks(kind: str, links: SlowLinksSpec, **more: Any) -> list[Walk]:
    """Run an algorithm on four ranks whose links are slow."""
    settings = plainest(kind)
    return together(
        lambda fabric: walk(fabric, kind, settings=settings, **more), links, size=4
    )


@pytest.mark.parametrize("kind", [n for n, a in ALGORITHMS.items() if a.synchronous])
def test_slow_links_change_no_model_of_a_synchronous_algorithm(kind: str) -> None:
    slow, quick = walks(kind, ALL_SLOW), walks(kind, SlowLinksSpec())
    for one, other in zip(slow, quick, strict=True):
        np.testing.assert_array_equal(one.final, other.final)
        assert one.handed_over == other.handed_over


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "kind", [n for n, a in ALGORITHMS.items() if "mean-preserving" in a.traits]
)
def test_the_mean_model_moves_by_the_gradients_of_all_over_slow_links(
    world: Ranks, kind: str, seed: int
) -> None:
    """One rank's links are slow, on both fabrics and under hostile schedules."""
    size = min(world.most, 4)
    links = SlowLinksSpec(ranks=(size - 1,), seconds=1e-4, rate=RATE)

    def work(fabric: Fabric) -> Walk:
        start = a_start(kind, fabric.rank)
        return walk(slowed(fabric, links), kind, start=start, steps=5)

    found = world.together(size, work, seed=seed, jitter=2.0, pieces=3)
    start = np.mean([a_start(kind, rank) for rank in range(size)], axis=0)
    moved = -0.1 * np.mean([w.spent for w in workers(found)], axis=0)
    # rounding: every gradient and every averaging rounds models of size one
    np.testing.assert_allclose(settle(found), start + moved, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_the_time_of_slow_links_is_booked_as_communication(kind: str) -> None:
    slow, quick = walks(kind, ALL_SLOW, steps=6), walks(kind, SlowLinksSpec(), steps=6)

    def spent(found: list[Walk], *names: str) -> float:
        return sum(w.column(name).sum() for w in found for name in names)

    assert spent(slow, "injected", "injected_asked") == 0.0
    assert spent(slow, "compute") == pytest.approx(spent(quick, "compute"), rel=0.2)
    names = ("transfer", "overlapped", "waiting", "update")
    assert spent(slow, *names) > spent(quick, *names)
