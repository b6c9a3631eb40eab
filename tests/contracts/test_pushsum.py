"""Push-sum: mass and weights are conserved, and their ratio is the true average.

Every item of the *Tests* lines of SGP and OSGP has its test here. Graphs that need the
weights are irregular: a star with one more directed edge, and shares out of a file.
"""

import random
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Ranks
from driving import Slope, Walk, bowl, flat, start_of, walk

from dsgd_bench import graphs
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.arrays import Array
from dsgd_bench.errors import ConfigError
from dsgd_bench.exchanges.push_sum import OverlappedPush
from dsgd_bench.exchanges.resumable import State
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual.fabric import Network, VirtualFabric, World
from dsgd_bench.graphs import Graph
from dsgd_bench.spec.trial import BudgetSpec, OptimizerSpec, SlowdownSpec

LR = 0.1

HOSTILE = Network(latency=2e-6, bandwidth=2e7, jitter=3.0, pieces=2)
"""A message takes about as long as a gradient of `Hasty`, and arrives in pieces."""

SCHEDULES = 1000

SIZES = (2, 3, 2, 3, 4)

both = pytest.mark.parametrize("kind", ["sgp", "osgp"])


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of this process: ranks would remove pytest's own under each other."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def irregular(folder: Path, size: int) -> str:
    """A star with one more directed edge; two ranks that give away unequal shares."""
    lines = [f"0 {rank}\n{rank} 0" for rank in range(1, size)] + ["1 2"]
    if size == 2:
        lines = ["0 1 0.25", "1 0 0.5"]
    path = folder / "irregular.txt"
    path.write_text("\n".join(lines) if size > 1 else "")
    return f"file:{path}"


def changing(size: int) -> Graph:
    """Three phases, none regular: a star's spokes outward, inward, then a chain."""
    ring = tuple(((rank + 1) % size,) for rank in range(size))
    outward = (tuple(range(1, size)), *[()] * (size - 1))
    inward = ((), *[(0,)] * (size - 1))
    return Graph("changing", (outward, inward, (*ring[:-1], ())))


def walks(
    world: Ranks, size: int, kind: str, *, slope: Slope = flat, **more: Any
) -> list[Walk]:
    """Run all ranks, from models that differ from rank to rank."""

    def work(fabric: Fabric) -> Walk:
        start = start_of(fabric.rank)
        return walk(fabric, kind, **{"start": start, "slope": slope, **more})

    return world.together(size, work)


def starts(size: int) -> Array:
    return np.array([start_of(rank) for rank in range(size)])


def finals(ranks: list[Walk]) -> Array:
    return np.array([w.final for w in ranks])


def all_settings(kind: str, size: int) -> Iterator[dict[str, Any]]:
    for name in graphs.EXAMPLES:
        try:
            graphs.make(name, size)
        except ConfigError:
            continue
        yield {"graph": name}


def odd(folder: Path, size: int) -> dict[str, Any]:
    return {"graph": irregular(folder, size)}


# --- SGP: weights


def test_the_weights_add_up_to_the_workers_after_every_step(
    world: Ranks, size: int, folder: Path
) -> None:
    for settings in world.some([*all_settings("sgp", size), odd(folder, size)]):
        ranks = walks(world, size, "sgp", slope=bowl, steps=8, settings=settings)
        weights = np.array([w.column("weight") for w in ranks])
        # rounding of eight steps of sums of numbers of size one
        np.testing.assert_allclose(weights.sum(0), size, rtol=0, atol=1e-13)
        assert (weights > 0).all()


@both
def test_ones_stay_equal_to_the_weight_bit_for_bit(
    world: Ranks, size: int, kind: str, folder: Path
) -> None:
    """So z = x / w is exactly 1 wherever both saw the same operations."""
    for settings in world.some([*all_settings(kind, size), odd(folder, size)]):
        ranks = walks(world, size, kind, start=np.ones(7), steps=9, settings=settings)
        assert all((np.array(w.models) == 1.0).all() for w in ranks), settings
        assert all((w.final == 1.0).all() for w in ranks), settings


def test_a_regular_graph_keeps_all_weights_at_one(world: Ranks, size: int) -> None:
    for w in walks(world, size, "sgp", steps=6, settings={"graph": "ring"}):
        # thirds do not add up to one in binary
        np.testing.assert_allclose(w.column("weight"), 1.0, rtol=0, atol=1e-15)


