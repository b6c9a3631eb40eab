"""EASGD and EAMSGD: one difference for both ends, and the closed form on quadratics."""

from typing import Any

import numpy as np
import pytest
from driving import Walk, bowl, flat, start_of, walk

from dsgd_bench.arrays import Array
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual.fabric import Network, World
from dsgd_bench.spec.trial import OptimizerSpec, SlowdownSpec

BOTH = ("easgd", "eamsgd")

both = pytest.mark.parametrize("kind", BOTH)


def run(size: int, kind: str, seed: int = 0, **more: Any) -> list[Walk]:
    network = more.pop("network", None)

    def work(fabric: Fabric) -> Walk:
        return walk(fabric, kind, **({"compute": 0.01} | more))

    return World(size, network, seed).run(work)


def ends(walks: list[Walk]) -> tuple[Array, Array]:
    """Return the final models of the workers, and the center."""
    models = np.array([w.final for w in walks if not w.serves])
    return models, np.sum([w.final for w in walks if w.serves], axis=0)


@both
def test_an_exchange_conserves_the_sum_of_models_and_center(kind: str) -> None:
    """Under hostile schedules too; only gradients move the sum, each by -lr g."""
    for seed in range(100):
        walks = run(
            3 + seed % 4,
            kind,
            seed,
            network=Network(latency=2e-6, bandwidth=2e7, jitter=3.0),
            slowdown=SlowdownSpec("transient", factor=3.0, probability=0.5),
            steps=4,
            compute=1e-5,
            settings={"servers": 1 + seed % 2, **({"mu": 0.0} if "m" in kind else {})},
        )
        models, center = ends(walks)
        spent = sum(w.spent for w in walks)
        total = (len(models) + 1) * start_of(0) - 0.1 * spent
        # rounding of some dozen exchanges
        np.testing.assert_allclose(
            models.sum(axis=0) + center, total, rtol=0, atol=1e-13, err_msg=f"{seed}"
        )


@both
def test_without_gradients_all_come_to_the_common_mean(kind: str) -> None:
    """(sum x_i + c) / (n + 1): the models start apart, the center as the servers do."""

    def work(fabric: Fabric) -> Walk:
        start = start_of(fabric.rank)
        return walk(fabric, kind, slope=flat, steps=200, start=start, compute=0.01)

    models, center = ends(World(5).run(work))
    expected = np.mean([start_of(rank) for rank in range(5)], axis=0)
    # alpha = 0.225: the slowest mode keeps 0.775 or less per exchange
    np.testing.assert_allclose(models, np.tile(expected, (4, 1)), rtol=0, atol=1e-9)
    np.testing.assert_allclose(center, expected, rtol=0, atol=1e-9)


@both
def test_without_a_force_everybody_is_alone(kind: str) -> None:
    settings = {"beta": 0.0} | ({"mu": 0.5} if kind == "eamsgd" else {})
    walks = run(4, kind, steps=6, settings=settings)
    [alone] = World(1).run(
        lambda fabric: walk(fabric, kind, steps=6, settings=settings)
    )
    np.testing.assert_array_equal(walks[0].models, alone.models)
    np.testing.assert_array_equal(ends(walks)[1], start_of(0))


@pytest.mark.parametrize("every", [1, 3])
def test_the_fixed_point_on_quadratics(every: int) -> None:
    """x_i = (lr a c_i + alpha c) / (lr a + alpha) and c = mean c_i, for H = 1.

    With everybody at the fixed point the differences cancel, so in lock step the order
    in which the server takes them matters by O(alpha d) only.
    """
    workers, lr, beta = 4, 0.2, 0.1
    alpha, step = beta / workers, lr * 0.5

    walks = run(
        workers + 1,
        "easgd",
        steps=600,
        slope=bowl,
        compute=0.001,
        optimizer=OptimizerSpec(lr=lr),
        settings={"beta": beta, "every": every},
    )
    models, center = ends(walks)
    c = np.array([np.cos(np.arange(7) + rank) for rank in range(workers)])
    # sequential arrival: within a round the center moves by up to alpha per worker,
    # times the differences, which are below 1
    moves = workers * alpha
    np.testing.assert_allclose(center, c.mean(axis=0), rtol=0, atol=moves)
    if every == 1:
        expected = (step * c + alpha * center) / (step + alpha)
        slack = alpha / (step + alpha) * moves
        np.testing.assert_allclose(models, expected, rtol=0, atol=slack)
        assert slack < 0.1 * np.abs(models - center).max()


