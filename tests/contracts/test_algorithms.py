"""Promises of algorithms: every entry of the table must keep those it claims."""

import inspect
import re
from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np
import pytest
from conftest import Ranks, VirtualRanks
from driving import InTurn, Walk, bowl, flat, start_of, walk

from dsgd_bench import graphs
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.algorithms.base import Algorithm
from dsgd_bench.algorithms.facts import TRAITS
from dsgd_bench.arrays import Array
from dsgd_bench.errors import ConfigError
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual.fabric import World
from dsgd_bench.problems import Softmax
from dsgd_bench.spec.trial import (
    BudgetSpec,
    OptimizerSpec,
    ProblemSpec,
    ScheduleSpec,
    SlowdownSpec,
)
from dsgd_bench.trial import optimizer

every = pytest.mark.parametrize("kind", ALGORITHMS)


def among(belongs: Callable[[Algorithm], bool]) -> list[str]:
    """Return the algorithms of which something holds."""
    return [name for name, algorithm in ALGORITHMS.items() if belongs(algorithm)]


def claiming(*traits: str) -> pytest.MarkDecorator:
    """Run a test for every algorithm that claims all of these traits."""
    return pytest.mark.parametrize("kind", among(lambda a: a.traits >= set(traits)))


[THREADED] = among(lambda a: a.models_sent == (0.0, inf))
"""Its exchanges go on without end on a thread of their own, so which gradients are in
the model that it reads depends on how the threads run."""

PLAINEST: dict[str, dict[str, Any]] = {
    "dcasgd": {"strength": 0.0},
    "easgd": {"beta": 0.0},
    "eamsgd": {"beta": 0.0, "mu": 0.0},
    "localsgd": {"every": 2},
    "odsgd": {"warmup": 3, "local": "none"},
    "postlocal": {"after": 0.01, "every": 2},
}
"""Settings without which one worker is more than SGD, or a short run not typical."""

ELASTIC = among(
    lambda a: a.traits >= {"center", "asynchronous"} and a.staleness == "none"
)
"""Their gradients move the workers' own models; the center only follows these."""

DRIFTING = among(lambda a: a.staleness == "steps")
"""The mean of their models depends on what has arrived: it is not what is conserved."""

OWN_WAY = among(
    lambda a: (
        "own-momentum" in a.traits
        or ("center" in a.traits and bool(a.overlapped_form_of))
    )
)
"""Momentum is not the optimizer's, or not in the models at which gradients are taken
while the center's answer is under way."""


def mean(vectors: list[Array] | Array) -> Array:
    average: Array = np.mean(vectors, axis=0)
    return average


def workers(walks: list[Walk]) -> list[Walk]:
    return [w for w in walks if not w.serves]


def settle(walks: list[Walk]) -> Array:
    """Return the model that counts in the end: the center, or the mean of all."""
    center = [w.final for w in walks if w.serves]
    return np.sum(center, axis=0) if center else mean([w.final for w in walks])


def models(walks: list[Walk], step: int) -> Array:
    """Return the model that counts after a step of a synchronous algorithm."""
    n = len(workers(walks))
    center = [w.models[n * step] for w in walks if w.serves]
    if center:
        return np.sum(center, axis=0)
    return mean([w.models[step] for w in walks])


def same_start(kind: str) -> bool:
    """Tell whether all replicas must start equal."""
    return bool(ALGORITHMS[kind].traits & {"center", "eventually-identical"})


def a_start(kind: str, rank: int) -> Array:
    return start_of(0 if same_start(kind) else rank)


def plainest(kind: str) -> dict[str, Any]:
    return PLAINEST.get(kind, {})


def possible_graphs(kind: str, size: int) -> list[dict[str, str]]:
    """Return the settings for every graph that the algorithm has on so many ranks."""
    if "graph" not in ALGORITHMS[kind].settings:
        return [{}]
    possible = []
    for name in graphs.EXAMPLES:
        try:
            ALGORITHMS[kind].graphs({"graph": name}, size)
        except ConfigError:
            continue
        possible.append({"graph": name})
    return possible


# --- every algorithm


