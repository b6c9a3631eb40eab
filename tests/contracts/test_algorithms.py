"""Promises of algorithms: every entry of the table must keep those it claims."""

import inspect
import re
from typing import Any

import numpy as np
import pytest
from conftest import Ranks, VirtualRanks
from driving import Walk, bowl, flat, start_of, walk

from dsgd_bench import graphs, optimizer
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.algorithms.base import TRAITS
from dsgd_bench.arrays import Array
from dsgd_bench.errors import ConfigError
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual import World
from dsgd_bench.problems import Softmax
from dsgd_bench.specs import (
    BudgetSpec,
    OptimizerSpec,
    ProblemSpec,
    ScheduleSpec,
    SlowdownSpec,
)

THREADED = "adpsgd-waitfree"
"""Which gradients are in the model that it reads depends on how its threads run."""

every = pytest.mark.parametrize("kind", ALGORITHMS)


def claiming(*traits: str) -> pytest.MarkDecorator:
    """Run a test for every algorithm that claims all of these traits."""
    kinds = [name for name, a in ALGORITHMS.items() if a.traits >= set(traits)]
    return pytest.mark.parametrize("kind", kinds)


def mean(vectors: list[Array]) -> Array:
    return np.mean(vectors, axis=0)


def possible_graphs(kind: str, size: int) -> list[dict[str, str]]:
    """Return the settings for every graph that the algorithm has on so many ranks."""
    if "graph" not in ALGORITHMS[kind].settings:
        return [{}]
    possible = []
    for name in graphs.GRAPHS:
        try:
            graphs.make(name, size)
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
        return walk(fabric, kind, start=start_of(fabric.rank), steps=2)

    for rank, walked in enumerate(world.together(size, work)):
        np.testing.assert_array_equal(walked.models[0], start_of(rank))


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


@pytest.mark.parametrize("settings", OPTIMIZERS)
@pytest.mark.parametrize("kind", [name for name in ALGORITHMS if name != THREADED])
def test_one_worker_is_sequential_sgd(world: Ranks, kind: str, settings: str) -> None:
    spec = OPTIMIZERS[settings]

    def work(fabric: Fabric) -> Walk:
        return walk(fabric, kind, budget=BudgetSpec(steps=12), optimizer=spec)

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


@every
def test_unknown_graphs_are_refused_by_name(kind: str) -> None:
    if "graph" not in ALGORITHMS[kind].settings:
        return

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


@every
def test_the_array_handed_in_holds_the_final_model_after_closing(
    world: Ranks, size: int, kind: str
) -> None:
    """Ranks that only averaged would all hold the common start; these took steps."""

    def work(fabric: Fabric) -> Walk:
        return walk(fabric, kind, slope=lambda *_: 1.0, steps=5)

    walks = world.together(size, work)
    final = mean([w.final for w in walks])
    # five steps of lr = 0.1 down a slope of 1; rounding of a few additions
    np.testing.assert_allclose(final, start_of(0) - 0.5, rtol=0, atol=1e-12)


@every
def test_a_module_says_paper_traffic_memory_and_fixed_point(kind: str) -> None:
    text = inspect.getdoc(inspect.getmodule(ALGORITHMS[kind].steps)) or ""
    assert re.search(r"arXiv:\d{4}\.\d{5}", text)
    for word in ("Traffic", "Memory", "Fixed point"):
        assert re.search(rf"^{word} +\S", text, re.MULTILINE), word
    assert "<-" in text


@every
def test_traits_are_known_and_do_not_contradict_each_other(kind: str) -> None:
    algorithm = ALGORITHMS[kind]
    assert algorithm.name == kind
    assert algorithm.traits <= TRAITS.keys()
    assert len(algorithm.traits & {"synchronous", "asynchronous"}) == 1


# --- keeps-mean


@claiming("keeps-mean", "synchronous")
def test_the_mean_model_moves_by_the_mean_gradient(
    world: Ranks, size: int, kind: str
) -> None:
    def work(fabric: Fabric) -> Walk:
        return walk(fabric, kind, start=start_of(fabric.rank), steps=5)

    walks = world.together(size, work)
    for step in range(5):
        before = mean([w.models[step] for w in walks])
        after = mean([w.models[step + 1] for w in walks])
        moved = -0.1 * mean([w.gradients[step] for w in walks])
        # rounding of one step on models of size one, in double precision
        np.testing.assert_allclose(after - before, moved, rtol=0, atol=1e-14)


