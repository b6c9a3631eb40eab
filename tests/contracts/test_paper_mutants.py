"""The tests of single algorithms have teeth: the traps of their papers are caught.

Each mutant is a mistake that published implementations have made, or one that a test
exists for; beside it stands the test that it must fail.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import test_algorithms as contracts
import test_dpsgd
import test_easgd
import test_localsgd
import test_odsgd
import test_servers
from conftest import VirtualRanks
from driving import walk

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.algorithms.base import Steps
from dsgd_bench.arrays import Array
from dsgd_bench.errors import FabricError
from dsgd_bench.exchanges.mixer import Mixer
from dsgd_bench.exchanges.parameter_server import Center, SynchronousCenter
from dsgd_bench.fabric.virtual.fabric import World
from dsgd_bench.graphs import Graph
from dsgd_bench.spec.ranges import GraphName, Servers
from dsgd_bench.spec.trial import BudgetSpec, SlowdownSpec

FAILURES = (AssertionError, FabricError)

Breed = Callable[[str, Callable[..., Steps]], None]


@pytest.fixture
def breed(monkeypatch: pytest.MonkeyPatch) -> Breed:
    """Put a generator function in the place of an algorithm, all else as it was."""

    def put(kind: str, steps: Callable[..., Steps]) -> None:
        entry = replace(ALGORITHMS[kind], steps=steps)
        monkeypatch.setitem(ALGORITHMS, kind, entry)

    return put


def fails(promise: Callable[..., None], *arguments: Any) -> None:
    with pytest.raises(FAILURES):
        promise(*arguments)


# --- D-PSGD


def test_row_stochastic_weights_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 / (deg + 1) for everybody in reach: right on regular graphs only."""

    def uniform(graph: Graph) -> Array:
        w = np.eye(graph.size)
        for rank, near in enumerate(graph.neighbors):
            w[rank, list(near)] = 1
        return np.asarray(w / w.sum(axis=1, keepdims=True))

    exact = test_dpsgd.test_fixed_points_on_quadratics_are_the_closed_forms
    monkeypatch.setattr(Graph, "weights", uniform)
    exact("dpsgd", 3, "ring")  # where all degrees are equal nothing is wrong
    fails(exact, "dpsgd", 5, "star")


def test_a_model_updated_while_it_is_being_sent_is_caught(breed: Breed) -> None:
    def steps(x: Array, worker: Any, *, graph: GraphName = "ring") -> Steps:
        g = np.zeros_like(x)
        with Mixer(worker.fabric, x, worker.graph(graph)) as mixer:
            while True:
                yield x
                with mixer.overlapped(x):
                    worker.gradient(x, out=g)
                    worker.update(x, g)

    breed("dpsgd", steps)
    recursion = test_dpsgd.test_models_follow_the_matrix_recursion
    fails(recursion, VirtualRanks(), 4, "dpsgd", "ring")


# --- servers


def server(answer: Callable[..., Array], kind: type[Center] = Center) -> Any:
    """Return a parameter server with an answer of its own."""

    def steps(x: Array, worker: Any, *, servers: Servers = 1) -> Steps:
        g = np.zeros_like(x)

        def mutated(center: Array, gradient: Array, sender: int) -> Array:
            return answer(worker, center, gradient, sender)

        with kind(worker.fabric, x, mutated, servers) as center:
            if worker.serves:
                yield from center.serve()
                return
            while True:
                yield x
                worker.gradient(x, out=g)
                center.exchange(g, into=x)

    return steps


def test_a_server_without_a_bug_passes(breed: Breed) -> None:
    def right(worker: Any, center: Array, gradient: Array, sender: int) -> Array:
        worker.update(center, gradient)
        return center

    breed("asgd", server(right))
    breed("ssgd", server(right, SynchronousCenter))
    test_servers.test_in_lock_step_the_center_follows_the_delayed_recursion(3)
    test_servers.test_the_synchronous_server_walks_as_allreduce_does(2)


