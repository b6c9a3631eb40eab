"""DASGD: every gradient reaches every worker once, and nobody waits for it.

The tests of the paper's rule (arXiv:2309.03754) and of its set-staleness.
"""

from itertools import chain
from typing import Any

import numpy as np
import pytest
from conftest import Ranks
from driving import DIMENSION, Walk, bowl, start_of, walk
from test_replicas import HOSTILE, SCHEDULES, Hasty, on_schedules

from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.sum_replicas import SumReplicas
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual.fabric import Network, VirtualFabric, World
from dsgd_bench.fabric.virtual.strict_window import StrictWindow
from dsgd_bench.spec.trial import BudgetSpec, SlowdownSpec
from dsgd_bench.trace.staleness import staleness

STEPS = 7
"""Not a multiple of 3, so that the last sum is of fewer gradients."""

COMPUTE = 0.003
"""Seconds of a gradient in virtual time, as `driving` has it."""

every_k = pytest.mark.parametrize("every", [1, 3, 0], ids=["K=1", "K=3", "K=n"])

SLOW = SlowdownSpec("constant", ranks=(0,), factor=10.0)


def drained(
    world: Ranks, size: int, every: int, **more: Any
) -> tuple[list[Walk], Array]:
    """Walk on every rank; return also what all models should be at the end."""
    walks = world.together(
        size,
        lambda fabric: walk(
            fabric, "dasgd", steps=STEPS, settings={"every": every}, **more
        ),
    )
    total = sum(w.spent for w in walks)
    return walks, start_of(0) - 0.1 / size * total


# --- after the drain


@every_k
def test_after_the_drain_every_model_is_the_start_minus_eta_times_all_gradients(
    world: Ranks, size: int, every: int
) -> None:
    walks, expected = drained(world, size, every, slowdown=SLOW)
    for w in walks:
        # rounding: every sum of at most 8 * 7 gradients rounds models of size one
        np.testing.assert_allclose(w.final, expected, rtol=0, atol=1e-14)
        assert len(w.gradients) == STEPS


@every_k
def test_gradients_applied_at_every_worker_are_the_gradients_created(
    world: Ranks, size: int, every: int
) -> None:
    """The vector clocks of all workers are equal, and say what each has created."""

    def work(fabric: Fabric) -> Array:
        x = np.zeros(DIMENSION)
        with SumReplicas(fabric, x) as replicas:
            for step in range(STEPS + fabric.rank):
                replicas.add(np.ones(DIMENSION))
                if replicas.unsent >= (every or size):
                    replicas.spread()
                replicas.read(out=x)
                assert replicas.applied[fabric.rank] == step + 1
        return np.array([*replicas.applied, *x])

    created = [STEPS + rank for rank in range(size)]
    for found in world.together(size, work):
        np.testing.assert_array_equal(found[:size], created)
        np.testing.assert_array_equal(found[size:], sum(created))


def test_one_worker_counts_its_own_gradients_as_delivered(world: Ranks) -> None:
    [w] = world.together(1, lambda fabric: walk(fabric, "dasgd", steps=STEPS))
    np.testing.assert_array_equal(w.column("included"), range(STEPS))
    assert not w.exchanges
    assert w.column("bytes_out").sum() == w.column("bytes_in").sum() == 0


