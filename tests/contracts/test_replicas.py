"""Shared models: no mass is lost, no read is torn, nobody waits forever.

The hostile schedules are seeds of a virtual network that stretches every delay up to
fourfold and delivers every transfer in pieces, on models of several blocks.
"""

import inspect
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from conftest import Ranks
from driving import Slope, Walk, bowl, start_of, walk

from dsgd_bench import arrays, graphs
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.accelerated import AcceleratedReplicas
from dsgd_bench.exchanges.lock_free import DifferenceReplicas
from dsgd_bench.exchanges.replicas import Replicas
from dsgd_bench.exchanges.resumable import State
from dsgd_bench.exchanges.wait_free import HandoverReplicas
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual.fabric import Network, VirtualFabric, World
from dsgd_bench.graphs import EXAMPLES
from dsgd_bench.rng import Draws
from dsgd_bench.spec.trial import BudgetSpec, SlowdownSpec

HOSTILE = Network(latency=2e-6, bandwidth=2e7, jitter=3.0, pieces=2)
"""An exchange takes about as long as a gradient of `Hasty`, or as a nap at a lock."""

SCHEDULES = 1000
"""Hostile schedules for every class of replicas."""

SIZES = (2, 3, 2, 3, 4, 2, 3, 2, 3, 5)


def above(*classes: type[Any]) -> list[str]:
    """Return the algorithms whose file names one of these classes of replicas."""
    return [
        name
        for name, algorithm in ALGORITHMS.items()
        if any(
            inspect.isclass(named) and named in classes
            for named in vars(inspect.getmodule(algorithm.steps)).values()
        )
    ]


LOCKED = above(Replicas, HandoverReplicas, AcceleratedReplicas)
AVERAGING = [*LOCKED, *above(DifferenceReplicas)]

KINDS = [Replicas, DifferenceReplicas]

UNDIRECTED = ("ring", "torus", "complete", "star", "bipartite-exponential")

