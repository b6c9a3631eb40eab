"""D-PSGD in both forms, against the matrix recursion and the exact fixed points."""

from typing import Any

import numpy as np
import pytest
from conftest import Ranks
from driving import Walk, flat, start_of, walk

from dsgd_bench import graphs
from dsgd_bench.arrays import Array
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual.fabric import World
from dsgd_bench.spec.trial import OptimizerSpec

LR, CURVATURE = 0.2, 0.7
FORMS = ("dpsgd", "dpsgd-atc")

both = pytest.mark.parametrize("kind", FORMS)


def centers(size: int) -> Array:
    return np.array([np.cos(np.arange(7) + rank) for rank in range(size)])


def bowls(rank: int, step: int, x: Array) -> Array:
    """f_i(x) = a/2 ||x - c_i||^2."""
    return CURVATURE * (x - np.cos(np.arange(x.size) + rank))


def run(world: Any, size: int, kind: str, *, graph: str, **more: Any) -> list[Walk]:
    def work(fabric: Fabric) -> Walk:
        options: dict[str, Any] = {"slope": bowls, "steps": 12} | more
        return walk(
            fabric,
            kind,
            settings={"graph": graph},
            optimizer=OptimizerSpec(lr=LR),
            start=start_of(fabric.rank),
            **options,
        )

    return world.together(size, work)


def stacked(walks: list[Walk]) -> Array:
    """Return all models, shape (steps + 1, ranks, dim)."""
    return np.array([w.models for w in walks]).swapaxes(0, 1)


@pytest.mark.parametrize("graph", ["ring", "complete", "star", "torus"])
@both
def test_models_follow_the_matrix_recursion(
    world: Ranks, size: int, kind: str, graph: str
) -> None:
    """X <- X W - lr G(X), or X <- (X - lr G(X)) W; X has a model per row here."""
    found = stacked(run(world, size, kind, graph=graph))
    w = graphs.make(graph, size).weights()
    x = found[0]
    for step in range(1, len(found)):
        g = CURVATURE * (x - centers(size))
        x = w @ x - LR * g if kind == "dpsgd" else w @ (x - LR * g)
        # rounding of a dozen steps on models of size one
        np.testing.assert_allclose(found[step], x, rtol=0, atol=1e-13)


def test_adapt_then_combine_on_a_complete_graph_is_allreduce(
    world: Ranks, size: int
) -> None:
    def work(fabric: Fabric) -> tuple[Walk, Walk]:
        ours = walk(fabric, "dpsgd-atc", slope=bowls, settings={"graph": "complete"})
        return ours, walk(fabric, "allreduce", slope=bowls)

    for ours, theirs in world.together(size, work):
        # the mean of models instead of gradients: rounding
        np.testing.assert_allclose(ours.models, theirs.models, rtol=0, atol=1e-14)


@both
def test_without_gradients_the_disagreement_shrinks_by_the_spectral_gap(
    world: Ranks, size: int, kind: str
) -> None:
    found = stacked(run(world, size, kind, graph="ring", slope=flat))
    apart = ((found - found.mean(axis=1, keepdims=True)) ** 2).sum(axis=(1, 2))
    second = 1 - graphs.make("ring", size).spectral_gap()
    # rounding, also where a single averaging already makes all equal
    assert (apart[1:] <= second**2 * apart[:-1] * (1 + 1e-9) + 1e-28).all()


@pytest.mark.parametrize("graph", ["ring", "star"])
@pytest.mark.parametrize("size", [2, 3, 5, 8])
@both
def test_fixed_points_on_quadratics_are_the_closed_forms(
    kind: str, size: int, graph: str
) -> None:
    """The mean is exact; along every eigenvector of W the models differ by O(lr)."""

    def work(fabric: Fabric) -> Walk:
        optimizer = OptimizerSpec(lr=LR)
        more: dict[str, Any] = {"optimizer": optimizer, "settings": {"graph": graph}}
        return walk(fabric, kind, slope=bowls, steps=400, compute=0.0, **more)

    final = np.array([w.final for w in World(size).run(work)])
    eigenvalues, vectors = np.linalg.eigh(graphs.make(graph, size).weights())
    step = LR * CURVATURE
    projected = vectors.T @ centers(size)
    gain = {
        "dpsgd": step / (1 - eigenvalues + step),
        "dpsgd-atc": step * eigenvalues / (1 - (1 - step) * eigenvalues),
    }[kind]
    # 0.86**400 of the start is left, and rounding
    np.testing.assert_allclose(
        vectors.T @ final, gain[:, None] * projected, rtol=0, atol=1e-12
    )
    np.testing.assert_allclose(
        final.mean(axis=0), centers(size).mean(axis=0), rtol=0, atol=1e-12
    )


def test_uneven_curvatures_bias_the_mean_by_about_the_learning_rate() -> None:
    """Curvatures a_i that differ: the error of the mean halves with lr."""
    size = 4

    def slope(rank: int, step: int, x: Array) -> Array:
        return (0.3 + 0.2 * rank) * (x - np.cos(np.arange(x.size) + rank))

    def error(lr: float) -> float:
        def work(fabric: Fabric) -> Walk:
            more: dict[str, Any] = {
                "optimizer": OptimizerSpec(lr=lr),
                "settings": {"graph": "ring"},
            }
            return walk(fabric, "dpsgd", slope=slope, steps=900, compute=0.0, **more)

        final = np.mean([w.final for w in World(size).run(work)], axis=0)
        a = 0.3 + 0.2 * np.arange(size)
        optimum = (a[:, None] * centers(size)).sum(axis=0) / a.sum()
        return float(np.abs(final - optimum).max())

    coarse, fine = error(0.08), error(0.04)
    assert coarse > 1e-4
    assert 0.4 < fine / coarse < 0.6


def test_the_exchange_of_the_paper_form_hides_behind_the_gradient() -> None:
    """A transfer of 5 ms beside a gradient of 20 ms costs nothing; after it, 5 ms."""

    def step_of(kind: str) -> float:
        def work(fabric: Fabric) -> float:
            more: dict[str, Any] = {"compute": 0.02, "settings": {"graph": "ring"}}
            return float(walk(fabric, kind, steps=5, **more).column("duration").mean())

        from dsgd_bench.fabric.virtual.fabric import Network

        return max(World(4, Network(latency=5e-3)).run(work))

    assert step_of("dpsgd") == pytest.approx(0.020, rel=0.02)
    assert step_of("dpsgd-atc") == pytest.approx(0.025, rel=0.02)


@both
def test_waiting_is_booked_for_the_neighbor_that_was_late(kind: str) -> None:
    def work(fabric: Fabric) -> Walk:
        from dsgd_bench.spec.trial import SlowdownSpec

        slow = SlowdownSpec("constant", ranks=(1,), factor=4.0)
        more: dict[str, Any] = {
            "slowdown": slow,
            "compute": 0.01,
            "settings": {"graph": "ring"},
        }
        return walk(fabric, kind, steps=6, **more)

    walks = World(4).run(work)
    for rank in (0, 2):
        assert (walks[rank].column("waited_for")[1:] == 1).all()
        # in the steady state a step lasts 40 ms, of which 10 are computing
        waiting = walks[rank].column("waiting")[2:]
        np.testing.assert_allclose(waiting, 0.03, rtol=0.02)
    assert walks[1].column("waiting").sum() < 1e-4