@every
def test_the_first_model_yielded_is_the_initial_one(
    world: Ranks, size: int, kind: str
) -> None:
    def work(fabric: Fabric) -> Walk:
        return walk(fabric, kind, start=a_start(kind, fabric.rank), steps=2)

    walks = world.together(size, work)
    for rank, walked in enumerate(workers(walks)):
        np.testing.assert_array_equal(walked.models[0], a_start(kind, rank))
    np.testing.assert_allclose(
        models(walks, 0), mean([a_start(kind, rank) for rank in range(size)])
    )


OPTIMIZERS = {
    "plain": OptimizerSpec(lr=0.3),
    "momentum": OptimizerSpec(lr=0.2, momentum=0.9),
    "nesterov": OptimizerSpec(lr=0.2, momentum=0.9, nesterov=True),
    "decay": OptimizerSpec(lr=0.3, weight_decay=0.05),
    "everything": OptimizerSpec(
        lr=0.2,
        momentum=0.8,
        nesterov=True,
        weight_decay=0.05,
        schedule=ScheduleSpec("warmup-step", at=(6 / 1024,), warmup=3 / 1024),
    ),
}


def sequential_sgd(x: Array, spec: OptimizerSpec, steps: int) -> list[Array]:
    """Return the models of plain sequential SGD on `bowl`, by the textbook."""
    models, velocity = [x], np.zeros_like(x)
    for step in range(steps):
        lr = spec.lr * optimizer.scale(spec.schedule, step / 1024)
        g = bowl(0, step, x) + spec.weight_decay * x
        velocity = spec.momentum * velocity + g
        x = x - lr * (g + spec.momentum * velocity if spec.nesterov else velocity)
        models.append(x)
    return models