def test_with_overlap_the_weight_is_below_one_although_the_graph_is_regular() -> None:
    """Between a share's leaving and another one's arrival: why OSGP needs weights."""

    def work(fabric: VirtualFabric) -> Walk:
        return walk(fabric, "osgp", steps=6, settings={"graph": "ring"})

    for w in World(4).run(work):
        np.testing.assert_allclose(w.column("weight")[0], 1 / 3, rtol=1e-15)


# --- SGP: consensus


@both
def test_on_an_irregular_digraph_z_meets_the_true_mean_and_x_does_not(
    world: Ranks, kind: str, folder: Path
) -> None:
    size = min(4, world.most)
    if size == 1:
        pytest.skip("one rank has no irregular graph")
    ablation = {"weights": False}
    graph = {"graph": irregular(folder, size)}
    with_weights = walks(world, size, kind, steps=80, settings=graph)
    without = walks(world, size, kind, steps=80, settings=graph | ablation)
    mean = starts(size).mean(0)
    # 80 steps leave less than 0.7^80 of the distance; rounding of 80 steps
    np.testing.assert_allclose(finals(with_weights), [mean] * size, rtol=0, atol=1e-11)
    # the elements of the mean are of the order of 0.1; x_i is w_i times that; not of
    # the last step alone: with a message in flight two weights can be equal
    late = np.array([w.models[40:] for w in without])
    assert np.abs(late - mean).max() > 0.02
    weights = np.array([w.column("weight") for w in with_weights])
    assert np.abs(weights - 1).max() > 0.1


def test_weights_repair_a_graph_that_is_irregular_and_changes(
    monkeypatch: pytest.MonkeyPatch, world: Ranks
) -> None:
    monkeypatch.setattr(graphs, "make", lambda name, size: changing(size))
    size = min(4, world.most)
    right = walks(world, size, "sgp", steps=90)
    wrong = walks(world, size, "sgp", steps=90, settings={"weights": False})
    mean = starts(size).mean(0)
    # thirty cycles that each leave less than half; rounding
    np.testing.assert_allclose(finals(right), [mean] * size, rtol=0, atol=1e-8)
    if size > 1:
        # the elements of the mean are of the order of 0.1; x_i is w_i times that
        assert np.abs(finals(wrong) - mean).max() > 0.02


@pytest.mark.parametrize(
    ("graph", "size", "steps"),
    [
        ("one-peer-exponential", 2, 1),
        ("one-peer-exponential", 4, 2),
        ("one-peer-exponential", 8, 3),
        ("one-peer-exponential:2", 3, 1),
        ("one-peer-exponential:2", 9, 2),
    ],
)
def test_a_cycle_of_a_power_of_peers_averages_exactly(
    graph: str, size: int, steps: int
) -> None:
    def work(fabric: Fabric) -> Walk:
        start, settings = start_of(fabric.rank), {"graph": graph}
        more: dict[str, Any] = {"start": start, "steps": steps, "settings": settings}
        return walk(fabric, "sgp", slope=flat, **more)

    final = finals(World(size).run(work))
    # rounding of three halvings or two thirds
    np.testing.assert_allclose(final, [starts(size).mean(0)] * size, rtol=0, atol=1e-15)


def test_p_peers_get_equal_shares_and_p_messages_leave_in_every_step() -> None:
    def work(fabric: Fabric) -> Walk:
        settings = {"graph": "one-peer-exponential:2"}
        return walk(fabric, "sgp", steps=4, settings=settings)

    for w in World(5).run(work):
        np.testing.assert_array_equal(w.column("messages_out"), 2.0)
        np.testing.assert_array_equal(w.column("messages_in"), 2.0)


# --- SGP: matrix form and fixed point


def adapt_then_combine(
    size: int, steps: int, mixing: Callable[[int], Array], slope: Slope = bowl
) -> Array:
    """Return Z after every step of X <- P (X - lr G(Z)), with weights alike."""
    x, w = starts(size), np.ones(size)
    models = [x]
    for k in range(steps):
        g = np.array([slope(rank, k, models[-1][rank]) for rank in range(size)])
        x, w = mixing(k) @ (x - LR * g), mixing(k) @ w
        models.append(x / w[:, None])
    return np.array(models)


