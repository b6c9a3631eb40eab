"""The virtual fabric is strict: what MPI forbids and forgives, it refuses by name."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dsgd_bench.errors import FabricError
from dsgd_bench.exchanges.replicas import LOCK, Replicas
from dsgd_bench.fabric.virtual.fabric import Network, VirtualFabric, World
from dsgd_bench.fabric.virtual.scheduler import SPIN_LIMIT

Work = Callable[[VirtualFabric], Any]

WHOLE = slice(0, 4)


def refused(work: Work, words: str, size: int = 2) -> None:
    with pytest.raises(FabricError, match=words):
        World(size).run(work)


# --- collectives


def test_unequal_collectives_are_named_with_their_ranks() -> None:
    def work(fabric: VirtualFabric) -> None:
        if fabric.rank == 0:
            fabric.barrier()
        else:
            fabric.average(np.zeros(3))

    # the schedule lets rank 1 come first
    refused(
        work, "collective 0 is average of 3 x float64 on rank 1 but barrier on rank 0"
    )


def test_averages_of_unequal_length_are_refused() -> None:
    refused(lambda f: f.average(np.zeros(3 + f.rank)), "average of 4 x float64")


def test_a_rank_that_leaves_while_others_wait_is_named() -> None:
    def work(fabric: VirtualFabric) -> None:
        if fabric.rank != 1:
            fabric.barrier()

    refused(
        work, "deadlock: rank 0 waits in barrier, rank 1 has ended, rank 2 waits", 3
    )


def test_an_array_that_is_being_averaged_must_not_be_touched() -> None:
    def work(fabric: VirtualFabric) -> None:
        x = np.ones(3)
        with fabric.averaging(x):
            x[1] = 2.0

    refused(work, "touched an array while it was being averaged")


def test_an_array_that_is_being_averaged_cannot_be_read_by_mistake() -> None:
    def work(fabric: VirtualFabric) -> bool:
        x = np.full(3, float(fabric.rank))
        with fabric.averaging(x):
            poisoned = bool(np.isnan(x).all())
        return poisoned and bool((x == 1.5).all())

    assert World(4).run(work) == [True] * 4


def test_a_window_that_only_some_ranks_free_is_a_deadlock() -> None:
    def work(fabric: VirtualFabric) -> None:
        window = fabric.vectors(4, np.zeros(0))
        if fabric.rank == 0:
            window.free()

    refused(work, "deadlock: rank 0 waits in free a window, rank 1 has ended")


# --- windows


def with_window(use: Callable[[VirtualFabric, Any], None]) -> Work:
    """Open a window on every rank, let rank 1 `use` it, and free it."""

    def work(fabric: VirtualFabric) -> None:
        window = fabric.vectors(4, np.zeros(0))
        if fabric.rank == 1:
            use(fabric, window)
        window.free()

    return work


def touch_sent(fabric: VirtualFabric, window: Any) -> None:
    values = np.ones(4)
    window.put(values, 0, WHOLE)
    values[2] = 5.0
    window.flush(0)


def touch_added(fabric: VirtualFabric, window: Any) -> None:
    values = np.ones(4)
    window.accumulate(values, 0, WHOLE)
    values *= 1.0 + 1e-16  # changes nothing
    values[0] += 1e-15  # changes one bit
    window.flush(0)


def touch_received(fabric: VirtualFabric, window: Any) -> None:
    out = np.zeros(4)
    window.get(0, WHOLE, out=out)
    out[0] = 1.0
    window.flush(0)


def never_flush(fabric: VirtualFabric, window: Any) -> None:
    window.put(np.ones(4), 0, WHOLE)


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (touch_sent, "rank 1 touched the buffer of a put to rank 0"),
        (touch_added, "rank 1 touched the buffer of a accumulate to rank 0"),
        (touch_received, "rank 1 touched the buffer of a get to rank 0"),
        (never_flush, r"rank 1 closes a window with transfers to ranks \[0\]"),
    ],
)
def test_buffers_belong_to_the_fabric_until_they_are_flushed(
    use: Callable[[VirtualFabric, Any], None], words: str
) -> None:
    refused(with_window(use), words)


def test_a_buffer_on_its_way_in_cannot_be_read_by_mistake() -> None:
    seen = []

    def use(fabric: VirtualFabric, window: Any) -> None:
        out = np.zeros(4)
        window.get(0, WHOLE, out=out)
        seen.append(out.copy())
        window.flush(0)
        seen.append(out.copy())

    World(2).run(with_window(use))
    assert np.isnan(seen[0]).all()
    np.testing.assert_array_equal(seen[1], np.zeros(4))


@pytest.mark.parametrize(
    "use",
    [
        lambda window: window.flush(0),
        lambda window: window.get(0, WHOLE, np.zeros(4)),
        lambda window: window.sync(),
        lambda window: window.free(),
    ],
)
def test_a_window_is_refused_after_it_was_freed(use: Callable[[Any], None]) -> None:
    def work(fabric: VirtualFabric) -> None:
        window = fabric.vectors(4, np.zeros(0))
        window.free()
        assert window.memory.size == 0
        use(window)

    refused(work, "uses a window .* after closing it")


@pytest.mark.parametrize(
    "use",
    [
        lambda words: words.read(0, 0),
        lambda words: words.add(1, 0, 0),
        lambda words: words.compare_and_swap(0, 1, 0, 0),
    ],
)
def test_words_are_refused_after_they_were_freed(use: Callable[[Any], None]) -> None:
    def work(fabric: VirtualFabric) -> None:
        words = fabric.words(1)
        words.free()
        use(words)

    refused(work, "uses a window .* after closing it")


def test_transfers_in_pieces_are_torn_where_nothing_protects_them() -> None:
    def work(fabric: VirtualFabric) -> bool:
        window = fabric.vectors(4, np.zeros(0))
        torn = False
        if fabric.rank == 1:
            window.put(np.ones(4), 0, WHOLE)
            window.flush(0)
        else:
            for _ in range(100):
                fabric.pause(1e-7)
                torn = torn or 0 < window.memory.sum() < 4
        window.free()
        return torn

    assert World(2, Network(pieces=2)).run(work)[0]
    assert not World(2, Network(pieces=1)).run(work)[0]


# --- waiting forever


def test_who_is_alone_may_compute_for_long() -> None:
    def work(fabric: VirtualFabric) -> float:
        for _ in range(2 * SPIN_LIMIT):
            fabric.pause(1e-3)
        return fabric.now()

    [ended] = World(1).run(work)
    assert ended == pytest.approx(2 * SPIN_LIMIT * 1e-3)


def test_a_lock_that_is_never_released_is_a_spin_forever() -> None:
    def work(fabric: VirtualFabric) -> None:
        x = np.zeros(2)
        with Replicas(fabric, x, lambda x, g: None) as replicas:
            if fabric.rank == 0:
                replicas._words.compare_and_swap(0, 1, 0, LOCK)
            fabric.barrier()
            if fabric.rank == 1:
                replicas.average_with(0)

    refused(work, "spin forever: rank 0 waits in barrier, rank 1 takes locks")


def test_waiting_long_for_a_slow_network_is_no_spin() -> None:
    """Rank 0 tries its own lock ten thousand times a second, for many seconds."""

    def work(fabric: VirtualFabric) -> float:
        x = np.full(2, float(fabric.rank))
        with Replicas(fabric, x, lambda x, g: None) as replicas:
            if fabric.rank == 1:
                replicas.average_with(0)
            else:
                fabric.pause(2.0)
                replicas.read(x)
        return float(x[0])

    assert World(2, Network(latency=20.0)).run(work) == [0.5, 0.5]


def test_the_error_of_one_rank_ends_all() -> None:
    def work(fabric: VirtualFabric) -> None:
        if fabric.rank == 1:
            raise ZeroDivisionError
        fabric.barrier()

    with pytest.raises(ZeroDivisionError):
        World(3).run(work)


def test_the_error_of_work_beside_ends_all() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    def work(fabric: VirtualFabric) -> None:
        beside = fabric.helper()
        if fabric.rank == 0:
            beside.start(fail)
            beside.join()
        fabric.barrier()

    with pytest.raises(ZeroDivisionError):
        World(2).run(work)


# --- schedules


def order_of_arrival(seed: int) -> list[int]:
    arrived: list[int] = []

    def work(fabric: VirtualFabric) -> None:
        window = fabric.words(1)
        for _ in range(3):
            window.add(1, 0, 0)
            arrived.append(fabric.rank)
        window.free()

    World(4, Network(jitter=1.0), seed).run(work)
    return arrived


def test_one_seed_is_one_schedule_and_others_differ() -> None:
    assert order_of_arrival(1) == order_of_arrival(1)
    assert len({tuple(order_of_arrival(seed)) for seed in range(10)}) > 5


# --- prices


NETWORK: dict[str, Any] = {"latency": 1e-3, "bandwidth": 1e6}


@pytest.mark.parametrize("pieces", [1, 5])
@pytest.mark.parametrize("kind", ["get", "put", "fetch", "accumulate"])
def test_a_transfer_takes_latency_and_size_over_bandwidth(
    kind: str, pieces: int
) -> None:
    def work(fabric: VirtualFabric) -> tuple[float, float]:
        window = fabric.vectors(1000, np.zeros(0))
        values, part = np.ones(1000), slice(0, 1000)
        times = []
        for target in (1 - fabric.rank, fabric.rank):
            started = fabric.now()
            if kind in ("get", "fetch"):
                getattr(window, kind)(target, part, out=values)
            else:
                getattr(window, kind)(values, target, part)
            assert fabric.now() == started  # it only starts
            window.flush(target)
            times.append(fabric.now() - started)
        window.free()
        return times[0], times[1]

    for other, own in World(2, Network(**NETWORK, pieces=pieces)).run(work):
        assert other == pytest.approx(1e-3 + 8e-3, rel=1e-12)
        assert own == pytest.approx(8e-3, rel=1e-12)


def test_a_word_takes_a_latency() -> None:
    def work(fabric: VirtualFabric) -> list[float]:
        window = fabric.words(1)
        times = []
        for use in (
            lambda: window.read(1 - fabric.rank, 0),
            lambda: window.add(1, 1 - fabric.rank, 0),
            lambda: window.compare_and_swap(0, 1, 1 - fabric.rank, 0),
        ):
            started = fabric.now()
            use()
            times.append(fabric.now() - started)
        window.free()
        return times

    for times in World(2, Network(**NETWORK)).run(work):
        assert times == pytest.approx([1e-3 + 8e-6] * 3, rel=1e-12)


def test_an_average_ends_one_transfer_after_the_last_rank_came() -> None:
    def work(fabric: VirtualFabric) -> float:
        fabric.pause(float(fabric.rank))
        fabric.average(np.zeros(1000))
        return fabric.now()

    for ended in World(3, Network(**NETWORK)).run(work):
        assert ended == pytest.approx(2.0 + 9e-3, rel=1e-12)
    assert World(1, Network(**NETWORK)).run(work) == [0.0]


def test_jitter_stretches_delays_and_never_shortens_them() -> None:
    def work(fabric: VirtualFabric) -> list[float]:
        window = fabric.words(1)
        times = [fabric.now()]
        for _ in range(200):
            window.read(1 - fabric.rank, 0)
            times.append(fabric.now())
        window.free()
        return list(np.diff(times))

    for times in World(2, Network(latency=1e-3, bandwidth=1e12, jitter=2.0)).run(work):
        assert min(times) >= 1e-3 - 1e-12
        assert max(times) <= 3e-3 + 1e-9
        assert max(times) > 2.5e-3