@claiming("keeps-mean", "asynchronous")
def test_the_sum_of_models_moves_by_the_sum_of_gradients(
    world: Ranks, size: int, kind: str
) -> None:
    def work(fabric: Fabric) -> Walk:
        slow = SlowdownSpec("constant", ranks=(0,), factor=3.0)
        return walk(fabric, kind, start=start_of(fabric.rank), steps=7, slowdown=slow)

    walks = world.together(size, work)
    starts = sum(start_of(rank) for rank in range(size))
    spent = sum(w.spent for w in walks)
    final = sum(w.final for w in walks)
    # rounding: every gradient and every averaging rounds models of size one
    np.testing.assert_allclose(final, starts - 0.1 * spent, rtol=0, atol=1e-12)
    assert {len(w.gradients) for w in walks} == {7}


# --- agrees


@claiming("agrees")
def test_without_gradients_the_workers_come_to_agree_on_their_mean(
    world: Ranks, size: int, kind: str
) -> None:
    settings_of = ALGORITHMS[kind].settings

    def drive_on(settings: dict[str, Any]) -> list[Walk]:
        if "interval" in settings_of:
            settings = {**settings, "interval": 0.01 if world.kind == "virtual" else 0}

        def work(fabric: Fabric) -> Walk:
            start = start_of(fabric.rank)
            return walk(
                fabric, kind, slope=flat, start=start, steps=40, settings=settings
            )

        return world.together(size, work)

    starts = [start_of(rank) for rank in range(size)]
    apart = np.abs(starts - mean(starts)).max()
    for settings in possible_graphs(kind, size):
        final = np.array([w.final for w in drive_on(settings)])
        # rounding of some hundred averagings
        np.testing.assert_allclose(mean(final), mean(starts), rtol=0, atol=1e-13)
        # On the ring of eight an averaging leaves 0.963 of the squared distance, so
        # 40 steps of eight workers leave a factor of 0.963**160 = 0.0024 or less.
        assert np.abs(final - mean(starts)).max() <= 0.05 * apart


# --- identical


@claiming("identical")
def test_all_replicas_are_equal_after_every_step(
    world: Ranks, size: int, kind: str
) -> None:
    walks = world.together(size, lambda fabric: walk(fabric, kind, steps=6))
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
        return walk(fabric, kind, budget=budget, slowdown=uneven)

    counts = {len(w.models) for w in world.together(size, work)}
    assert len(counts) == 1
    assert counts.pop() > 2


@claiming("synchronous")
def test_mpi_and_virtual_time_give_the_same_models(
    world: Ranks, size: int, kind: str
) -> None:
    def work(fabric: Fabric) -> Walk:
        spec = OPTIMIZERS["momentum"]
        return walk(fabric, kind, steps=8, optimizer=spec, compute=0.0)

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
            more = {"start": problem.initial(), "spec": spec, "optimizer": optimizer}
            return walk(fabric, kind, problem=problem, steps=steps, **more)

        return drive

    many = world.together(size, work(batch))
    [one] = World(1).run(work(batch * size))
    for w in many:
        # the same sums in another order: rounding of fourteen steps
        np.testing.assert_allclose(w.models, one.models, rtol=0, atol=1e-12)
    assert np.abs(one.models[-1]).max() > 0.1


# --- traffic


@every
def test_traffic_counted_is_traffic_predicted(
    world: Ranks, size: int, kind: str
) -> None:
    steps = 6
    walks = world.together(size, lambda fabric: walk(fabric, kind, steps=steps))
    models_sent = ALGORITHMS[kind].models_sent
    for rank, w in enumerate(walks):
        assert rank not in w.exchanges
        exchanges = sum(w.exchanges.values())
        sent = exchanges if models_sent is None else models_sent * steps
        if size == 1:
            sent = 0
        for direction in ("out", "in"):
            booked = w.column(f"bytes_{direction}").sum()
            # what a thread does after the last step has been closed is in no step
            late = models_sent is None and w.final.nbytes
            assert sent * w.final.nbytes - late <= booked <= sent * w.final.nbytes
            assert w.column(f"messages_{direction}").sum() * w.final.nbytes == booked
        if w.exchanges and models_sent is not None:
            assert exchanges == sent
    if models_sent is None and size > 1:
        assert any(w.exchanges for w in walks)


@every
def test_spans_add_up_to_the_time_of_every_step(
    world: Ranks, size: int, kind: str
) -> None:
    spans = ("compute", "injected", "moving", "waiting", "mixing", "copying")
    for w in world.together(size, lambda fabric: walk(fabric, kind, steps=6)):
        parts = sum(w.column(name) for name in spans)
        duration = w.column("duration")
        # clocks are read one after the other, never twice for one moment
        assert (parts <= duration + 1e-9).all()
        if world.kind == "virtual":  # nothing else takes virtual time
            locks = w.column("moving") + w.column("waiting") > 0
            assert (parts >= 0.9 * duration)[~locks].all()
        starts = w.column("start")
        np.testing.assert_allclose(
            starts[1:], starts[:-1] + duration[:-1], rtol=0, atol=1e-9
        )