def test_on_a_symmetric_matrix_sgp_is_adapt_then_combine(
    world: Ranks, size: int
) -> None:
    settings = {"graph": "ring"}
    ranks = walks(world, size, "sgp", slope=bowl, steps=7, settings=settings)
    w = graphs.make("ring", size).weights()
    expected = adapt_then_combine(size, 7, lambda k: w)
    atc = walks(world, size, "dpsgd-atc", slope=bowl, steps=7, settings=settings)
    for rank, walked in enumerate(ranks):
        # the same sums in another order: rounding of seven steps
        for models in (expected[:, rank], atc[rank].models):
            np.testing.assert_allclose(walked.models, models, rtol=0, atol=1e-13)


def test_sgp_is_its_matrix_recursion_on_an_irregular_digraph(
    world: Ranks, size: int, folder: Path
) -> None:
    name = irregular(folder, size)
    settings = {"graph": name}
    ranks = walks(world, size, "sgp", slope=bowl, steps=7, settings=settings)
    expected = adapt_then_combine(size, 7, graphs.make(name, size).shares)
    for rank, walked in enumerate(ranks):
        np.testing.assert_allclose(walked.models, expected[:, rank], rtol=0, atol=1e-13)


@both
def test_on_quadratics_and_an_irregular_digraph_the_mean_of_z_is_the_optimum(
    world: Ranks, kind: str, folder: Path
) -> None:
    """f_i = 1/4 ||x - c_i||^2: the optimum is the mean of the c_i, for any lr."""
    size = min(4, world.most)
    if size == 1:
        pytest.skip("one rank has no irregular graph")
    steps = 800 if kind == "sgp" or world.kind == "virtual" else 200
    ablation = {"weights": False}
    graph = {"graph": irregular(folder, size)}
    optimum = np.mean([np.cos(np.arange(7) + rank) for rank in range(size)], axis=0)

    def missed(settings: dict[str, Any]) -> Array:
        more: dict[str, Any] = {"slope": bowl, "steps": steps, "settings": settings}
        ranks = walks(world, size, kind, optimizer=OptimizerSpec(lr=0.05), **more)
        return np.array([w.models[-1] for w in ranks]) - optimum

    # 0.975^800 = 2e-9 of the first distance is left; where ranks are apart by some
    # steps, OSGP is as far off as they are
    tolerance = 1e-8 if kind == "sgp" or world.kind == "virtual" else 0.1
    right = missed(graph)
    assert np.abs(right.mean(0)).max() < tolerance
    if world.kind == "virtual":
        # models of workers differ by O(lr); numerators by the weights
        assert np.abs(right).max() < 0.15
        assert np.abs(missed(graph | ablation)).max() > 0.2


# --- SGP: hybrids


def epochs_after(step: int, size: int) -> float:
    """Epochs done before `step`: the problem has 1024 samples, batches are of one."""
    return step * size / 1024


def test_a_hybrid_switches_from_all_reduce_on_the_same_step_everywhere(
    world: Ranks, size: int
) -> None:
    switch, steps = 3, 8
    settings = {
        "early_all_reduce": True,
        "early_epochs": epochs_after(switch, size),
        "graph": "ring",
    }
    budget = BudgetSpec(steps=steps)
    ranks = walks(
        world,
        size,
        "sgp",
        slope=bowl,
        start=start_of(0),
        budget=budget,
        settings=settings,
    )
    w = graphs.make("ring", size).weights()
    x = np.array([start_of(0)] * size)
    for k in range(steps):
        g = np.array([bowl(rank, k, x[rank]) for rank in range(size)])
        x = x - LR * g.mean(0) if k < switch else w @ (x - LR * g)
        for rank, walked in enumerate(ranks):
            # sums in another order: rounding of eight steps
            np.testing.assert_allclose(
                walked.models[k + 1], x[rank], rtol=0, atol=1e-13
            )