def test_every_gradient_at_the_full_rate_is_caught(breed: Breed) -> None:
    """The number that AllReduce-SGD uses means n times more at such a server."""

    def eager(worker: Any, center: Array, gradient: Array, sender: int) -> Array:
        worker.descend(center, gradient, scale=worker.workers)
        return center

    breed("asgd", server(eager))
    moves = contracts.test_the_mean_model_moves_by_the_gradients_of_all
    fails(moves, VirtualRanks(), 4, "asgd")
    moves(VirtualRanks(), 2, "asgd")  # one worker: nothing to be seen


def test_a_gradient_applied_twice_is_caught(breed: Breed) -> None:
    def twice(worker: Any, center: Array, gradient: Array, sender: int) -> Array:
        worker.update(center, gradient)
        if sender == 1:
            worker.update(center, gradient)
        return center

    breed("asgd", server(twice))
    once = test_servers.test_every_gradient_is_applied_once_under_hostile_schedules
    fails(once, "asgd")


def test_a_server_that_does_not_wait_for_all_is_caught(breed: Breed) -> None:
    def right(worker: Any, center: Array, gradient: Array, sender: int) -> Array:
        worker.update(center, gradient)
        return center

    breed("ssgd", server(right))
    fails(test_servers.test_the_synchronous_server_walks_as_allreduce_does, 1)


