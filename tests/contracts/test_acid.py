"""A2CiD2: conserved sums, AD-PSGD as a special case, and sooner agreement on a ring.

The tests of the paper's rule (arXiv:2306.08289) and of its constants.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import test_replicas
from conftest import Ranks
from driving import bowl, flat, start_of, walk
from test_replicas import SCHEDULES, Hasty, nothing, on_schedules

from dsgd_bench import graphs
from dsgd_bench.algorithms.acid import constants
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.accelerated import TALLY, TIME, AcceleratedReplicas
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual.fabric import Network, VirtualFabric, World
from dsgd_bench.fabric.virtual.strict_window import StrictWordWindow
from dsgd_bench.spec.trial import OptimizerSpec, SlowdownSpec
from dsgd_bench.trial.optimizer import Optimizer

small_blocks = test_replicas.small_blocks

QUICK = Network(latency=1e-12, bandwidth=1e18)
"""No exchange overlaps with another one, so gradients alone make the schedule."""


def copies_and_models(replicas: AcceleratedReplicas) -> Array:
    """Return x and y of this rank, as they lie in its window."""
    return np.array(replicas._models.memory).reshape(2, -1)


# --- constants


def test_constants_are_those_of_the_graph() -> None:
    """By hand: eigenvalues and resistances of rings and of complete graphs."""
    for n in (2, 3, 4, 5, 8, 16):
        # every edge of the complete graph has rate 2/(n-1)
        kappa, alpha = constants(graphs.make("complete", n))
        np.testing.assert_allclose([kappa, alpha], [n / (n - 1), 0.5], rtol=1e-12)
    for n in (3, 4, 5, 8, 16):
        # every edge of the ring has rate 1
        chi1 = 1 / (2 - 2 * np.cos(2 * np.pi / n))
        chi2 = (n - 1) / n / 2
        kappa, alpha = constants(graphs.make("ring", n))
        expected = [0.5 / np.sqrt(chi1 * chi2), 0.5 * np.sqrt(chi1 / chi2)]
        np.testing.assert_allclose([kappa, alpha], expected, rtol=1e-12)
    assert constants(graphs.make("ring", 1))[0] == 0.0


# --- without mixing


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_with_kappa_zero_it_is_adpsgd_bit_for_bit(
    size: int, momentum: float, small_blocks: int
) -> None:
    spec = OptimizerSpec(lr=0.1, momentum=momentum)

    def run(kind: str, **settings: Any) -> list[bytes]:
        def work(fabric: VirtualFabric) -> bytes:
            x = start_of(fabric.rank, small_blocks)
            hasty: Any = Hasty(fabric, x.size, bowl)
            hasty.update = Optimizer(spec, x).update
            models = hasty.walk(kind, x, steps=12, graph="ring", **settings)
            return np.array([*models, x]).tobytes()

        return World(size, QUICK).run(work)

    assert run("acid", kappa=0.0) == run("adpsgd")
    if size > 3:  # up to there the ring is complete, and copies equal their models
        assert run("acid") != run("adpsgd")


# --- the sums


def test_the_sums_of_models_and_of_copies_are_conserved_under_hostile_schedules(
    small_blocks: int,
) -> None:
    """Both move by -lr times all gradients, on a thousand schedules.

    Every worker ends with another number of gradients, so times differ at the end.
    """

    def work(fabric: VirtualFabric) -> tuple[Array, Array]:
        x = start_of(fabric.rank, small_blocks)
        hasty, g = Hasty(fabric, x.size, bowl), np.zeros(x.size)
        more: dict[str, Any] = {"kappa": 0.3, "alpha": 1.9}  # as on a ring of 16
        sums = []
        with noting_sums(fabric, x, hasty.update, sums, **more) as replicas:
            for _ in range(1 + (fabric.rank + 1) % 3):
                hasty.gradient(x, out=g)
                replicas.average_with(hasty.draw())
                replicas.apply(g, out=x)
        np.testing.assert_array_equal(x, sums[0][0])
        return sums[0], hasty.spent

    for seed, ranks in on_schedules(work, SCHEDULES):
        starts = sum(start_of(rank, small_blocks) for rank in range(len(ranks)))
        expected = starts - 0.1 * sum(spent for _, spent in ranks)
        lost = np.abs(sum(both for both, _ in ranks) - expected).max()
        # rounding of some dozen exchanges and gradients on models of size one
        assert lost < 1e-13, f"schedule {seed}"


def noting_sums(
    fabric: Fabric,
    x: Array,
    update: Callable[..., None],
    into: list[Array],
    **more: Any,
) -> AcceleratedReplicas:
    """Return replicas that leave their final x and y in a list when closed."""

    class Noting(AcceleratedReplicas):
        def _settle(self) -> None:
            super()._settle()
            into.append(copies_and_models(self))

    return Noting(fabric, x, update, **more)


def test_ends_mixed_up_to_different_times_would_lose_the_sums(
    monkeypatch: pytest.MonkeyPatch, small_blocks: int
) -> None:
    """The pitfall of a published implementation, so the test above has teeth."""
    share = AcceleratedReplicas._share
    monkeypatch.setattr(
        AcceleratedReplicas,
        "_share",
        lambda self, elapsed: share(self, elapsed) * (1.0 + 0.1 * self._rank),
    )
    with pytest.raises(AssertionError, match="schedule"):
        test_the_sums_of_models_and_of_copies_are_conserved_under_hostile_schedules(
            small_blocks
        )


def test_exchanging_without_locks_would_lose_the_sums(
    monkeypatch: pytest.MonkeyPatch, small_blocks: int
) -> None:
    monkeypatch.setattr(
        StrictWordWindow, "compare_and_swap", lambda self, old, new, rank, index: old
    )
    with pytest.raises(Exception, match=r"schedule|held it|inf|nan"):
        test_the_sums_of_models_and_of_copies_are_conserved_under_hostile_schedules(
            small_blocks
        )


def test_gradients_move_model_and_copy_alike(world: Ranks) -> None:
    """One worker never mixes anything else into them, so they stay equal."""

    def work(fabric: Fabric) -> Array:
        x, found = start_of(0), []
        with noting_sums(fabric, x, halve, found, kappa=0.7, alpha=1.5) as replicas:
            for _ in range(5):
                replicas.apply(x, out=x)
        return found[0]

    def halve(x: Array, g: Array) -> None:
        x -= 0.5 * g

    [[model, copy]] = world.together(1, work)
    np.testing.assert_allclose(model, start_of(0) / 32, rtol=1e-15)
    # five differences of numbers below one are rounded
    np.testing.assert_allclose(copy, model, rtol=0, atol=1e-15)


def test_an_exchange_moves_models_by_half_and_copies_by_alpha(world: Ranks) -> None:
    """From x = y at the start: by hand."""
    alpha, size = 1.5, 40_000  # three blocks, with two sets of scratch

    def work(fabric: Fabric) -> Array:
        x, found = start_of(fabric.rank, size), []
        more: dict[str, Any] = {"kappa": 0.7, "alpha": alpha}
        with noting_sums(fabric, x, nothing, found, **more) as replicas:
            if fabric.rank == 1:
                replicas.average_with(0)
            fabric.barrier()
            found.append(copies_and_models(replicas))
        return found[0]

    left, right = start_of(0, size), start_of(1, size)
    (x0, y0), (x1, y1) = world.together(2, work)
    np.testing.assert_array_equal(x0, x1)
    # rounding of numbers of size one
    np.testing.assert_allclose(x0, (left + right) / 2, rtol=0, atol=1e-15)
    np.testing.assert_allclose(y0, left - alpha * (left - right), rtol=0, atol=1e-15)
    np.testing.assert_allclose(y1, right + alpha * (left - right), rtol=0, atol=1e-15)


def test_both_ends_are_mixed_for_the_time_since_their_last_event() -> None:
    """Rank 1 has taken 3 steps, rank 0 none: it adopts that time, and mixes by it.

    The models differ from their copies since an earlier exchange at time 1.
    """
    kappa, alpha = 0.3, 1.25

    def work(fabric: VirtualFabric) -> Array:
        x, found = np.array([float(fabric.rank)]), []
        zero = np.zeros(1)
        more: dict[str, Any] = {"kappa": kappa, "alpha": alpha}
        with noting_sums(fabric, x, nothing, found, **more) as replicas:
            if fabric.rank == 1:
                replicas.average_with(0)  # at time 1
                for _ in range(3):
                    replicas.apply(zero, out=x)  # at times 1, 2, 3
                replicas.average_with(0)  # at time 4
            fabric.barrier()
            found.append(copies_and_models(replicas))
        return found[0][:, 0]

    x = np.array([0.5, 0.5])
    y = np.array([alpha, 1 - alpha])
    c = (1 - np.exp(-2 * kappa * 3)) / 2
    x, y = x + c * (y - x), y + c * (x - y)
    d = x[0] - x[1]
    x, y = x - np.array([d, -d]) / 2, y - alpha * np.array([d, -d])
    # rounding of numbers of size one; rank 1 mixed three times for one step each
    np.testing.assert_allclose(World(2).run(work), np.transpose([x, y]), atol=1e-14)


def test_time_is_the_mean_number_of_gradients_though_one_worker_is_slow() -> None:
    """Three workers take 100 gradients and one takes 10: 77.5 per worker.

    Tallies are averaged, so their sum is kept; the time is the latest of them all.
    """

    def work(fabric: VirtualFabric) -> tuple[float, float]:
        x, times = np.zeros(1), []

        class Noting(AcceleratedReplicas):
            def _settle(self) -> None:
                times.extend(self._ours[[TALLY, TIME]].tolist())
                super()._settle()

        with Noting(fabric, x, nothing, kappa=0.5, alpha=0.6) as replicas:
            for step in range(10 if fabric.rank == 0 else 100):
                fabric.pause(0.1 if fabric.rank == 0 else 0.01)
                replicas.average_with((fabric.rank + 1 + step % 3) % 4)
                replicas.apply(x, out=x)
        return times[0], times[1]

    tallies, times = zip(*World(4).run(work), strict=True)
    np.testing.assert_allclose(sum(tallies), 310, rtol=1e-12)
    # a tally is ahead of the mean for as long as it has not been averaged
    assert 77.5 <= max(times) < 77.5 + 4.0


# --- deadlock


@pytest.mark.parametrize("graph", ["ring", "torus", "complete", "star"])
def test_many_exchanges_end_and_conserve_the_sum(world: Ranks, graph: str) -> None:
    size, steps = world.most, 60
    kappa, alpha = constants(graphs.make(graph, size))

    def work(fabric: Fabric) -> Array:
        x = start_of(fabric.rank)
        near = graphs.make(graph, size).neighbors[fabric.rank]
        more: dict[str, Any] = {"kappa": kappa, "alpha": alpha}
        with AcceleratedReplicas(fabric, x, nothing, **more) as replicas:
            for step in range(steps):
                if near:
                    replicas.average_with(near[step * 7 % 5 % len(near)])
                replicas.apply(x, out=x)
        return x

    results = world.together(size, work, jitter=1.0)
    starts = sum(start_of(rank) for rank in range(size))
    # rounding of some hundred exchanges
    np.testing.assert_allclose(sum(results), starts, rtol=0, atol=1e-12)


# --- the claim


def distance(kind: str, size: int, seed: int, slope: Any, steps: int) -> float:
    """Return the final root mean square distance of the models from their mean."""

    def work(fabric: VirtualFabric) -> Array:
        uneven = SlowdownSpec("transient", factor=1.5, probability=0.5)
        start = start_of(fabric.rank, 16)
        more: dict[str, Any] = {
            "settings": {"graph": "ring"},
            "slowdown": uneven,
            "seed": seed,
        }
        return walk(fabric, kind, slope=slope, start=start, steps=steps, **more).final

    models = np.array(World(size, seed=seed).run(work))
    return float(np.sqrt(np.mean((models - models.mean(axis=0)) ** 2)))


@pytest.mark.parametrize(("size", "less"), [(8, 0.5), (16, 0.1)])
def test_on_a_ring_workers_agree_sooner_than_with_adpsgd(
    size: int, less: float
) -> None:
    """Without gradients, a claim of the paper; the longer the ring, the more so."""
    seeds, steps = range(3), 2 * size
    plain = [distance("adpsgd", size, seed, flat, steps) for seed in seeds]
    ours = [distance("acid", size, seed, flat, steps) for seed in seeds]
    assert np.median(ours) < less * np.median(plain)


def test_on_a_ring_workers_with_different_data_stay_closer_than_with_adpsgd() -> None:
    """Every worker's quadratic has its minimum elsewhere, so gradients part them."""
    seeds = range(3)
    plain = [distance("adpsgd", 16, seed, bowl, 30) for seed in seeds]
    ours = [distance("acid", 16, seed, bowl, 30) for seed in seeds]
    assert np.median(ours) < 0.9 * np.median(plain)