def test_a_hybrid_switches_from_two_peers_to_one_on_the_same_step(
    world: Ranks, size: int
) -> None:
    switch, steps = 3, 8
    two, one = (
        graphs.make(f"one-peer-exponential{peers}", size) for peers in (":2", "")
    )
    settings = {
        "early_graph": "one-peer-exponential:2",
        "early_epochs": epochs_after(switch, size),
    }
    budget = BudgetSpec(steps=steps)
    ranks = walks(world, size, "sgp", slope=bowl, budget=budget, settings=settings)
    expected = adapt_then_combine(
        size, steps, lambda k: (two if k < switch else one).shares(k)
    )
    for rank, walked in enumerate(ranks):
        np.testing.assert_allclose(walked.models, expected[:, rank], rtol=0, atol=1e-13)


def test_early_all_reduce_with_momentum_is_all_reduce_sgd(
    world: Ranks, size: int
) -> None:
    settings = {"early_all_reduce": True, "early_epochs": 1.0}
    more: dict[str, Any] = {
        "slope": bowl,
        "start": start_of(0),
        "budget": BudgetSpec(steps=6),
        "optimizer": OptimizerSpec(lr=LR, momentum=0.9),
    }
    early = walks(world, size, "sgp", settings=settings, **more)
    reference = walks(world, size, "allreduce", **more)
    for w, expected in zip(early, reference, strict=True):
        np.testing.assert_array_equal(w.models, expected.models)


# --- OSGP


@pytest.mark.parametrize("optimizer", [OptimizerSpec(), OptimizerSpec(momentum=0.9)])
def test_osgp_with_tau_0_is_sgp_bit_for_bit(
    world: Ranks, size: int, optimizer: OptimizerSpec, folder: Path
) -> None:
    for settings in world.some([*all_settings("sgp", size), odd(folder, size)]):
        more: dict[str, Any] = {"slope": bowl, "steps": 7, "optimizer": optimizer}
        sgp = walks(world, size, "sgp", settings=settings, **more)
        osgp = walks(world, size, "osgp", settings=settings | {"tau": 0}, **more)
        for one, other in zip(sgp, osgp, strict=True):
            np.testing.assert_array_equal(one.models, other.models)
            np.testing.assert_array_equal(one.final, other.final)


