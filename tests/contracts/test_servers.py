"""Parameter servers: every gradient counts once, delays are exact, parts add up."""

from typing import Any

import numpy as np
import pytest
from conftest import Ranks
from driving import DIMENSION, Walk, bowl, flat, start_of, walk

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.algorithms.compensation import Compensation
from dsgd_bench.arrays import Array
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual.fabric import Network, World
from dsgd_bench.spec.trial import OptimizerSpec, SlowdownSpec

SERVED = [name for name, a in ALGORITHMS.items() if "center" in a.traits]


def run(size: int, kind: str, *, network: Network | None = None, **more: Any) -> Any:
    """Return the walks of the workers, and the center as it was after each message."""

    def work(fabric: Fabric) -> Walk:
        return walk(fabric, kind, **({"compute": 0.01} | more))

    walks = World(size, network).run(work)
    servers = [w for w in walks if w.serves]
    parts = zip(*(w.models for w in servers), strict=True)
    center = [np.sum(each, axis=0) for each in parts]
    return [w for w in walks if not w.serves], center


# --- SSGD


@pytest.mark.parametrize("servers", [1, 2, 3])
def test_the_synchronous_server_walks_as_allreduce_does(servers: int) -> None:
    workers, _ = run(3 + servers, "ssgd", steps=9, settings={"servers": servers})
    expected = World(3).run(lambda fabric: walk(fabric, "allreduce", steps=9))
    for ours, theirs in zip(workers, expected, strict=True):
        # one divides by n before, one after adding up: rounding of nine steps
        np.testing.assert_allclose(ours.models, theirs.models, rtol=0, atol=1e-14)


def test_who_is_answered_first_sends_while_the_others_are_answered() -> None:
    """Models of 10 ms: three answers, one after the other, then the last gradient."""
    network = Network(latency=0.0, bandwidth=DIMENSION * 8 / 0.01)
    more: dict[str, Any] = {
        "network": network,
        "compute": 0.0,
        "slope": flat,
        "steps": 6,
    }
    workers, _ = run(4, "ssgd", **more)
    for number, w in enumerate(workers):
        begun = w.column("start")[2:]
        # a header, of 6 ms here, goes beside its model
        np.testing.assert_allclose(np.diff(begun), 0.04, rtol=0, atol=1e-3)
        later = begun - workers[0].column("start")[2:]
        np.testing.assert_allclose(later, 0.01 * number, rtol=0, atol=1e-3)


def test_momentum_lives_at_the_server(world: Ranks, size: int) -> None:
    optimizer = OptimizerSpec(lr=0.1, momentum=0.9)

    def work(fabric: Fabric) -> list[Array]:
        return walk(fabric, "ssgd", steps=9, optimizer=optimizer).models

    models = world.together(size, work)[0]
    count = max(1, size - 1)
    expected = World(count).run(
        lambda fabric: walk(fabric, "allreduce", steps=9, optimizer=optimizer).models
    )[0]
    np.testing.assert_allclose(models, expected, rtol=0, atol=1e-13)


# --- ASGD


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_in_lock_step_every_gradient_is_as_many_versions_old_as_there_are_others(
    workers: int,
) -> None:
    """After the first round, in which the k-th to arrive is k versions old."""
    walks, _ = run(workers + 1, "asgd", steps=6)
    for w in walks:
        assert (w.column("staleness")[1:] == workers - 1).all()
    first = sorted(w.column("staleness")[0] for w in walks)
    assert first == list(range(workers))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_in_lock_step_the_center_follows_the_delayed_recursion(workers: int) -> None:
    """x_t+1 = x_t - eta a (x_t-n+1 - c): round robin, all gradients one round old."""
    rate = 0.8
    optimizer = OptimizerSpec(lr=rate)
    _, center = run(
        workers + 1,
        "asgd",
        steps=8,
        slope=lambda rank, step, x: 0.5 * x,
        optimizer=optimizer,
    )
    x = [center[0]]
    for t in range(len(center) - 1):
        read = max(0, t - workers + 1)
        x.append(x[t] - rate / workers * 0.5 * x[read])
    np.testing.assert_allclose(center, x, rtol=0, atol=1e-14)