def test_parts_that_overlap_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last part one element too long, as a published server has it."""
    from dsgd_bench.exchanges import parameter_server

    def overlapping(length: int, servers: range) -> dict[int, slice]:
        each = -(-length // max(1, len(servers)))
        return {
            server: slice(max(0, number * each - 1), min(length, (number + 1) * each))
            for number, server in enumerate(servers)
        }

    monkeypatch.setattr(parameter_server, "_parts", overlapping)
    same = test_servers.test_parts_on_several_servers_make_the_same_model
    fails(same, "asgd", 2)


# --- EASGD


def elastic(answer: Callable[[Array, Array, float], Array]) -> Any:
    """Return EASGD whose exchange is `answer(center, model, alpha)`."""

    def steps(
        x: Array,
        worker: Any,
        *,
        servers: Servers = 1,
        every: int = 1,
        beta: float = 0.9,
    ) -> Steps:
        g, d = np.zeros_like(x), np.zeros_like(x)
        alpha = beta / worker.workers

        def mutated(center: Array, model: Array, sender: int) -> Array:
            return answer(center, model, alpha)

        with Center(worker.fabric, x, mutated, servers) as center:
            if worker.serves:
                yield from center.serve()
                return
            while True:
                yield x
                with center.exchanging(x, into=d):
                    worker.gradient(x, out=g)
                worker.update(x, g)
                x -= d

    return steps


def test_two_different_differences_are_caught(breed: Breed) -> None:
    """The center moves first, and the worker by what is left of the difference."""

    def two(center: Array, model: Array, alpha: float) -> Array:
        center += alpha * (model - center)
        return np.asarray(alpha * (model - center))

    breed("easgd", elastic(two))
    conserves = test_easgd.test_an_exchange_conserves_the_sum_of_models_and_center
    fails(conserves, "easgd")
    fails(test_easgd.test_the_elastic_force_uses_one_difference_for_both_ends)


def test_a_local_step_left_out_when_exchanging_is_caught(breed: Breed) -> None:
    def steps(
        x: Array,
        worker: Any,
        *,
        servers: Servers = 1,
        every: int = 1,
        beta: float = 0.9,
    ) -> Steps:
        g, d = np.zeros_like(x), np.zeros_like(x)

        def answer(center: Array, model: Array, sender: int) -> Array:
            model -= center
            model *= beta / worker.workers
            center += model
            return model

        with Center(worker.fabric, x, answer, servers) as center:
            if worker.serves:
                yield from center.serve()
                return
            while True:
                yield x
                worker.gradient(x, out=g)
                center.exchange(x, into=d)
                x -= d

    breed("easgd", steps)
    fails(test_easgd.test_the_model_that_is_sent_is_the_one_before_the_local_step)


# --- OD-SGD


def delayed(update: Callable[..., None], *, waits: bool = False) -> Any:
    """Return OD-SGD without warm-up whose local update is `update`."""

    def steps(
        x: Array, worker: Any, *, servers: Servers = 1, warmup: int = 0, local: str = ""
    ) -> Steps:
        g, sent, latest = np.zeros_like(x), np.zeros_like(x), x.copy()

        def answer(center: Array, gradient: Array, sender: int) -> Array:
            worker.update(center, gradient)
            return center

        with SynchronousCenter(worker.fabric, x, answer, servers) as center:
            if worker.serves:
                yield from center.serve()
                return
            yield x
            worker.gradient(x, out=g)
            while True:
                sent[:] = g
                update(worker, x, latest, g)
                yield x
                if waits:
                    center.exchange(sent, into=latest)
                    worker.gradient(x, out=g)
                else:
                    with center.exchanging(sent, into=latest):
                        worker.gradient(x, out=g)

    return steps


def from_the_global_model(worker: Any, x: Array, latest: Array, g: Array) -> None:
    x[:] = latest
    worker.descend(x, g)


def test_od_sgd_without_a_bug_passes(breed: Breed) -> None:
    breed("odsgd", delayed(from_the_global_model))
    test_odsgd.test_every_version_comes_from_gradients_at_the_models_before_it()
    test_odsgd.test_communication_hides_behind_the_gradient()


def test_local_updates_that_add_up_are_caught(breed: Breed) -> None:
    """Local SGD by mistake: the update starts from the local model."""

    def piling_up(worker: Any, x: Array, latest: Array, g: Array) -> None:
        worker.descend(x, g)

    breed("odsgd", delayed(piling_up))
    fails(test_odsgd.test_every_version_comes_from_gradients_at_the_models_before_it)


def test_an_exchange_that_does_not_hide_is_caught(breed: Breed) -> None:
    breed("odsgd", delayed(from_the_global_model, waits=True))
    test_odsgd.test_every_version_comes_from_gradients_at_the_models_before_it()
    fails(test_odsgd.test_communication_hides_behind_the_gradient)


# --- Local SGD


def test_averaging_gradients_instead_of_models_is_caught(breed: Breed) -> None:
    def steps(x: Array, worker: Any, *, every: int = 8) -> Steps:
        g = np.zeros_like(x)
        step = 0
        while True:
            yield x
            worker.gradient(x, out=g)
            step += 1
            if step % every == 0:
                worker.fabric.average(g)
            worker.update(x, g)

    breed("localsgd", steps)
    equal = (
        test_localsgd.test_models_are_equal_after_every_averaging_and_alone_in_between
    )
    fails(equal, VirtualRanks(), 3, 2)


def test_a_bound_on_running_ahead_that_is_too_small_is_caught(breed: Breed) -> None:
    """Ranks that meet every fifth step only, but claim to meet in every one."""
    right = ALGORITHMS["localsgd"].steps

    def claiming(lead: int) -> Any:
        def steps(x: Array, worker: Any, *, every: int = 8) -> Steps:
            for model in right(x, worker, every=5):
                worker.lead = lead
                yield model

        return steps

    def run() -> set[int]:
        slow = SlowdownSpec("constant", ranks=(0,), factor=3.0)
        counts = set()
        for milliseconds in range(50, 70):
            budget = BudgetSpec(seconds=milliseconds / 1000)
            walks = World(3).run(
                partial(walk, algorithm="localsgd", budget=budget, slowdown=slow)
            )
            counts.add(len({len(w.models) for w in walks}))
        return counts

    breed("localsgd", claiming(5))
    assert run() == {1}
    breed("localsgd", claiming(1))
    with pytest.raises(FAILURES):
        assert run() == {1}
