"""OD-SGD: exactly one step of delay, hidden, on one global model."""

from typing import Any

import numpy as np
import pytest
from driving import Walk, bowl, start_of, walk

from dsgd_bench.arrays import Array
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual.fabric import Network, World
from dsgd_bench.spec.trial import BudgetSpec, OptimizerSpec, SlowdownSpec

LR = 0.2
PLAIN: dict[str, Any] = {"warmup": 0, "local": "none"}


def run(size: int, *, network: Network | None = None, **more: Any) -> Any:
    """Return the walks of the workers, and the global model by version."""
    more = {"compute": 0.01, "optimizer": OptimizerSpec(lr=LR), **more}

    def work(fabric: Fabric) -> Walk:
        return walk(fabric, "odsgd", **more)

    walks = World(size, network).run(work)
    workers = [w for w in walks if not w.serves]
    servers = [w.models for w in walks if w.serves]
    center = [np.sum(parts, axis=0) for parts in zip(*servers, strict=True)]
    return workers, center[:: len(workers)]


def test_one_worker_is_sequential_sgd_bit_for_bit() -> None:
    """With its server or alone, in warm-up and after."""
    optimizer = OptimizerSpec(lr=LR)
    [expected] = World(1).run(
        lambda fabric: walk(fabric, "allreduce", steps=9, optimizer=optimizer)
    )
    for size in (1, 2):
        for warmup in (0, 4, 20):
            settings = {**PLAIN, "warmup": warmup}
            [found], _ = run(size, steps=9, settings=settings)
            np.testing.assert_array_equal(found.models, expected.models)
            np.testing.assert_array_equal(found.final, expected.final)


@pytest.mark.parametrize("local", ["none", "constant", "adaptive"])
def test_the_warm_up_is_ssgd(local: str) -> None:
    more: dict[str, Any] = {"steps": 6, "optimizer": OptimizerSpec(lr=LR, momentum=0.9)}
    ours, _ = run(4, settings={"warmup": 6, "local": local}, **more)
    theirs = World(4).run(lambda fabric: walk(fabric, "ssgd", **more))
    for left, right in zip(ours, theirs[:3], strict=True):
        np.testing.assert_array_equal(left.models, right.models)


def test_the_first_delayed_gradient_is_taken_at_the_true_model() -> None:
    workers, center = run(4, steps=5, settings={**PLAIN, "warmup": 3})
    for w in workers:
        np.testing.assert_array_equal(w.models[3], center[3])
        assert np.abs(w.models[4] - center[4]).max() > 1e-3


def test_every_version_comes_from_gradients_at_the_models_before_it() -> None:
    """x^k+1 = x^k - lr mean g(y_i^k), and y_i^k+1 = x^k - lr g_i^k: one step late."""
    workers, center = run(4, steps=8, settings=PLAIN)
    for k in range(7):
        g = np.array([bowl(rank, k, w.models[k]) for rank, w in enumerate(workers)])
        expected = center[k] - LR * g.mean(axis=0)
        # rounding of one step
        np.testing.assert_allclose(center[k + 1], expected, rtol=0, atol=1e-15)
        for rank, w in enumerate(workers):
            np.testing.assert_allclose(
                w.models[k + 1], center[k] - LR * g[rank], rtol=0, atol=1e-15
            )


def test_local_models_differ_from_the_next_version_by_the_noise_alone() -> None:
    """y_i^k+1 - x^k+1 = lr (mean g - g_i): no step is missing."""
    workers, center = run(5, steps=6, settings=PLAIN)
    for k in range(5):
        g = np.array([w.gradients[k] for w in workers])
        for rank, w in enumerate(workers):
            np.testing.assert_allclose(
                w.models[k + 1] - center[k + 1],
                LR * (g.mean(axis=0) - g[rank]),
                rtol=0,
                atol=1e-15,
            )


def test_without_the_local_update_gradients_are_of_the_model_one_step_back() -> None:
    """The ablation local_lr = 0: SSGD on x^k-1."""
    workers, center = run(4, steps=6, settings={**PLAIN, "local_lr": 0.0})
    for k in range(1, 6):
        for w in workers:
            np.testing.assert_array_equal(w.models[k], center[k - 1])


@pytest.mark.parametrize("local", ["constant", "adaptive"])
def test_local_updates_are_compensated_from_the_previous_global_model(
    local: str,
) -> None:
    """g + lambda g g (x^k - x^k-1), lambda constant or lambda_0 / sqrt(g g + 1e-7)."""
    settings = {"warmup": 2, "local": local, "strength": 0.7}
    workers, center = run(4, steps=7, settings=settings)
    for k in range(2, 6):
        for w in workers:
            g = w.gradients[k]
            scale = 0.7 if local == "constant" else 0.7 / np.sqrt(g * g + 1e-7)
            moved = g + scale * g * g * (center[k] - center[k - 1])
            np.testing.assert_allclose(
                w.models[k + 1], center[k] - LR * moved, rtol=0, atol=1e-14
            )