@pytest.mark.parametrize("every", [1, 2])
def test_sums_are_conserved_under_a_thousand_hostile_schedules(every: int) -> None:
    def work(fabric: VirtualFabric) -> tuple[Array, Array]:
        x = start_of(0)
        hasty = Hasty(fabric, x.size, bowl)
        hasty.walk("dasgd", x, steps=3, every=every)
        return x, hasty.spent

    for seed, ranks in on_schedules(work, SCHEDULES // 2):
        expected = start_of(0) - 0.1 * sum(spent for _, spent in ranks)
        # rounding of at most 15 sums on models of size one
        lost = max(np.abs(x - expected).max() for x, _ in ranks)
        assert lost < 1e-14, f"schedule {seed}"


def test_one_lost_message_separates_the_models_forever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing repairs it; so the tests above would notice."""
    accumulate, lost = StrictWindow.accumulate, []

    def lose_one(self: Any, values: Array, rank: int, part: slice) -> None:
        if values.size == DIMENSION and rank == 2 and self._fabric.rank == 0:
            lost.append(values)
            if len(lost) == 3:
                return
        accumulate(self, values, rank, part)

    monkeypatch.setattr(StrictWindow, "accumulate", lose_one)
    walks = World(3).run(lambda fabric: walk(fabric, "dasgd", steps=STEPS))
    assert np.abs(walks[2].final - walks[0].final).max() > 1e-3
    np.testing.assert_allclose(walks[1].final, walks[0].final, rtol=0, atol=1e-14)


# --- before computing


def test_what_has_arrived_is_in_the_model_of_the_next_gradient() -> None:
    """Rank 1 computes ten times as long, so all but its last wait for nothing."""

    def work(fabric: Fabric) -> Walk:
        slow = SlowdownSpec("constant", ranks=(1,), factor=10.0)
        return walk(fabric, "dasgd", slope=bowl, steps=STEPS, slowdown=slow)

    fast, slow = World(2).run(work)
    # rank 0 is done before the first gradient of rank 1 is
    np.testing.assert_array_equal(fast.column("included"), range(STEPS))
    expected = [0.0, *(STEPS + np.arange(1.0, STEPS))]
    np.testing.assert_array_equal(slow.column("included"), expected)
    whole = start_of(0) - 0.05 * (fast.spent + slow.gradients[0])
    np.testing.assert_allclose(slow.models[1], whole, rtol=0, atol=1e-14)


def test_a_model_holds_at_least_the_gradients_that_its_counters_say() -> None:
    """Gradient k of rank r moves element r by one, so a model tells what it holds."""

    def work(fabric: VirtualFabric) -> list[bool]:
        x, one, held = np.zeros(fabric.size), np.zeros(fabric.size), []
        one[fabric.rank] = 1.0
        with SumReplicas(fabric, x) as replicas:
            for _ in range(8):
                fabric.pause(1e-6 * (1 + fabric.rank))
                replicas.add(one)
                replicas.spread()
                replicas.read(out=x)
                held.append(bool((x >= replicas.applied).all()))
        return held

    for seed in range(100):
        for held in World(4, HOSTILE, seed).run(work):
            assert all(held), f"schedule {seed}"


# --- set-staleness: gradients that exist but that the computing worker lacks


@pytest.mark.parametrize("stagger", [0.0, 0.1])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8])
def test_in_lock_step_a_gradient_lacks_none_to_n_minus_one_others(
    size: int, stagger: float
) -> None:
    """K = 1 and no latency. Gradients are ordered by the time they are applied.

    All compute at once (stagger 0: S_t is the place in the round), or one after the
    other (then it is n - 1 from the second round on, as with a parameter server).
    """
    rounds = 6

    def work(fabric: VirtualFabric) -> list[tuple[float, int, float]]:
        x, applied = np.zeros(1), []
        with SumReplicas(fabric, x) as replicas:
            for step in range(rounds):
                if not stagger:
                    fabric.pause(step + 0.5 - fabric.now())
                    replicas.read(out=x)
                fabric.pause(step + 1.0 + stagger * fabric.rank - fabric.now())
                replicas.add(np.ones(1))
                applied.append((fabric.now(), fabric.rank, fabric.ledger.included))
                replicas.spread()
                if stagger:
                    replicas.read(out=x)
        return applied

    network = Network(latency=1e-9)
    order = sorted(chain.from_iterable(World(size, network).run(work)))
    stale = [t - included for t, (_, _, included) in enumerate(order)]
    first, later = stale[:size], stale[size:]
    assert first == list(range(size))
    expected = [size - 1] * size if stagger else list(range(size))
    assert later == expected * (rounds - 1)


def test_only_the_gradients_of_a_slow_worker_lack_many() -> None:
    """S_max is about s (n - 1), all of it its own; S_avg stays at n - 1.

    While it computes one, each of the three others creates ten.
    """
    walks = World(4).run(
        lambda fabric: walk(
            fabric, "dasgd", budget=BudgetSpec(seconds=1.0), slowdown=SLOW
        )
    )
    longest = max(len(w.rows) for w in walks)
    columns = {
        name: np.array(
            [[*w.column(name), *[np.nan] * (longest - len(w.rows))] for w in walks]
        )
        for name in ("start", "snapshot", "compute", "injected", "samples", "included")
    }
    slow, *others = staleness("sets", columns)
    found = slow[np.isfinite(slow)][:-1]  # the others end before its last one does
    np.testing.assert_allclose(found, 10 * 3, rtol=0, atol=3)
    assert np.nanmax(others) <= 3  # another's of the same moment, and the slow one's
    assert np.nanmean([slow, *others]) == pytest.approx(3, rel=0.05)


# --- nobody waits


@every_k
def test_a_slow_worker_does_not_slow_the_others(every: int) -> None:
    slow, *others = World(4).run(
        lambda fabric: walk(
            fabric, "dasgd", steps=20, settings={"every": every}, slowdown=SLOW
        )
    )
    for w in others:
        # a microsecond or so for adding to and reading the own replica
        np.testing.assert_allclose(w.column("duration"), COMPUTE, rtol=1e-3)
    np.testing.assert_allclose(slow.column("duration"), 10 * COMPUTE, rtol=1e-3)


def test_on_a_slow_network_sums_grow_and_computing_goes_on() -> None:
    """A message takes 100 gradients, so few go out, and none is lost."""
    size, steps = 3, 1000
    walks = World(size, Network(latency=100 * COMPUTE)).run(
        lambda fabric: walk(fabric, "dasgd", steps=steps)
    )
    expected = start_of(0) - 0.1 / size * sum(w.spent for w in walks)
    for w in walks:
        assert w.column("waiting").sum() == w.column("transfer").sum() == 0.0
        np.testing.assert_allclose(w.column("duration"), COMPUTE, rtol=1e-3)
        assert w.column("overlapped").sum() > 0.0
        # the two others take a latency each for the data and for the count: 400
        # gradients; so two or three sums in all, and the rest at the end
        assert set(w.exchanges.values()) <= {3, 4}
        # rounding of a thousand sums
        np.testing.assert_allclose(w.final, expected, rtol=0, atol=1e-12)


def test_delivered_are_the_gradients_that_have_reached_everybody() -> None:
    """A message to the other rank takes 3 s, its count as long; a gradient 2 s."""

    def work(fabric: VirtualFabric) -> list[float]:
        x, delivered = np.zeros(1), []
        with SumReplicas(fabric, x) as replicas:
            for _ in range(7):
                fabric.pause(2.0)
                replicas.add(np.ones(1))
                replicas.spread()
                replicas.read(out=x)
                delivered.append(fabric.ledger.delivered)
        return delivered

    # sent at 2 s with 1 gradient, there at 8 s and seen so from 10 s on (or at once, if
    # the schedule has it so); then sent with the three created since
    for delivered in World(2, Network(latency=3.0)).run(work):
        assert delivered[:3] == [0.0] * 3
        assert delivered[3:] in ([0.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 4.0])


# --- traffic


@every_k
def test_a_gradient_costs_n_minus_one_models_divided_by_k(
    world: Ranks, size: int, every: int
) -> None:
    """Sent in time where the network is fast; at most so many anywhere."""
    walks, _ = drained(world, size, every)
    nbytes = walks[0].final.nbytes
    messages = -(-STEPS // (every or size))  # the last one is of the rest
    for rank, w in enumerate(walks):
        assert rank not in w.exchanges
        others = set(range(size)) - {rank}
        assert w.exchanges.keys() == others
        assert max(w.exchanges.values(), default=0) <= messages
        if world.kind == "virtual":
            assert all(count == messages for count in w.exchanges.values())
        came = sum(walks[other].exchanges[rank] for other in others)
        went = sum(w.exchanges.values())
        # what moves after the last step has been closed is in no step
        for direction, all_of_them in (("out", went), ("in", came)):
            booked = w.column(f"messages_{direction}").sum()
            late = (2 if direction == "out" else messages) * len(others)
            assert all_of_them - late <= booked <= all_of_them
            assert w.column(f"bytes_{direction}").sum() == booked * nbytes
