"""SWIFT: D-PSGD in lock step, SGD alone, and the age of every model that it mixes."""

from typing import Any

import numpy as np
import pytest
from conftest import Ranks
from driving import Walk, bowl, start_of, walk

from dsgd_bench import graphs
from dsgd_bench.arrays import Array
from dsgd_bench.errors import ConfigError
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual.fabric import Network, World
from dsgd_bench.spec.trial import SlowdownSpec

LR = 0.1


def in_lock_step(size: int, steps: int, **settings: Any) -> list[Walk]:
    """Gradients of 3 ms, messages of microseconds: all of a step have arrived."""

    def work(fabric: Fabric) -> Walk:
        start = start_of(fabric.rank)
        return walk(fabric, "swift", start=start, steps=steps, settings=settings)

    return World(size).run(work)


@pytest.mark.parametrize("graph", ["ring", "complete", "star"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8])
def test_in_lock_step_it_is_the_paper_form_of_dpsgd(size: int, graph: str) -> None:
    """X <- W X - lr G(X), with Metropolis-Hastings weights."""
    w = graphs.make(graph, size).weights()
    x = np.array([start_of(rank) for rank in range(size)])
    walks = in_lock_step(size, 6, graph=graph)
    for k in range(6):
        x = w @ x - LR * np.array([bowl(rank, k, x[rank]) for rank in range(size)])
        for rank, walked in enumerate(walks):
            # sums in another order: rounding of six steps
            np.testing.assert_allclose(
                walked.models[k + 1], x[rank], rtol=0, atol=1e-14
            )
    for walked in walks:
        np.testing.assert_array_equal(walked.final, walked.models[-1])


def test_in_lock_step_it_equals_the_algorithm_dpsgd() -> None:
    def work(fabric: Fabric) -> Walk:
        return walk(fabric, "dpsgd", start=start_of(fabric.rank), steps=6)

    for one, other in zip(in_lock_step(5, 6), World(5).run(work), strict=True):
        np.testing.assert_allclose(one.models, other.models, rtol=0, atol=1e-14)


def test_every_c_s_th_step_mixes_and_the_others_are_plain() -> None:
    w = graphs.make("ring", 4).weights()
    x = np.array([start_of(rank) for rank in range(4)])
    walks = in_lock_step(4, 7, every=3)
    for k in range(7):
        g = np.array([bowl(rank, k, x[rank]) for rank in range(4)])
        x = (w @ x if k in (2, 5) else x) - LR * g
        for rank, walked in enumerate(walks):
            np.testing.assert_allclose(
                walked.models[k + 1], x[rank], rtol=0, atol=1e-14
            )
    for walked in walks:
        # a model is sent in every step; notes are made where models are averaged
        np.testing.assert_array_equal(walked.column("messages_out"), 2.0)
        noted = np.isfinite(walked.column("staleness"))
        assert noted.tolist() == [k in (2, 5) for k in range(7)]


def test_a_worker_without_neighbors_runs_sgd(world: Ranks) -> None:
    [walked] = world.together(1, lambda fabric: walk(fabric, "swift", steps=6))
    x = start_of(0)
    for k in range(6):
        x = x - LR * bowl(0, k, x)
        # 1 x is x; the step may round in another order
        np.testing.assert_allclose(walked.models[k + 1], x, rtol=0, atol=1e-15)
    assert np.isnan(walked.column("staleness")).all()


# --- ages


def test_stamps_give_the_age_of_the_models_averaged() -> None:
    """A message takes 9 ms, a gradient 2 ms: payload, stamp and version, 3 ms each.

    So a model of step k is there in step k + 4, and three of four are left out, since
    the one before is still under way.
    """

    def work(fabric: Fabric) -> Walk:
        return walk(fabric, "swift", steps=13, compute=2e-3)

    for walked in World(2, Network(latency=3e-3)).run(work):
        # in lock step, of models sent in steps 0, 5, 10: there 9 ms later
        age = walked.column("age")
        assert age[0] == 0.0  # the initial model
        stamps = np.arange(13) - age
        assert (np.diff(stamps) >= 0).all()
        assert set(stamps) <= {0.0, 5.0, 10.0}
        assert age.max() >= 4.0
        np.testing.assert_array_equal(walked.column("staleness"), age)
        assert walked.counts["unpublished"] > 0


def test_a_slow_worker_slows_nobody_and_its_models_are_old(world: Ranks) -> None:
    size = min(4, world.most)

    def work(fabric: Fabric) -> Walk:
        slow = SlowdownSpec("constant", ranks=(0,), factor=6.0)
        steps = 5 if fabric.rank == 0 else 30
        return walk(fabric, "swift", steps=steps, slowdown=slow)

    slow, *others = world.together(size, work)
    for walked in others:
        assert walked.column("waiting").sum() == 0.0
        if world.kind == "virtual":
            np.testing.assert_allclose(walked.column("duration"), 3e-3, rtol=0.01)
    if world.kind == "virtual":
        # the slow one has taken a sixth of the steps of its neighbors
        assert max(w.column("staleness").max() for w in others) >= 20
        # for itself, the neighbors' models come from later steps
        assert slow.column("age").min() < 0
        assert (slow.column("staleness") == 0).all()


def test_models_of_later_steps_are_whole(world: Ranks, size: int) -> None:
    """All models are constant vectors, so every mixture of whole ones is one."""

    def work(fabric: Fabric) -> Walk:
        start = np.full(9, float(fabric.rank))
        more: dict[str, Any] = {
            "start": start,
            "steps": 25,
            "settings": {"graph": "complete"},
        }
        return walk(fabric, "swift", slope=lambda r, k, x: 1.0 + r + k, **more)

    walks = world.together(size, work, jitter=3.0, pieces=2, bandwidth=1e5)
    for walked in walks:
        models = np.array(walked.models)
        assert (models == models[:, :1]).all()


@pytest.mark.parametrize("graph", ["exponential", "one-peer-exponential"])
def test_a_directed_graph_is_refused_by_name(graph: str) -> None:
    def work(fabric: Fabric) -> Walk:
        return walk(fabric, "swift", settings={"graph": graph})

    with pytest.raises(ConfigError, match=f"'{graph}', which is directed"):
        World(5).run(work)


def test_the_mean_model_is_not_conserved_and_workers_still_agree(
    world: Ranks, size: int
) -> None:
    """Without gradients the models meet, somewhere between where they began."""

    def work(fabric: Fabric) -> Array:
        start = start_of(fabric.rank)
        slow = SlowdownSpec("transient", factor=3.0, probability=0.5)
        more: dict[str, Any] = {"start": start, "steps": 120, "slowdown": slow}
        return walk(fabric, "swift", slope=lambda *_: 0.0, **more).final

    final = np.array(world.together(size, work))
    starts = np.array([start_of(rank) for rank in range(size)])
    assert (final <= starts.max(0) + 1e-12).all()
    assert (final >= starts.min(0) - 1e-12).all()
    if world.kind == "virtual":
        # 120 rounds on a ring of eight, older models included
        assert np.ptp(final, axis=0).max() < 0.02 * np.ptp(starts, axis=0).max() + 1e-12