def takes(kind: str, spec: OptimizerSpec) -> bool:
    """Tell whether one worker of an algorithm does what the optimizer alone does."""
    plain = spec.lr and not (spec.momentum or spec.weight_decay)
    if "plain" in ALGORITHMS[kind].traits and not plain:
        return False
    return not (spec.momentum and kind in OWN_WAY)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (kind, settings)
        for kind in ALGORITHMS
        for settings, spec in OPTIMIZERS.items()
        if kind != THREADED and takes(kind, spec)
    ],
)
def test_one_worker_is_sequential_sgd(world: Ranks, kind: str, settings: str) -> None:
    spec = OPTIMIZERS[settings]

    def work(fabric: Fabric) -> Walk:
        more: dict[str, Any] = {"optimizer": spec, "settings": plainest(kind)}
        return walk(fabric, kind, budget=BudgetSpec(steps=12), **more)

    [walked] = world.together(1, work)
    expected = sequential_sgd(start_of(0), spec, 12)
    # rounding of twelve steps on models of size one, in double precision
    np.testing.assert_allclose(walked.models, expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(walked.final, walked.models[-1])


def test_one_worker_with_two_threads_is_sequential_sgd_if_they_keep_pace() -> None:
    """The copy is repaired by the plain gradient, so this holds without momentum.

    Weight decay and schedules act when the communication thread applies a gradient.
    """
    spec = OPTIMIZERS["plain"]
    [walked] = World(1).run(
        lambda fabric: walk(fabric, THREADED, steps=12, optimizer=spec, compute=0.01)
    )
    expected = sequential_sgd(start_of(0), spec, 12)
    np.testing.assert_allclose(walked.models, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(walked.final, expected[-1], rtol=0, atol=1e-12)


@every
def test_unknown_settings_are_refused_by_name(kind: str) -> None:
    with pytest.raises(TypeError, match="colour"):
        ALGORITHMS[kind].steps(np.zeros(2), None, colour="red")


@pytest.mark.parametrize(
    "kind", [name for name, a in ALGORITHMS.items() if "graph" in a.settings]
)
def test_unknown_graphs_are_refused_by_name(kind: str) -> None:
    def work(fabric: Fabric) -> Walk:
        return walk(fabric, kind, settings={"graph": "rong"})

    with pytest.raises(ConfigError, match="did you mean 'ring'"):
        World(2).run(work)


@every
def test_one_seed_gives_one_trace_bit_for_bit(kind: str) -> None:
    def work(fabric: Fabric) -> Walk:
        return walk(fabric, kind, start=start_of(fabric.rank), steps=6)

    def run(seed: int) -> bytes:
        ranks = VirtualRanks().together(3, work, seed=seed, jitter=1.0, pieces=2)
        return b"".join(
            np.array(values, float).tobytes()
            for w in ranks
            for values in (*w.models, w.final, *w.rows)
        )

    assert run(1) == run(1)
    if "synchronous" not in ALGORITHMS[kind].traits:
        assert run(1) != run(2)  # or the seeds of a schedule would mean nothing


def moved_down_a_slope(world: Ranks, size: int, kind: str) -> Array:
    """Return how far five steps of lr = 0.1 down a slope of 1 move the final model.

    Ranks that only averaged would all hold the common start; these took steps.
    """

    def work(fabric: Fabric) -> Walk:
        settings = plainest(kind)
        return walk(fabric, kind, slope=lambda *_: 1.0, steps=5, settings=settings)

    walks = world.together(size, work)
    ends = [w.final for w in workers(walks)]
    return start_of(0) - (mean(ends) if kind in ELASTIC else settle(walks))


@pytest.mark.parametrize("kind", among(lambda a: a.name not in DRIFTING))
def test_the_array_handed_in_holds_the_final_model_after_closing(
    world: Ranks, size: int, kind: str
) -> None:
    moved = moved_down_a_slope(world, size, kind)
    # rounding of a few additions
    np.testing.assert_allclose(moved, 0.5, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", DRIFTING)
def test_the_array_handed_in_has_the_last_step_although_messages_were_under_way(
    world: Ranks, size: int, kind: str
) -> None:
    moved = moved_down_a_slope(world, size, kind)
    # its last step at least, and no step more than twice or so
    assert ((moved > 0.09) & (moved < 1.5)).all()


@every
def test_a_module_says_paper_traffic_memory_and_fixed_point(kind: str) -> None:
    text = inspect.getdoc(inspect.getmodule(ALGORITHMS[kind].steps)) or ""
    assert re.search(r"arXiv:\d{4}\.\d{4,5}", text)
    for word in ("Traffic", "Memory", "Fixed point"):
        assert re.search(rf"^{word} +\S", text, re.MULTILINE), word
    assert "<-" in text


@every
def test_traits_are_known_and_do_not_contradict_each_other(kind: str) -> None:
    algorithm = ALGORITHMS[kind]
    assert algorithm.name == kind
    assert algorithm.traits <= TRAITS.keys()
    assert len(algorithm.traits & {"synchronous", "asynchronous"}) == 1


# --- mean-preserving


@claiming("mean-preserving", "synchronous")
def test_the_mean_model_moves_by_the_mean_gradient(
    world: Ranks, size: int, kind: str
) -> None:
    def work(fabric: Fabric) -> Walk:
        return walk(fabric, kind, start=a_start(kind, fabric.rank), steps=5)

    walks = world.together(size, work)
    for step in range(5):
        before, after = models(walks, step), models(walks, step + 1)
        moved = -0.1 * mean([w.gradients[step] for w in workers(walks)])
        # rounding of one step on models of size one, in double precision
        np.testing.assert_allclose(after - before, moved, rtol=0, atol=1e-14)


@claiming("mean-preserving", "asynchronous")
def test_the_mean_model_moves_by_the_gradients_of_all(
    world: Ranks, size: int, kind: str
) -> None:
    """By lr / n for every gradient of n workers, or the center by as much."""

    def work(fabric: Fabric) -> Walk:
        slow = SlowdownSpec("constant", ranks=(0,), factor=3.0)
        start = a_start(kind, fabric.rank)
        return walk(fabric, kind, start=start, steps=7, slowdown=slow)

    walks = world.together(size, work)
    start = mean([a_start(kind, rank) for rank in range(size)])
    moved = -0.1 * mean([w.spent for w in workers(walks)])
    # rounding: every gradient and every averaging rounds models of size one
    np.testing.assert_allclose(settle(walks), start + moved, rtol=0, atol=1e-12)
    assert {len(w.gradients) for w in workers(walks)} == {7}


@claiming("per-gradient-lr")
def test_the_raw_learning_rate_moves_the_model_as_many_times_as_there_are_workers(
    world: Ranks, size: int, kind: str
) -> None:
    """The trap: the same number means n times more where every gradient counts."""

    def run(*, raw: bool) -> list[Walk]:
        spec = OptimizerSpec(lr=0.1, raw_lr=raw)

        def work(fabric: Fabric) -> Walk:
            more: dict[str, Any] = {"optimizer": spec, "settings": plainest(kind)}
            return walk(fabric, kind, slope=constant, steps=4, **more)

        return world.together(size, work)

    def constant(rank: int, step: int, x: Array) -> Array:
        return np.ones_like(x)

    fair, raw = run(raw=False), run(raw=True)
    count = len(workers(fair))
    # rounding of a few additions
    np.testing.assert_allclose(settle(fair), start_of(0) - 0.4, rtol=0, atol=1e-13)
    np.testing.assert_allclose(
        settle(raw), start_of(0) - 0.4 * count, rtol=0, atol=1e-13
    )


# --- eventually-identical


@claiming("eventually-identical")
def test_all_replicas_are_equal_after_the_drain(
    world: Ranks, size: int, kind: str
) -> None:
    def work(fabric: Fabric) -> Walk:
        slow = SlowdownSpec("constant", ranks=(0,), factor=5.0)
        return walk(fabric, kind, steps=7, slowdown=slow)

    walks = world.together(size, work)
    for w in walks[1:]:
        # the same sums in another order on every rank: rounding
        np.testing.assert_allclose(w.final, walks[0].final, rtol=0, atol=1e-14)


# --- consensus


@claiming("consensus")
def test_without_gradients_the_workers_come_to_agree_on_their_mean(
    world: Ranks, size: int, kind: str
) -> None:
    def drive_on(settings: dict[str, Any]) -> list[Walk]:
        def work(fabric: Fabric) -> Walk:
            start = start_of(fabric.rank)
            budget = InTurn(40, fabric, threaded=kind == THREADED)
            return walk(
                fabric, kind, slope=flat, start=start, budget=budget, settings=settings
            )

        return world.together(size, work)

    starts = [start_of(rank) for rank in range(size)]
    apart = np.abs(starts - mean(starts)).max()
    for settings in world.some(possible_graphs(kind, size)):
        final = np.array([w.final for w in drive_on(settings)])
        # rounding of some hundred averagings
        np.testing.assert_allclose(mean(final), mean(starts), rtol=0, atol=1e-13)
        # On the ring of eight an averaging leaves 0.963 of the squared distance, so
        # 40 rounds of eight workers leave a factor of 0.963**160 = 0.0024 or less.
        assert np.abs(final - mean(starts)).max() <= 0.05 * apart


# --- identical


@claiming("identical")
def test_all_replicas_are_equal_after_every_step(
    world: Ranks, size: int, kind: str
) -> None:
    walks = workers(world.together(size, lambda fabric: walk(fabric, kind, steps=6)))
    for w in walks[1:]:
        # an MPI library may add in another order on every rank: rounding
        rounding = 0.0 if world.kind == "virtual" else 1e-14
        np.testing.assert_allclose(w.models, walks[0].models, rtol=0, atol=rounding)


# --- synchronous


@claiming("synchronous")
def test_all_ranks_take_equally_many_steps_although_one_clock_decides(
    world: Ranks, size: int, kind: str
) -> None:
    def work(fabric: Fabric) -> Walk:
        # every second gradient or so of every rank takes longer
        uneven = SlowdownSpec("transient", factor=3.0, probability=0.5)
        budget = BudgetSpec(seconds=0.1 if world.kind == "virtual" else 0.02)
        more: dict[str, Any] = {"slowdown": uneven, "settings": plainest(kind)}
        return walk(fabric, kind, budget=budget, **more)

    counts = {len(w.models) for w in workers(world.together(size, work))}
    assert len(counts) == 1
    assert counts.pop() > 2


@claiming("synchronous")
def test_mpi_and_virtual_time_give_the_same_models(
    world: Ranks, size: int, kind: str
) -> None:
    def work(fabric: Fabric) -> Walk:
        spec = OPTIMIZERS["momentum"]
        more: dict[str, Any] = {"optimizer": spec, "settings": plainest(kind)}
        return walk(fabric, kind, steps=8, compute=0.0, **more)

    here, there = world.together(size, work), VirtualRanks().together(size, work)
    for w, expected in zip(here, there, strict=True):
        # the order of a sum is the library's choice: rounding of eight steps
        np.testing.assert_allclose(w.models, expected.models, rtol=0, atol=1e-13)


@claiming("synchronous", "identical")
def test_many_ranks_equal_one_rank_with_all_their_samples(
    world: Ranks, size: int, kind: str
) -> None:
    batch, steps = 3, 14  # more than one epoch of 100 samples from four ranks on

    def work(batch: int) -> Any:
        def drive(fabric: Fabric) -> Walk:
            problem = Softmax(
                data="generated", samples=100, features=4, classes=3, dtype="float64"
            )
            spec = ProblemSpec("softmax", batch=batch, dtype="float64")
            optimizer = OPTIMIZERS["momentum"]
            more: dict[str, Any] = {
                "start": problem.initial(),
                "spec": spec,
                "optimizer": optimizer,
            }
            return walk(fabric, kind, problem=problem, steps=steps, **more)

        return drive

    many = workers(world.together(size, work(batch)))
    [one] = World(1).run(work(batch * len(many)))
    for w in many:
        # the same sums in another order: rounding of fourteen steps
        np.testing.assert_allclose(w.models, one.models, rtol=0, atol=1e-12)
    assert np.abs(one.models[-1]).max() > 0.1


# --- traffic


@every
def test_traffic_counted_is_traffic_predicted(
    world: Ranks, size: int, kind: str
) -> None:
    """On default graphs all ranks send equally much."""
    steps, settings = 6, plainest(kind)

    def work(fabric: Fabric) -> Walk:
        return walk(fabric, kind, steps=steps, settings=settings)

    walks = world.together(size, work)
    models_sent = ALGORITHMS[kind].sent(settings, size)
    share = len(workers(walks)) / max(1, size - len(workers(walks)))  # of a server
    for rank, w in enumerate(walks):
        assert rank not in w.exchanges
        if models_sent is None:
            expected = float(sum(w.exchanges.values()))
        else:
            expected = models_sent * steps * (share if w.serves else 1)
        if models_sent is None and not w.exchanges:
            continue  # the number is a result, and nothing but the bytes tells it
        nbytes = w.final.nbytes
        if "push-sum" in ALGORITHMS[kind].traits:
            nbytes += w.final.itemsize  # the weight is really sent
        # where ranks send as they can, one may receive more than it sends
        heard = sum(other.exchanges.get(rank, 0) for other in walks)
        for direction, most in (("out", expected), ("in", max(expected, heard))):
            # what is sent after the last step has been closed is in no step
            assert w.column(f"bytes_{direction}").sum() <= most * nbytes
        assert w.handed_over == expected * nbytes


@every
def test_spans_add_up_to_the_time_of_every_step(
    world: Ranks, size: int, kind: str
) -> None:
    spans = ("compute", "injected", "transfer", "waiting", "update", "snapshot")
    for w in world.together(size, lambda fabric: walk(fabric, kind, steps=6)):
        parts = sum(w.column(name) for name in spans)
        duration = w.column("duration")
        # clocks are read one after the other, never twice for one moment
        assert (parts <= duration + 1e-9).all()
        if world.kind == "virtual":  # nothing else takes virtual time
            locks = w.column("transfer") + w.column("waiting") > 0
            assert (parts >= 0.9 * duration)[~locks].all()
        starts = w.column("start")
        np.testing.assert_allclose(
            starts[1:], starts[:-1] + duration[:-1], rtol=0, atol=1e-9
        )
