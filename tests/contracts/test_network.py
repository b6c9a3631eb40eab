"""The simulated network: what ports, operations and all-reduces cost, and that they do.

The expected times are written out from LogGP's formulas.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from conftest import Work
from driving import Walk, walk
from test_algorithms import a_start, settle, workers

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.columns import COLUMNS
from dsgd_bench.fabric.virtual import allreduce_cost
from dsgd_bench.fabric.virtual.fabric import World
from dsgd_bench.fabric.virtual.network import Interconnect, Network
from dsgd_bench.fabric.virtual.ports import Crowd, Port
from dsgd_bench.spec.network import (
    AllReduceSpec,
    BackgroundSpec,
    LinkSpec,
    NetworkSpec,
    OperationSpec,
)
from dsgd_bench.spec.trial import SlowLinksSpec

LATENCY, OVERHEAD, RATE = 1e-3, 1e-4, 8e6  # a byte takes a microsecond
FAR = LinkSpec(latency=LATENCY, overhead=OVERHEAD, rate=RATE)
NEAR = LinkSpec(latency=1e-5, overhead=1e-6, rate=8e8)
PLAIN = NetworkSpec(far=FAR, near=NEAR)
BYTES = 10_000
TOOK = BYTES * 8 / RATE
ONE_WAY = OVERHEAD + LATENCY


def network(size: int, **more: Any) -> Interconnect:
    return Interconnect(NetworkSpec(far=FAR, near=NEAR, **more), size)


def together(size: int, work: Work, **more: Any) -> list[Any]:
    return World(size, network(size, **more)).run(work)


# --- ports


def test_messages_pass_a_port_one_after_the_other() -> None:
    port = Port(1e-6, 0)
    assert port.carry(0.0, 0.0, 1000) == (0.0, pytest.approx(1e-3))
    assert port.carry(0.0, 0.0, 1000) == pytest.approx((1e-3, 2e-3))
    assert port.carry(0.0, 5e-3, 1000) == pytest.approx((5e-3, 6e-3))


def test_a_later_message_takes_the_first_gap_that_is_long_enough() -> None:
    port = Port(1e-6, 0)
    port.carry(0.0, 5e-3, 1000)
    assert port.carry(0.0, 4.5e-3, 1000) == pytest.approx((6e-3, 7e-3))
    assert port.carry(0.0, 0.0, 5000) == pytest.approx((0.0, 5e-3))
    assert port.carry(0.0, 0.0, 1) == pytest.approx((7e-3, 7.001e-3))


def test_a_port_carries_one_message_at_a_time_in_any_order() -> None:
    random = np.random.default_rng(0)
    port, taken, now = Port(1e-6, 0), [], 0.0
    for _ in range(500):
        now += random.exponential(1e-3)
        ready, size = now + random.exponential(5e-3), int(random.integers(1, 3000))
        start, end = port.carry(now, ready, size)
        assert start >= ready
        assert end - start == pytest.approx(size * 1e-6)
        taken.append((start, end))
    taken.sort()
    for (_, end), (start, _) in pairwise(taken):
        assert start >= end - 1e-12


# --- messages


def arrivals(size: int, routes: list[tuple[int, int]], **more: Any) -> list[float]:
    net = network(size, **more)
    return [net.message(source, target, BYTES, 0.0)[1] for source, target in routes]


def test_a_message_to_another_node_takes_overhead_latency_and_its_bytes() -> None:
    left, there = network(2).message(0, 1, BYTES, 3.0)
    assert left == pytest.approx(3.0 + OVERHEAD + TOOK)
    assert there == pytest.approx(3.0 + ONE_WAY + TOOK)


def test_senders_to_one_receiver_share_its_port_and_others_do_not() -> None:
    alone, second, other = arrivals(4, [(0, 2), (1, 2), (1, 3)])
    assert alone == pytest.approx(ONE_WAY + TOOK)
    assert second == pytest.approx(ONE_WAY + 2 * TOOK)
    # it leaves after the first message of rank 1, which left at once
    assert other == pytest.approx(ONE_WAY + 2 * TOOK)


def test_what_comes_and_what_goes_do_not_share_a_port() -> None:
    there, back = arrivals(2, [(0, 1), (1, 0)])
    assert there == back == pytest.approx(ONE_WAY + TOOK)


def test_ranks_of_a_node_share_its_port_but_not_for_each_other() -> None:
    first, second, inside = arrivals(4, [(0, 2), (1, 3), (0, 1)], ranks_per_node=2)
    assert second == pytest.approx(first + TOOK)
    assert inside == pytest.approx(1e-6 + 1e-5 + BYTES * 1e-8)


def test_words_slip_in_between() -> None:
    net = network(2)
    net.message(0, 1, 10 * BYTES, 0.0)
    assert net.message(0, 1, 8, 0.0)[1] == pytest.approx(ONE_WAY)


def test_a_slow_link_is_slow_in_both_directions_and_for_no_other() -> None:
    slow = SlowLinksSpec(ranks=(1,), rate=RATE / 10, seconds=0.5)
    net = Interconnect(PLAIN, 4, slow=slow)
    for source, target in ((0, 1), (1, 0)):
        _, there = net.message(source, target, BYTES, 0.0)
        assert there == pytest.approx(0.5 + ONE_WAY + 10 * TOOK)
    assert net.message(2, 3, BYTES, 0.0)[1] == pytest.approx(ONE_WAY + TOOK)


@pytest.mark.parametrize("eager", [BYTES - 1, BYTES])
def test_nobody_waits_until_a_short_message_is_asked_for(eager: int) -> None:
    """Libraries keep it; a long one leaves once its receiver has a place for it."""

    def work(fabric: Fabric) -> float:
        messages = fabric.messages()
        if fabric.rank == 0:
            messages.send(np.zeros(BYTES // 8), 1)
        else:
            fabric.pause(1.0)
            messages.receive(np.empty(BYTES // 8), 0)
        messages.wait()
        ended = fabric.now()
        messages.close()
        return ended

    sender, receiver = together(2, work, eager=eager)
    assert receiver == pytest.approx(1.0)
    if eager >= BYTES:
        assert sender == pytest.approx(OVERHEAD + TOOK)
    else:
        assert sender == pytest.approx(1.0)


def test_a_model_that_stands_for_a_larger_one_is_as_long_as_that() -> None:
    spec = NetworkSpec(far=FAR, wire_bytes=100 * BYTES, eager=BYTES)
    assert not Interconnect(spec, 2, model_bytes=BYTES).keeps(BYTES)
    assert Interconnect(PLAIN, 2, model_bytes=BYTES).keeps(BYTES)
    assert not Network().keeps(1)


def test_a_slow_pair_has_a_wire_of_its_own() -> None:
    net = Interconnect(PLAIN, 3, slow=SlowLinksSpec(pairs=("0-1",), rate=RATE / 10))
    assert net.message(0, 1, BYTES, 0.0)[1] == pytest.approx(ONE_WAY + 10 * TOOK)
    assert net.message(2, 0, BYTES, 0.0)[1] == pytest.approx(ONE_WAY + TOOK)


# --- one-sided operations


@pytest.mark.parametrize("kind", ["get", "put", "fetch", "accumulate"])
def test_an_operation_is_a_request_and_an_answer(kind: Any) -> None:
    # up to the overhead of the answer: who answers by hardware has none
    assert network(2).operation(kind, 0, 1, BYTES, 0.0) == pytest.approx(
        2 * ONE_WAY + TOOK, abs=OVERHEAD
    )
    assert network(2).operation("word", 0, 1, 8, 0.0) == pytest.approx(
        2 * ONE_WAY + 8 * 8 / RATE
    )
    assert network(2).operation(kind, 1, 1, BYTES, 7.0) == 7.0


def test_gets_of_one_target_share_its_port_out() -> None:
    net = network(3)
    first = net.operation("get", 1, 0, BYTES, 0.0)
    # who is answered at once is charged for the answer's overhead, too
    assert net.operation("get", 2, 0, BYTES, 0.0) == pytest.approx(
        first + TOOK, abs=1.01 * OVERHEAD
    )
    alone = network(3).operation("put", 2, 0, BYTES, 0.0)
    assert net.operation("put", 2, 0, BYTES, 0.0) == pytest.approx(alone)


def test_what_was_measured_counts_where_it_is_slower() -> None:
    operations: Any = {"accumulate": OperationSpec(seconds=0.1, rate=RATE / 4)}
    spec = NetworkSpec(far=LinkSpec(LATENCY, OVERHEAD, RATE, operations))
    net = Interconnect(spec, 2)
    assert net.operation("accumulate", 0, 1, BYTES, 0.0) == pytest.approx(
        0.1 + 4 * TOOK
    )
    assert net.operation("put", 1, 0, BYTES, 0.0) < 0.1


def test_a_long_exchange_takes_one_way_and_a_short_one_both() -> None:
    short = network(2).exchange(0, 1, BYTES, 0.0)
    assert short == pytest.approx(OVERHEAD + 4 * LATENCY + 2 * TOOK)
    long = network(2).exchange(0, 1, 1000 * BYTES, 0.0)
    # and the last of its 77 blocks once more
    assert 1000 * TOOK < long < 1.1 * 1000 * TOOK


def test_exchanges_that_meet_at_a_rank_share_its_ports() -> None:
    net = network(3)
    alone = net.exchange(0, 1, 1000 * BYTES, 0.0)
    assert net.exchange(2, 1, 1000 * BYTES, 0.0) > 1.9 * alone


# --- who answers


def busy_target(progress: Any, poll: float = 0.0) -> tuple[float, float]:
    """Return what a fetch takes whose target computes for a second, and later."""

    def work(fabric: Fabric) -> tuple[float, float] | None:
        window, words = fabric.vectors(4, np.zeros(0)), fabric.words(1)
        fabric.barrier()
        took = None
        if fabric.rank == 0:
            out = np.zeros(4)
            fabric.pause(0.25)
            started = fabric.now()
            window.fetch(1, slice(0, 4), out)
            window.flush(1)
            busy = fabric.now() - started
            fabric.pause(2.0)
            started = fabric.now()
            words.read(1, 0)
            took = busy, fabric.now() - started
        else:
            window.memory[:] = 1.0
            fabric.pause(1.0)
        window.free()
        words.free()
        return took

    found: tuple[float, float] = together(2, work, progress=progress, poll=poll)[0]
    return found


def test_hardware_answers_for_a_target_that_computes() -> None:
    busy, idle = busy_target("hardware")
    assert busy < 3 * ONE_WAY
    assert idle < 3 * ONE_WAY


def test_without_a_thread_a_target_answers_once_it_calls_again() -> None:
    busy, idle = busy_target("none")
    assert busy == pytest.approx(0.75, abs=3 * ONE_WAY)
    assert idle < 3 * ONE_WAY


def test_a_progress_thread_answers_when_it_looks_next() -> None:
    busy, idle = busy_target("thread", poll=0.1)
    assert busy < 0.1 + 3 * ONE_WAY
    assert idle < 3 * ONE_WAY
    assert busy_target("thread", poll=0.1)[0] != busy_target("thread", poll=0.07)[0]


def test_two_ranks_that_wait_for_each_other_answer_each_other() -> None:
    def work(fabric: Fabric) -> float:
        window = fabric.words(2)
        fabric.barrier()
        fabric.pause(0.1)
        window.add(1, 1 - fabric.rank, 0)
        window.free()
        return fabric.now()

    assert max(together(2, work, progress="none")) < 0.1 + 3 * ONE_WAY


def test_a_lock_that_is_held_for_long_is_not_polled_a_thousand_times() -> None:
    def work(fabric: Fabric) -> float:
        words = fabric.words(2)
        fabric.barrier()
        if fabric.rank == 0:
            words.compare_and_swap(0, 1, 0, 0)
            fabric.pause(10.0)
            words.compare_and_swap(1, 0, 0, 0)
        else:
            fabric.pause(1.0)
            while by := words.compare_and_swap(0, 2, 0, 0):
                words.rest(0, 0, by, 1e-4)
        now = fabric.now()
        words.free()
        return now

    world = World(2, network(2))
    released, taken = world.run(work)
    assert released < taken < released + 1e-4 + 3 * ONE_WAY
    assert world.events < 50


# --- all-reduces


def allreduce(size: int, algorithm: str, nbytes: float = BYTES, **more: Any) -> float:
    net = network(size, allreduce=AllReduceSpec(algorithm), **more)  # type: ignore[arg-type]
    return max(sum(net.allreduce(int(nbytes), rank, 0.0)) for rank in range(size))


def test_all_reduces_cost_what_their_formulas_say() -> None:
    n, log = 8, 3
    assert allreduce(n, "ring") == pytest.approx(
        2 * (n - 1) * ONE_WAY + 2 * (n - 1) / n * TOOK
    )
    assert allreduce(n, "recursive-doubling") == pytest.approx(log * (ONE_WAY + TOOK))
    assert allreduce(n, "rabenseifner") == pytest.approx(
        2 * log * ONE_WAY + 2 * (n - 1) / n * TOOK
    )


def test_ranks_beyond_a_power_of_two_take_two_more_rounds() -> None:
    four, five = (allreduce(size, "recursive-doubling") for size in (4, 5))
    assert five == pytest.approx(four + 2 * (ONE_WAY + TOOK))
    assert allreduce(5, "ring") < five


@pytest.mark.parametrize("nbytes", [8, 10_000_000])
def test_auto_is_the_quickest_of_them(nbytes: float) -> None:
    each = [allreduce(8, name, nbytes) for name in allreduce_cost.ALGORITHMS]
    assert allreduce(8, "auto", nbytes) == pytest.approx(min(each))


def test_a_ring_leaves_a_node_once_and_doubling_with_all_its_ranks() -> None:
    size = 8
    ring = allreduce(size, "ring", ranks_per_node=4)
    assert ring < 2 * (size - 1) * (ONE_WAY + TOOK / size) * 1.01
    far = ONE_WAY + 4 * TOOK  # four messages leave through one port
    near = 1.1e-5 + BYTES * 1e-8
    doubling = allreduce(size, "recursive-doubling", ranks_per_node=4)
    assert doubling == pytest.approx(far + 2 * near)


def test_everybody_waits_for_a_slow_link_in_an_all_reduce() -> None:
    ring = AllReduceSpec("ring")
    slow = SlowLinksSpec(ranks=(2,), rate=RATE / 10)
    net = Interconnect(NetworkSpec(far=FAR, allreduce=ring), 4, slow=slow)
    took = [sum(net.allreduce(BYTES, rank, 0.0)) for rank in range(4)]
    assert max(took) > 2 * 3 / 4 * 9 * TOOK
    # whoever is ahead of it on the ring has all it needs a few rounds earlier
    assert min(took) > 3 / 4 * 9 * TOOK


def test_an_effective_rate_caps_the_all_reduce() -> None:
    net = network(4, allreduce=AllReduceSpec("ring", rate=RATE / 20))
    assert sum(net.allreduce(BYTES, 0, 0.0)) == pytest.approx(
        20 * TOOK + 2 * 3 * ONE_WAY
    )


def test_an_empty_all_reduce_takes_at_least_what_was_measured() -> None:
    rounds, seconds = 2 * 3 * ONE_WAY, 0.5
    for least in (0.0, rounds / 2, seconds):
        net = network(4, allreduce=AllReduceSpec("ring", seconds=least))
        occupied, latency = net.allreduce(BYTES, 0, 0.0)
        assert latency == pytest.approx(max(rounds, least))
        assert occupied == pytest.approx(2 * 3 / 4 * TOOK)  # links as before


def test_a_single_rank_needs_no_network() -> None:
    assert network(1).allreduce(BYTES, 0, 0.0) == (0.0, 0.0)


def test_the_average_takes_what_the_network_charges() -> None:
    def work(fabric: Fabric) -> tuple[float, Any]:
        x = np.full(BYTES // 8, float(fabric.rank))
        fabric.pause(0.1 * fabric.rank)
        fabric.average(x)
        return fabric.now(), x

    for ended, x in together(4, work, allreduce=AllReduceSpec("ring")):
        assert ended == pytest.approx(0.3 + 6 * ONE_WAY + 1.5 * TOOK)
        np.testing.assert_array_equal(x, 1.5)


# --- traffic of others


def test_a_crowded_port_has_only_a_share_of_its_rate() -> None:
    crowded = BackgroundSpec(share=0.75, probability=1.0)
    net = network(2, background=crowded)
    assert net.message(0, 1, BYTES, 0.0)[1] == pytest.approx(
        ONE_WAY + 4 * TOOK, rel=1e-3
    )
    quiet = sum(network(4).allreduce(10 * BYTES, 0, 0.0))
    assert sum(network(4, background=crowded).allreduce(10 * BYTES, 0, 0.0)) > 2 * quiet


def test_a_long_message_meets_crowds_in_proportion() -> None:
    half = BackgroundSpec(share=0.5, probability=0.5, period=0.01)
    _, there = network(2, background=half).message(0, 1, 1000 * BYTES, 0.0)
    # half of the time at half the rate: 0.75 of it on average
    assert there == pytest.approx(1000 * TOOK / 0.75, rel=0.1)


def test_a_crowded_port_carries_one_message_at_a_time_and_leaves_no_gap() -> None:
    half = BackgroundSpec(share=0.5, probability=0.5, period=0.01)
    random = np.random.default_rng(0)
    port, taken = Port(1e-6, 0, Crowd(half, 0)), []
    for _ in range(200):
        start, end = port.carry(0.0, random.uniform(0, 0.5), 1000)
        assert 0.999e-3 <= end - start <= 2.001e-3
        taken.append((start, end))
    taken.sort()
    for (_, end), (start, _) in pairwise(taken):
        assert start >= end - 1e-12
    # what is ready at once need not wait for what comes later
    assert port.carry(0.0, 0.0, 1)[0] < taken[-1][0]


def test_who_is_crowded_is_a_function_of_seed_node_and_time() -> None:
    half = BackgroundSpec(share=0.9, probability=0.5, period=0.01)
    spec = NetworkSpec(far=FAR, background=half)

    def times(seed: int) -> list[float]:
        net = Interconnect(spec, 4, seed=seed)
        return [net.message(0, 1, BYTES, 0.1 * k)[1] - 0.1 * k for k in range(20)]

    assert times(1) == times(1)
    assert times(1) != times(2)


# --- models that stand for larger ones


def test_a_model_can_stand_for_a_larger_one_on_the_wire() -> None:
    def work(fabric: Fabric) -> tuple[float, float]:
        fabric.ledger.open()
        x = np.zeros(100)
        fabric.average(x)
        fabric.ledger.close_step(loss=0.0, samples=1)
        return fabric.now(), fabric.ledger.drained()["drain_bytes_out"]

    spec = NetworkSpec(far=FAR, wire_bytes=100 * 800, allreduce=AllReduceSpec("ring"))
    world = World(2, Interconnect(spec, 2, model_bytes=800))
    rows = []

    def run(fabric: Fabric) -> float:
        found = work(fabric)
        rows.extend(fabric.ledger.rows)
        return found[0]

    for ended in world.run(run):
        assert ended == pytest.approx(2 * ONE_WAY + 100 * 800 * 1e-6)
    assert {row[COLUMNS.index("bytes_out")] for row in rows} == {100 * 800}


# --- the algorithms on it

NETWORKS: dict[str, dict[str, Any]] = {
    "hardware": {},
    "nodes": {"ranks_per_node": 2},
    "thread": {"progress": "thread"},
    "none": {"progress": "none"},
    "large": {"wire_bytes": 100_000},
    "crowded": {"background": BackgroundSpec(share=0.5, probability=0.3)},
}


def walks(size: int, kind: str, seed: int = 0, **more: Any) -> list[Walk]:
    def work(fabric: Fabric) -> Walk:
        return walk(fabric, kind, start=a_start(kind, fabric.rank), steps=6)

    spec = NetworkSpec(far=FAR, near=NEAR, **more)
    world = World(size, Interconnect(spec, size, model_bytes=56), seed)
    return world.run(work)


def test_the_mean_of_equal_models_is_that_model() -> None:
    """Where ranks are a power of two: an all-reduce adds up pairs, then sums of pairs.

    Three times one of these is mostly no number of single precision, so adding one
    after the other would round.
    """
    same = np.random.default_rng(0).random(1000, np.float32)

    def work(fabric: Fabric) -> Any:
        x = same.copy()
        fabric.average(x)
        return x

    for x in together(16, work):
        np.testing.assert_array_equal(x, same)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "kind", [n for n, a in ALGORITHMS.items() if "synchronous" in a.traits]
)
def test_a_network_changes_no_model_of_a_synchronous_algorithm(
    kind: str, name: str
) -> None:
    def work(fabric: Fabric) -> Walk:
        return walk(fabric, kind, start=a_start(kind, fabric.rank), steps=6)

    for one, other in zip(
        walks(4, kind, **NETWORKS[name]), World(4, Network()).run(work), strict=True
    ):
        np.testing.assert_allclose(one.final, other.final, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "kind",
    [
        n
        for n, a in ALGORITHMS.items()
        if a.traits >= {"asynchronous", "mean-preserving"}
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_no_network_loses_what_an_asynchronous_algorithm_conserves(
    kind: str, name: str, seed: int
) -> None:
    found = walks(4, kind, seed, **NETWORKS[name])
    start = np.mean([a_start(kind, rank) for rank in range(4)], axis=0)
    moved = -0.1 * np.mean([w.spent for w in workers(found)], axis=0)
    np.testing.assert_allclose(settle(found), start + moved, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_every_algorithm_ends_on_every_network(kind: str) -> None:
    for more in NETWORKS.values():
        for size in (2, 3):
            for w in walks(size, kind, **more):
                assert np.isfinite(w.final).all()


@pytest.mark.parametrize("kind", ["adpsgd", "adpsgd-waitfree", "dasgd", "asgd"])
def test_the_same_seed_gives_the_same_run_and_another_one_another(kind: str) -> None:
    one, same, other = (
        [(w.final.tolist(), w.rows) for w in walks(8, kind, seed)] for seed in (1, 1, 2)
    )
    assert repr(one) == repr(same)
    assert repr(one) != repr(other)