BRISK = {"adpsgd-waitfree": {"interval": 1e-5}}
"""Settings with which an algorithm averages as often as `Hasty` computes."""


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Models of this many elements have two blocks, arriving in two pieces each."""
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 4 * 8)
    return 6


class Hasty:
    """The least that an algorithm needs to run, so that many schedules are quick."""

    serves = False
    epochs = 0.0
    lr = 0.1

    def __init__(self, fabric: Fabric, dimension: int, slope: Slope) -> None:
        self.fabric, self.rank, self.size = fabric, fabric.rank, fabric.size
        self.workers = fabric.size
        self.optimizer, self.updating = self, fabric.ledger.updating
        self.state = State()
        self.spent = np.zeros(dimension)
        self._slope = slope
        self._random = random.Random(fabric.rank)  # NumPy's takes longer than the walk
        self._steps = 0

    def gradient(self, x: Array, out: Array) -> float:
        self.fabric.pause(4e-5 * self._random.random())
        out[:] = self._slope(self.rank, self._steps, x)
        self._steps += 1
        self.spent += out
        return 0.0

    def update(self, x: Array, g: Array) -> None:
        self.descend(x, g)

    def descend(self, x: Array, g: Array, scale: float = 1.0) -> None:
        x -= scale * self.lr * g

    def neighbors(self, graph: str) -> "Hasty":
        return self

    def draw(self) -> int:
        return (self.rank + self._random.randrange(1, self.size)) % self.size

    def walk(self, kind: str, x: Array, steps: int, **settings: Any) -> list[Array]:
        """Return the models yielded; then the final model is in `x`."""
        settings = {**BRISK.get(kind, {}), **settings}
        walking = ALGORITHMS[kind].steps(x, self, **settings)
        models = [next(walking).copy() for _ in range(steps + 1)]
        walking.close()
        return models


def nothing(x: Array, g: Array) -> None:
    pass


def on_schedules(work: Callable[[VirtualFabric], Any], schedules: int) -> Any:
    """Yield the results of all ranks, one schedule after the other."""
    for seed in range(schedules):
        yield seed, World(SIZES[seed % len(SIZES)], HOSTILE, seed).run(work)


# --- mass


@pytest.mark.parametrize("kind", AVERAGING)
def test_no_mass_is_lost_under_a_thousand_hostile_schedules(
    kind: str, small_blocks: int
) -> None:
    shared = kind in ("adpsgd", "adpsgd-overlapped")  # one class below both
    schedules = SCHEDULES // 2 if shared else SCHEDULES

    def work(fabric: VirtualFabric) -> tuple[Array, Array]:
        x = start_of(fabric.rank, small_blocks)
        hasty = Hasty(fabric, x.size, bowl)
        hasty.walk(kind, x, steps=2)
        return x, hasty.spent

    for seed, ranks in on_schedules(work, schedules):
        starts = sum(start_of(rank, small_blocks) for rank in range(len(ranks)))
        lost = starts - sum(x + 0.1 * spent for x, spent in ranks)
        # rounding of a dozen averagings and gradients on models of size one
        assert np.abs(lost).max() < 1e-13, f"schedule {seed}"


# --- torn reads


@pytest.mark.parametrize("kind", LOCKED)
def test_no_read_is_torn_under_hostile_schedules(kind: str, small_blocks: int) -> None:
    """All models and gradients are constant vectors, so every whole read is one."""

    def work(fabric: VirtualFabric) -> list[Array]:
        x = np.full(small_blocks, float(fabric.rank))
        hasty = Hasty(fabric, x.size, lambda rank, step, x: 1.0 + rank + step)
        return [*hasty.walk(kind, x, steps=3), x]

    for seed, ranks in on_schedules(work, SCHEDULES // 10):
        for walked in ranks:
            models = np.array(walked)
            assert (models == models[:, :1]).all(), f"schedule {seed}"


def test_mixed_reads_of_differences_happen_and_are_all_counted(
    small_blocks: int,
) -> None:
    """Rank 0 reads while rank 1 averages with it once; only a counted read is torn."""

    def work(fabric: VirtualFabric, delay: float) -> list[tuple[bool, bool]]:
        x = np.full(small_blocks, float(fabric.rank))
        reads = []
        with DifferenceReplicas(fabric, x, nothing) as replicas:
            if fabric.rank == 1:
                replicas.average_with(0)
            fabric.pause(delay)
            while fabric.rank == 0 and fabric.now() < 2e-4:
                before = fabric.ledger.counts["mixed_reads"]
                replicas.read(x)
                counted = fabric.ledger.counts["mixed_reads"] > before
                reads.append((bool((x != x[0]).any()), counted))
        return reads

    torn = 0
    for seed in range(50):
        world = World(2, HOSTILE, seed)
        reads = world.run(partial(work, delay=seed * 1e-6))[0]
        assert all(counted for is_torn, counted in reads if is_torn)
        assert not all(counted for _, counted in reads)
        torn += sum(is_torn for is_torn, _ in reads)
    assert torn > 0  # else these schedules would prove nothing


# --- both ends


@pytest.mark.parametrize("kind", KINDS)
def test_both_ends_are_equal_right_after_an_exchange(
    world: Ranks, kind: type[Replicas]
) -> None:
    def work(fabric: Fabric) -> Array:
        x = start_of(fabric.rank, 40_000)  # two blocks
        with kind(fabric, x, nothing) as replicas:
            if fabric.rank == 1:
                replicas.average_with(0)
        return x

    left, right = world.together(2, work)
    # half differences round each end on its own
    rounding = 0.0 if kind is Replicas else 2e-16
    np.testing.assert_allclose(left, right, rtol=0, atol=rounding)
    mean = (start_of(0, 40_000) + start_of(1, 40_000)) / 2
    # one rounding of a number below one, two for half differences
    np.testing.assert_allclose(left, mean, rtol=0, atol=4e-16)


def test_two_differences_that_overlap_entirely_swap_the_models() -> None:
    """Why `adpsgd-delta` does not promise to agree; its docstring says so."""

    def work(fabric: Fabric) -> Array:
        x = np.full(3, float(fabric.rank))
        with DifferenceReplicas(fabric, x, nothing) as replicas:
            replicas.average_with(1 - fabric.rank)
        return x

    left, right = World(2).run(work)
    np.testing.assert_array_equal(left, np.ones(3))
    np.testing.assert_array_equal(right, np.zeros(3))


def test_differences_that_overlap_entirely_on_a_star_drive_it_apart() -> None:
    """The hub gets the sum of what it would get from each of its leaves."""

    def work(fabric: Fabric) -> Array:
        x = np.full(3, 0.0 if fabric.rank else 4.0)
        with DifferenceReplicas(fabric, x, nothing) as replicas:
            replicas.average_with(0 if fabric.rank else 1)
        return x

    hub, first, *others = World(4).run(work)
    np.testing.assert_array_equal(hub, np.full(3, 4.0 - 4 * 2.0))
    np.testing.assert_array_equal(first, np.full(3, 2 * 2.0))
    np.testing.assert_array_equal(others, np.full((2, 3), 2.0))


# --- deadlock

ON_TWO_AND_FOUR = [
    name
    for name in EXAMPLES
    if name != "random-regular:3" and not graphs.make(name, 4).directed
]
"""Graphs for two ranks and for four."""


@pytest.mark.parametrize("graph", ON_TWO_AND_FOUR)
@pytest.mark.parametrize("kind", KINDS)
def test_many_exchanges_end_on_every_graph(
    world: Ranks, kind: type[Replicas], graph: str
) -> None:
    """Nobody waits in a circle: not in cycles of odd length, not on complete graphs."""
    size = 4 if world.kind == "virtual" else 2 * (world.most // 2)
    exchanges = 2000 // size
    near = graphs.make(graph, size).neighbors

    def work(fabric: Fabric) -> tuple[int, Array, float]:
        x = start_of(fabric.rank)
        replica, largest = np.empty_like(x), 1.0
        draws = Draws(5, "neighbor", fabric.rank)
        choice = near[fabric.rank]
        with kind(fabric, x, nothing) as replicas:
            for k in range(exchanges):
                replicas.average_with(choice[int(draws[k] * len(choice))])
                replicas.read(replica)
                largest = max(largest, float(np.abs(replica).max()))
        return sum(fabric.ledger.exchanges.values()), x, largest

    results = world.together(size, work, jitter=1.0)
    assert [done for done, _, _ in results] == [exchanges] * size
    starts = sum(start_of(rank) for rank in range(size))
    # Rounding of some thousand averagings of numbers as large as they became: half
    # differences that overlap can double the distance between a star's hub and a leaf
    # (`..._drive_it_apart` above).
    rounding = 1e-11 * max(largest for _, _, largest in results)
    ends = sum(x for _, x, _ in results)
    np.testing.assert_allclose(ends, starts, rtol=0, atol=rounding)


@pytest.mark.slow
@pytest.mark.parametrize("graph", ["ring", "bipartite-exponential"])
def test_a_hundred_thousand_exchanges_at_random_moments_end(graph: str) -> None:
    size = 8
    near = graphs.make(graph, size).neighbors

    def work(fabric: Fabric) -> Array:
        x = start_of(fabric.rank, 3)
        choice = near[fabric.rank]
        draws, delays = (Draws(5, name, fabric.rank) for name in ("neighbor", "pause"))
        with Replicas(fabric, x, nothing) as replicas:
            for k in range(100_000 // size):
                fabric.pause(2e-5 * delays[k])
                replicas.average_with(choice[int(draws[k] * len(choice))])
        return x

    ends = World(size, Network(jitter=1.0)).run(work)
    starts = sum(start_of(rank, 3) for rank in range(size))
    # rounding of a hundred thousand averagings of numbers below one
    np.testing.assert_allclose(sum(ends), starts, rtol=0, atol=1e-10)


# --- staleness


@pytest.mark.parametrize("kind", KINDS)
def test_staleness_counts_the_changes_between_reading_and_applying(
    kind: type[Replicas],
) -> None:
    """Rank 0 reads at 0 s and applies at 1 s; rank 1 averages with it three times."""

    def work(fabric: VirtualFabric) -> list[float]:
        x = np.zeros(3)
        staleness = []
        with kind(fabric, x, nothing) as replicas:
            for _ in range(2):
                replicas.read(x)
                if fabric.rank == 1:
                    for _ in range(3):
                        fabric.pause(0.1)
                        replicas.average_with(0)
                fabric.pause(1.0 - fabric.now() % 1.0)
                replicas.apply(x, out=x)
                staleness.append(fabric.ledger.changes)
                fabric.barrier()
        return staleness

    assert World(2).run(work) == [[3.0, 3.0], [3.0, 3.0]]


def test_staleness_of_a_gradient_handed_over_counts_changes_since_its_copy() -> None:
    """Rank 1 averages twice with rank 0 between the copy and the application."""

    def work(fabric: VirtualFabric) -> float:
        x = np.zeros(3)
        with HandoverReplicas(fabric, x, nothing, repair=nothing) as replicas:
            replicas.take_over()
            y = replicas.pull()
            if fabric.rank == 1:
                replicas.average_overlapped(0)
                replicas.average_overlapped(0)
            fabric.pause(1.0)
            replicas.hand_over(y)
            replicas.take_over()
        return fabric.ledger.changes

    assert World(2).run(work) == [2.0, 2.0]


# --- age of the models averaged in


@pytest.mark.parametrize(
    "kind", [Replicas, DifferenceReplicas, HandoverReplicas, AcceleratedReplicas]
)
def test_a_neighbor_that_stands_still_ages_by_one_per_own_step(
    kind: type[Replicas],
) -> None:
    """Rank 1 applies one gradient and then none; rank 0 averages before each of its."""

    def work(fabric: VirtualFabric) -> list[float]:
        x, g, ages = np.zeros(3), np.ones(3), []
        more: dict[type[Replicas], dict[str, Any]] = {
            HandoverReplicas: {"repair": nothing},
            AcceleratedReplicas: {"kappa": 0.5, "alpha": 0.5},
        }

        def apply() -> None:
            if isinstance(replicas, HandoverReplicas):
                replicas.hand_over(g)
                replicas.take_over()
            else:
                replicas.apply(g, out=x)

        with kind(fabric, x, nothing, **more.get(kind, {})) as replicas:
            if fabric.rank == 1:
                apply()
            fabric.pause(1.0)
            while fabric.rank == 0 and len(ages) < 5:
                replicas.average_with(1)
                ages.append(fabric.ledger.age)
                fabric.ledger.age = np.nan
                apply()
        return ages

    # none if it is ahead: own steps 0 to 4 against one of rank 1
    assert World(2).run(work)[0] == [0.0, 0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize("kind", AVERAGING)
def test_ages_are_in_the_trace_of_every_step_that_averaged(kind: str) -> None:
    """Rank 2 is ten times slower, so those that meet it mix in older and older models.

    The wait-free form averages whenever it can, so only some of its steps have none.
    """

    def work(fabric: VirtualFabric) -> Walk:
        slow = SlowdownSpec("constant", ranks=(2,), factor=10.0)
        return walk(fabric, kind, budget=BudgetSpec(seconds=0.2), slowdown=slow)

    for rank, walked in enumerate(World(3).run(work)):
        ages = walked.column("age")
        if kind != "adpsgd-waitfree":
            assert not np.isnan(ages).any()
        if rank < 2:  # 0.2 s are 66 steps of 3 ms; the slow rank takes 6 meanwhile
            assert 50 < np.nanmax(ages) < 66
        else:
            assert np.nanmax(ages) == 0.0


# --- what the training thread waits for

SLOW = Network(latency=1.0)
"""A word takes a second there; a gradient takes a hundredth."""

COMPUTE = 0.01


def blocked_on_a_slow_network(kind: str, size: int = 3) -> list[Walk]:
    return World(size, SLOW).run(
        lambda fabric: walk(fabric, kind, steps=400, compute=COMPUTE)
    )


def test_wait_free_computing_never_waits_for_the_network() -> None:
    for w in blocked_on_a_slow_network("adpsgd-waitfree"):
        assert w.column("waiting").sum() == 0.0
        assert w.column("transfer").sum() == 0.0
        # as fast as without a network: one gradient after the other
        np.testing.assert_allclose(w.column("duration"), COMPUTE, rtol=1e-9)
    assert w.column("overlapped").sum() > 0.0


def test_overlapped_computing_waits_for_its_exchange() -> None:
    w = World(2, SLOW).run(
        lambda fabric: walk(fabric, "adpsgd-overlapped", steps=3, compute=COMPUTE)
    )[0]
    # of an exchange, a lock and a get, a put and a release take a second each, and the
    # gradient ran meanwhile; what was exposed is waiting for locks, the rest is moving
    exposed = w.column("waiting") + w.column("transfer")
    assert (exposed >= 4.0 - COMPUTE).all()
    assert (w.column("transfer") >= 3.0 - COMPUTE).all()
    assert (w.column("compute") + exposed <= w.column("duration")).all()


def test_inline_computing_moves_for_as_long_as_its_exchange() -> None:
    w = World(2, SLOW).run(
        lambda fabric: walk(fabric, "adpsgd", steps=3, compute=COMPUTE)
    )[0]
    # a get, a put and a release, a second each
    assert (w.column("transfer") >= 3.0).all()


def test_a_copy_lacks_at_most_the_gradient_that_was_handed_over_last() -> None:
    """Though the communication thread waits long for the replica before it applies.

    Rank 1 holds the replica of rank 0 for some seconds, while rank 0 hands over one
    gradient of 1 every second. Both started at 0, and nothing was added by averaging.
    """

    def work(fabric: VirtualFabric) -> list[float]:
        x, g = np.zeros(1), np.ones(1)
        read = []

        def step(x: Array, g: Array) -> None:
            x -= g

        def slowly() -> None:
            replicas.take_over()
            fabric.pause(2.5)

        with HandoverReplicas(fabric, x, step, repair=step) as replicas:
            if fabric.rank == 1:
                replicas.average_overlapped(0)
                return read
            with replicas.overlapped(slowly):
                for _ in range(12):
                    read.append(float(replicas.pull()[0]))
                    fabric.pause(1.0)
                    replicas.hand_over(g)
        return read

    read = World(2, SLOW).run(work)[0]
    assert read == [-float(k) for k in range(12)]