def test_gradients_are_exactly_one_version_old_after_the_warm_up() -> None:
    workers, _ = run(4, steps=9, settings={**PLAIN, "warmup": 3})
    for w in workers:
        staleness = w.column("staleness")
        # steps 0 to 2 wait; step 3 sends nothing; step 4 sends what step 3 computed
        assert (staleness[:3] == 0).all()
        assert np.isnan(staleness[3])
        assert staleness[4] == 0
        assert (staleness[5:] == 1).all()


def test_nobody_is_more_than_one_step_ahead() -> None:
    slow = SlowdownSpec("transient", factor=8.0, probability=0.3)
    workers, _ = run(5, steps=30, slowdown=slow, settings=PLAIN)
    ends = np.array([w.column("start") + w.column("duration") for w in workers])
    for k in range(28):
        # whoever has ended step k + 2 has had everybody's gradient of step k + 1
        assert ends[:, k + 2].min() >= ends[:, k].max()


@pytest.mark.parametrize("milliseconds", [49, 60, 72])
def test_a_run_may_end_with_its_warm_up(milliseconds: int) -> None:
    """The first step afterwards awaits nobody, so some are a step ahead of rank 0.

    The last step of the warm-up begins after 48 ms and ends 24 ms later, since rank 0
    is slow. The others' next gradient takes less time than the word that all is over,
    so they begin yet another step, and rank 0 must take it, too.
    """
    slow = SlowdownSpec("constant", ranks=(0,), factor=20.0)
    workers, center = run(
        4,
        network=Network(latency=2e-3),
        compute=1e-3,
        budget=BudgetSpec(seconds=milliseconds / 1000),
        slowdown=slow,
        settings={**PLAIN, "warmup": 3},
    )
    assert len({len(w.rows) for w in workers}) == 1
    for w in workers:
        np.testing.assert_allclose(w.final, center[-1], rtol=0, atol=1e-14)


def test_communication_hides_behind_the_gradient() -> None:
    """5 ms each way beside 20 ms cost nothing; SSGD pays both."""

    def step_of(kind: str, settings: dict[str, Any]) -> float:
        def work(fabric: Fabric) -> Walk:
            return walk(fabric, kind, steps=8, compute=0.02, settings=settings)

        walks = World(4, Network(latency=5e-3)).run(work)
        return float(np.median(walks[0].column("duration")))

    assert step_of("odsgd", PLAIN) == pytest.approx(0.02, rel=0.02)
    assert step_of("ssgd", {}) >= 0.03


def test_a_slow_worker_slows_everybody() -> None:
    slow = SlowdownSpec("constant", ranks=(0,), factor=10.0)
    workers, _ = run(5, budget=BudgetSpec(seconds=1.0), slowdown=slow, settings=PLAIN)
    # two steps more than fit, and the gradient that was begun
    assert {len(w.gradients) for w in workers} <= {12, 13}


def test_the_fixed_point_on_quadratics_is_the_optimum() -> None:
    _, center = run(5, steps=600, settings=PLAIN, compute=0.0)
    optimum = np.mean([np.cos(np.arange(7) + rank) for rank in range(4)], axis=0)
    np.testing.assert_allclose(center[-1], optimum, rtol=0, atol=1e-12)


def test_the_last_gradient_is_not_lost() -> None:
    """After closing, the final model holds all of them, on every worker."""
    workers, _ = run(4, steps=5, settings=PLAIN)
    spent = np.mean([w.spent for w in workers], axis=0)
    for w in workers:
        np.testing.assert_allclose(
            w.final, start_of(0) - LR * spent, rtol=0, atol=1e-14
        )


def test_the_server_has_the_momentum_and_the_local_update_none() -> None:
    optimizer = OptimizerSpec(lr=LR, momentum=0.5)
    workers, center = run(4, steps=4, settings=PLAIN, optimizer=optimizer)
    x: Array = start_of(0)
    velocity = np.zeros_like(x)
    for k in range(3):
        g = np.array([w.gradients[k] for w in workers])
        for rank, w in enumerate(workers):
            np.testing.assert_allclose(
                w.models[k + 1], x - LR * g[rank], rtol=0, atol=1e-14
            )
        velocity = 0.5 * velocity + g.mean(axis=0)
        x = x - LR * velocity
        np.testing.assert_allclose(center[k + 1], x, rtol=0, atol=1e-14)