def test_delays_cost_accuracy() -> None:
    """At one rate per gradient, the more workers the further from the optimum."""

    def left(workers: int) -> float:
        optimizer = OptimizerSpec(lr=0.9, raw_lr=True)
        more: dict[str, Any] = {
            "slope": lambda rank, step, x: 0.5 * x,
            "optimizer": optimizer,
        }
        _, center = run(workers + 1, "asgd", steps=24 // workers, **more)
        return float(np.abs(center[24]).max())

    assert left(1) < left(2) < left(4) < left(8)


@pytest.mark.parametrize("kind", SERVED)
@pytest.mark.parametrize("servers", [2, 3, DIMENSION + 2])
def test_parts_on_several_servers_make_the_same_model(kind: str, servers: int) -> None:
    """Also where there are more servers than elements.

    No two gradients take equally long, so they arrive in one order everywhere.
    """
    more: dict[str, Any] = {
        "steps": 5,
        "slowdown": SlowdownSpec("heavy-tailed", factor=2.0),
    }
    one, _ = run(4, kind, **more)
    many, _ = run(3 + servers, kind, settings={"servers": servers}, **more)
    for ours, theirs in zip(many, one, strict=True):
        np.testing.assert_array_equal(ours.models, theirs.models)


@pytest.mark.parametrize("kind", ["asgd", "ssgd", "odsgd"])
def test_every_gradient_is_applied_once_under_hostile_schedules(kind: str) -> None:
    for seed in range(300):
        size, servers = 3 + seed % 4, 1 + seed % 2

        def work(fabric: Fabric, servers: int = servers) -> Walk:
            slow = SlowdownSpec("transient", factor=3.0, probability=0.5)
            settings: dict[str, Any] = {"servers": servers}
            if "warmup" in ALGORITHMS[kind].settings:
                settings["warmup"] = 1
            more: dict[str, Any] = {
                "slowdown": slow,
                "compute": 1e-5,
                "settings": settings,
            }
            return walk(fabric, kind, steps=4, **more)

        network = Network(latency=2e-6, bandwidth=2e7, jitter=3.0)
        walks = World(size, network, seed).run(work)
        spent = np.mean([w.spent for w in walks if not w.serves], axis=0)
        center = np.sum([w.final for w in walks if w.serves], axis=0)
        # rounding of some twenty gradients
        np.testing.assert_allclose(
            center, start_of(0) - 0.1 * spent, rtol=0, atol=1e-13, err_msg=f"{seed}"
        )


def test_a_slow_worker_holds_up_only_the_synchronous_server() -> None:
    """And its own gradients are the ones that come late."""
    slow = SlowdownSpec("constant", ranks=(0,), factor=10.0)

    def steps_done(kind: str) -> list[int]:
        from dsgd_bench.spec.trial import BudgetSpec

        walks, _ = run(5, kind, budget=BudgetSpec(seconds=1.0), slowdown=slow)
        late = walks[0].column("staleness")
        if kind == "asgd":
            # ten rounds of the three others while it computes
            assert late[1:].min() >= 25
            assert np.median(walks[1].column("staleness")) <= 3
        return [len(w.gradients) for w in walks]

    assert steps_done("asgd") == pytest.approx([10, 100, 100, 100], abs=2)
    assert steps_done("ssgd") == pytest.approx([10] * 4, abs=2)


def test_waiting_at_a_busy_server_is_booked_as_waiting() -> None:
    """Messages of 10 ms that arrive at once: a worker waits for those before it."""
    network = Network(latency=0.0, bandwidth=DIMENSION * 8 / 0.01)
    workers, _ = run(5, "asgd", steps=4, network=network, slope=flat)
    for w in workers:
        assert (w.column("waiting") + w.column("transfer") > 0.019).all()


# --- DC-ASGD


def test_without_compensation_it_is_asgd() -> None:
    plain, center = run(4, "asgd", steps=6)
    ours, same = run(4, "dcasgd", steps=6, settings={"strength": 0.0})
    np.testing.assert_array_equal(center, same)
    for left, right in zip(ours, plain, strict=True):
        np.testing.assert_array_equal(left.models, right.models)


@pytest.mark.parametrize("variant", ["constant", "adaptive"])
def test_one_worker_has_nothing_to_compensate(variant: str) -> None:
    """x is what was sent to it: alone with its server, or worker and server at once."""
    [expected] = World(1).run(lambda fabric: walk(fabric, "allreduce", steps=6))
    for size in (1, 2):
        [found], _ = run(size, "dcasgd", steps=6, settings={"variant": variant})
        np.testing.assert_allclose(found.models, expected.models, rtol=0, atol=1e-14)


def test_a_sequence_of_two_workers_computed_by_hand() -> None:
    """lr = 0.2, so eta = 0.1; lambda = 0.5; slopes 2 and 3; both start at x = 1.

    The first arrival moves x by -0.2 to 0.8 (nothing to compensate). The second one's
    gradient is 3 + 0.5 * 9 * (0.8 - 1) = 2.1: x = 0.59. Then slope 2 again, taken at
    0.8: 2 + 0.5 * 4 * (0.59 - 0.8) = 1.58: x = 0.432.
    """
    _, center = run(
        3,
        "dcasgd",
        steps=2,
        start=np.ones(3),
        slope=lambda rank, step, x: 2.0 + rank,
        slowdown=SlowdownSpec("constant", ranks=(1,), factor=1.5),
        optimizer=OptimizerSpec(lr=0.2),
        settings={"variant": "constant", "strength": 0.5},
    )
    np.testing.assert_allclose(
        [x[0] for x in center[:4]], [1.0, 0.8, 0.59, 0.432], rtol=0, atol=1e-15
    )


def test_the_adaptive_strength_is_scaled_by_the_mean_square(small_blocks: None) -> None:
    """Two calls by hand: M = 0.1 g^2 + 1e-7, then 0.9 M + 0.1 g'^2."""
    like = np.zeros(6)
    compensate = Compensation(like, "adaptive", 2.0, memory=0.9)
    x, before = np.full(6, 1.0), np.full(6, 0.5)
    mean = np.zeros(6)
    for scale in (1.0, -2.0):
        g = scale * np.arange(1.0, 7.0)
        mean = 0.9 * mean + 0.1 * g**2
        expected = g + 2.0 / np.sqrt(mean + 1e-7) * g * g * (x - before)
        compensate(g, x, before)
        np.testing.assert_allclose(g, expected, rtol=1e-14)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from dsgd_bench import arrays

    monkeypatch.setattr(arrays, "BLOCK_BYTES", 4 * 8)


def test_a_bowl_is_left_less_late_with_compensation() -> None:
    """On f = x^4 / 4 late gradients overshoot; compensated ones less."""

    def overshoot(kind: str, **settings: Any) -> float:
        _, center = run(
            9,
            kind,
            steps=20,
            start=np.ones(3),
            slope=lambda rank, step, x: x**3,
            optimizer=OptimizerSpec(lr=1.6),
            settings=settings,
        )
        return -min(float(x.min()) for x in center)

    plain = overshoot("asgd")
    assert plain > 0.0
    assert overshoot("dcasgd", variant="constant", strength=1.0) < plain


# --- accounts


def test_a_server_carries_a_model_each_way_per_gradient(world: Ranks) -> None:
    def work(fabric: Fabric) -> tuple[bool, float, float, int]:
        w = walk(fabric, "asgd", steps=5, slope=bowl)
        out, into = w.column("bytes_out").sum(), w.column("bytes_in").sum()
        return w.serves, float(out), float(into), len(w.rows)

    size = world.most
    for serves, out, into, rows in world.together(size, work):
        messages = 5 * (size - 1) if serves else 5
        assert (out, into) == (messages * 8 * DIMENSION,) * 2
        assert rows == messages