@pytest.mark.parametrize("tau", [0, 1, 2, 5])
def test_osgp_with_one_worker_is_sgd_with_weight_one(world: Ranks, tau: int) -> None:
    [w] = walks(world, 1, "osgp", slope=bowl, steps=6, settings={"tau": tau})
    x = start_of(0)
    for k in range(6):
        x = x - LR * bowl(0, k, x)
        # x / 1 is x; the step may round in another order
        np.testing.assert_allclose(w.models[k + 1], x, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(w.column("weight"), 1.0)


class Hasty:
    """The least that an algorithm needs to run, so that many schedules are quick."""

    def __init__(self, fabric: Fabric, slope: Slope) -> None:
        self.fabric, self.rank, self.size = fabric, fabric.rank, fabric.size
        self.epochs = 0.0
        self.state = State()
        self.spent: Any = 0.0
        self._slope = slope
        self._random = random.Random(fabric.rank)
        self._steps = 0

    def gradient(self, x: Array, out: Array) -> float:
        self.fabric.pause(4e-5 * self._random.random())
        out[:] = self._slope(self.rank, self._steps, x)
        self._steps += 1
        self.spent = self.spent + out
        return 0.0

    def update(self, x: Array, g: Array) -> None:
        x -= LR * g

    def graph(self, name: str, *, late: int = 0) -> Graph:
        return graphs.make(name, self.size)


GRAPHS = ("one-peer-exponential", "star", "exponential")


def hurry(
    fabric: VirtualFabric, seed: int, slope: Slope, start: Array
) -> tuple[list[Array], Array, Any, list[float]]:
    """Run one rank of OSGP; tau, graph and steps go with the seed of the schedule."""
    hasty, z = Hasty(fabric, slope), start.copy()
    tau = 1 + seed // 5 % 3
    steps = 4 + (seed // 15 + fabric.rank) % 3  # not all take equally many
    settings = {"graph": GRAPHS[seed // 7 % 3], "tau": tau}
    models, stale = [], []
    fabric.ledger.open()
    walking = ALGORITHMS["osgp"].steps(z, hasty, **settings)
    for _ in range(steps + 1):
        models.append(next(walking).copy())
        stale.append(fabric.ledger.staleness - tau)
        fabric.ledger.close_step(loss=0.0, samples=1)
    walking.close()
    return models, z, hasty.spent, [*stale, fabric.ledger.weight]


def on_schedules(work: Callable[..., Any]) -> Any:
    for seed in range(SCHEDULES):
        world = World(SIZES[seed % len(SIZES)], HOSTILE, seed)
        yield seed, world.run(partial(work, seed=seed))


def test_osgp_conserves_mass_and_weights_under_a_thousand_hostile_schedules() -> None:
    """Once the last message is in; workers leave after different numbers of steps."""

    def work(fabric: VirtualFabric, seed: int) -> Any:
        start = start_of(fabric.rank)
        _, z, spent, notes = hurry(fabric, seed, bowl, start)
        return start, z, spent, notes

    late = -9.0
    for seed, ranks in on_schedules(work):
        weights = [notes[-1] for _, _, _, notes in ranks]
        mass = sum(z * w for (_, z, _, _), w in zip(ranks, weights, strict=True))
        given = sum(start - LR * spent for start, _, spent, _ in ranks)
        # rounding of some dozen sums of numbers of size one
        np.testing.assert_allclose(sum(weights), len(ranks), rtol=0, atol=1e-14)
        np.testing.assert_allclose(mass, given, rtol=0, atol=1e-13, err_msg=f"{seed}")
        over = [stale for _, _, _, notes in ranks for stale in notes[:-1]]
        late = max([late, *np.array(over)[np.isfinite(over)]])
    assert late == 0.0  # never above tau; and some message is as late as it may be


def test_osgp_keeps_ones_bit_for_bit_under_a_thousand_hostile_schedules() -> None:
    """A torn, lost or doubled message would show at once, off by a factor."""

    def work(fabric: VirtualFabric, seed: int) -> Any:
        models, z, _, _ = hurry(fabric, seed, flat, np.ones(5))
        return np.array([*models, z])

    for seed, ranks in on_schedules(work):
        assert all((models == 1.0).all() for models in ranks), f"schedule {seed}"


@pytest.mark.parametrize("tau", [1, 2, 3])
def test_weights_held_and_in_flight_add_up_at_every_moment(
    monkeypatch: pytest.MonkeyPatch, tau: int
) -> None:
    size = 4
    flight: dict[str, Any] = {"w": 0.0, "x": np.zeros(7)}
    held: dict[int, Array] = {}
    split, add = OverlappedPush._split, OverlappedPush._add

    def splitting(push: OverlappedPush, phase: Any) -> Any:
        parcels = split(push, phase)
        for packet, _ in parcels:
            flight["w"] += packet[-1]
            flight["x"] = flight["x"] + packet[:-1]
        return parcels

    def adding(push: OverlappedPush, packet: Array) -> None:
        add(push, packet)
        flight["w"] -= packet[-1]
        flight["x"] = flight["x"] - packet[:-1]

    monkeypatch.setattr(OverlappedPush, "_split", splitting)
    monkeypatch.setattr(OverlappedPush, "_add", adding)
    sums = []

    def work(fabric: VirtualFabric) -> None:
        hasty, z = Hasty(fabric, flat), start_of(fabric.rank)
        walking: Any = ALGORITHMS["osgp"].steps(z, hasty, graph="exponential", tau=tau)
        for _ in range(12):
            next(walking)
            push = walking.gi_frame.f_locals["push"]
            held[fabric.rank] = push._sum.packet
            if len(held) == size:
                total: Any = sum(held.values())
                sums.append([total[-1] + flight["w"], total[:-1] + flight["x"]])
        walking.close()

    World(size, HOSTILE, seed=tau).run(work)
    assert len(sums) > 20
    for weight, mass in sums:
        # rounding of some hundred sums of numbers of size one
        assert abs(weight - size) < 1e-13
        np.testing.assert_allclose(mass, starts(size).sum(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("tau", [1, 2, 4])
def test_osgp_meets_the_mean_of_the_start_whatever_the_delays_biased_need_not(
    world: Ranks, tau: int
) -> None:
    size = min(4, world.most)
    slow = SlowdownSpec("transient", factor=5.0, probability=0.4)
    network: dict[str, Any] = {"latency": 2e-3, "jitter": 4.0, "pieces": 2}
    settings: dict[str, Any] = {"graph": "exponential", "tau": tau}

    def run(**more: Any) -> list[Walk]:
        def work(fabric: Fabric) -> Walk:
            start, given = start_of(fabric.rank), settings | more
            return walk(
                fabric,
                "osgp",
                slope=flat,
                start=start,
                steps=50 * tau,
                settings=given,
                slowdown=slow,
            )

        return world.together(size, work, **network)

    mean = starts(size).mean(0)
    walked = run()
    # fifty exchanges, each of which leaves at most four fifths of the distance or so
    np.testing.assert_allclose(finals(walked), [mean] * size, rtol=0, atol=1e-4)
    for w in walked:
        assert not (w.column("staleness") > tau).any()
    if size > 1 and world.kind == "virtual":
        biased = np.array([w.models[-1] for w in run(weights=False)])
        # the elements of the mean are of the order of 0.1
        assert np.abs(biased - mean).max() > 0.02


@pytest.mark.parametrize("tau", [1, 2, 3])
def test_staleness_of_osgp_is_never_above_tau_and_reaches_it(tau: int) -> None:
    """A message takes two and a half gradients; what is late is waited for."""
    network = Network(latency=2.5e-3)

    def work(fabric: VirtualFabric) -> Walk:
        settings = {"tau": tau}
        return walk(fabric, "osgp", steps=30, settings=settings, compute=1e-3)

    for w in World(4, network).run(work):
        stale = w.column("staleness")
        assert np.nanmax(stale) == tau
        np.testing.assert_array_equal(w.column("age")[stale > 0], stale[stale > 0])


def test_a_message_hides_behind_a_gradient_with_tau_1_and_not_with_tau_0() -> None:
    """A put, its stamp and its version word take 1 ms each, a gradient 10 ms."""
    network = Network(latency=1e-3)

    def durations(tau: int) -> Array:
        def work(fabric: VirtualFabric) -> Walk:
            more: dict[str, Any] = {
                "steps": 6,
                "compute": 0.01,
                "settings": {"tau": tau},
            }
            return walk(fabric, "osgp", **more)

        return np.array([w.column("duration")[2:] for w in World(4, network).run(work)])

    assert (durations(0) >= 0.013).all()
    # the acknowledgment is exposed: a word of 1 ms
    assert (durations(1) <= 0.0112).all()


def test_a_slow_worker_holds_everybody_up_but_not_for_jitter_below_tau() -> None:
    """The bound: workers wait for what was sent tau steps ago."""

    def work(fabric: VirtualFabric) -> Walk:
        slow = SlowdownSpec("constant", ranks=(0,), factor=4.0)
        more: dict[str, Any] = {"steps": 20, "compute": 0.01, "slowdown": slow}
        return walk(fabric, "osgp", settings={"tau": 2}, **more)

    slow, *others = World(4).run(work)
    for w in others:
        # as slow as the slow one, but for the steps that they may be ahead: the
        # graph reaches everybody in two exchanges of two steps, waited for two late
        assert w.column("duration").sum() > slow.column("duration").sum() - 0.04 * 8
        assert w.column("waiting").sum() > 0.5 * w.column("duration").sum()


@pytest.mark.parametrize("tau", [0, 1, 2])
def test_whoever_ends_first_keeps_nobody_waiting_and_loses_no_mass(
    world: Ranks, size: int, tau: int
) -> None:
    def work(fabric: Fabric) -> tuple[Walk, float]:
        start = start_of(fabric.rank)
        settings = {"graph": "complete", "tau": tau}
        steps = 4 + 3 * (fabric.rank % 3)
        w = walk(
            fabric, "osgp", start=start, slope=flat, steps=steps, settings=settings
        )
        return w, fabric.ledger.weight

    results = world.together(size, work)
    assert [len(w.rows) for w, _ in results] == [4 + 3 * (r % 3) for r in range(size)]
    # rounding of some dozen sums
    assert abs(sum(weight for _, weight in results) - size) < 1e-12
    mass = sum(w.final * weight for w, weight in results)
    np.testing.assert_allclose(mass, starts(size).sum(0), rtol=0, atol=1e-12)