def test_the_fixed_point_of_two_workers_that_take_turns_is_exact() -> None:
    """Worker 1 meets a center that worker 0 has just moved: four linear equations.

        lr a (x_i - c_i) + d_i = 0,   d_0 = alpha (x_0 - c),   d_1 = alpha (x_1 - c'),
        c' = c + d_0,   d_0 + d_1 = 0

    The last one says that the mean of x_0 and x_1 is that of c_0 and c_1, exactly.
    """
    lr, alpha = 0.2, 0.3
    step = 0.5 * lr  # of `bowl`

    walks = run(
        3,
        "easgd",
        steps=800,
        optimizer=OptimizerSpec(lr=lr),
        settings={"beta": 2 * alpha},
        # less than a step in all, so that the turns stay what they are
        slowdown=SlowdownSpec("constant", ranks=(1,), factor=1.0005),
    )
    models, center = ends(walks)
    matrix = [
        [step + alpha, 0.0, -alpha, 0.0],
        [0.0, step + alpha, 0.0, -alpha],
        [-alpha, 0.0, alpha - 1, 1.0],
        [alpha, alpha, -alpha, -alpha],
    ]
    c = np.array([np.cos(np.arange(7) + rank) for rank in range(2)])
    expected = np.linalg.solve(matrix, [step * c[0], step * c[1], 0 * c[0], 0 * c[0]])
    # 0.94**800 of the start is left, and rounding
    np.testing.assert_allclose(models, expected[:2], rtol=0, atol=1e-13)
    np.testing.assert_allclose(center, expected[2], rtol=0, atol=1e-13)
    np.testing.assert_allclose(models.mean(0), c.mean(0), rtol=0, atol=1e-13)


def test_the_elastic_force_uses_one_difference_for_both_ends() -> None:
    """One worker, one exchange by hand: x = 3, c = 1, alpha = 0.5, no gradient."""

    def work(fabric: Fabric) -> Walk:
        start = np.full(2, 1.0 if fabric.rank else 3.0)
        settings = {"beta": 0.5}
        return walk(
            fabric, "easgd", slope=flat, steps=1, start=start, settings=settings
        )

    models, center = ends(World(2).run(work))
    np.testing.assert_array_equal(models, [[2.0, 2.0]])
    np.testing.assert_array_equal(center, [2.0, 2.0])


def test_the_model_that_is_sent_is_the_one_before_the_local_step() -> None:
    """x = c = 1 at the start: the first d is zero though a gradient is computed."""
    walks = run(2, "easgd", steps=1, slope=lambda *_: 1.0)
    models, center = ends(walks)
    np.testing.assert_allclose(models[0], start_of(0) - 0.1, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(center, start_of(0))


def test_momentum_is_nesterovs_at_the_model_ahead() -> None:
    """v <- mu v - lr g(x + mu v), x <- x + v, without a force; three steps by hand."""
    settings = {"beta": 0.0, "mu": 0.5}
    [found] = World(1).run(
        lambda fabric: walk(fabric, "eamsgd", steps=3, slope=bowl, settings=settings)
    )
    x, v = start_of(0), np.zeros(7)
    for model in found.models[1:]:
        v = 0.5 * v - 0.1 * bowl(0, 0, x + 0.5 * v)
        x = x + v
        np.testing.assert_allclose(model, x, rtol=0, atol=1e-15)


@both
def test_a_model_is_sent_every_so_many_steps(kind: str) -> None:
    walks = run(3, kind, steps=6, settings={"every": 3})
    for w in walks:
        per_worker = [56, 0, 0, 56, 0, 0]
        expected = 4 * 56 if w.serves else per_worker
        booked = w.column("bytes_out")
        np.testing.assert_array_equal(booked.sum() if w.serves else booked, expected)
