"""A trial that is stopped goes on as if there had been no stop.

Synchronous algorithms bit by bit, asynchronous ones with all that they conserve.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Ranks
from driving import Walk, bowl, flat, start_of, walk
from test_algorithms import a_start, claiming, models, settle, workers

from dsgd_bench import trace
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.analysis.verify import verify
from dsgd_bench.config.identity import trial_id
from dsgd_bench.errors import TraceError
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual.fabric import Network, World
from dsgd_bench.io import trial_folder
from dsgd_bench.spec.trial import (
    AlgorithmSpec,
    BudgetSpec,
    ComputeSpec,
    MeasureSpec,
    OptimizerSpec,
    ProblemSpec,
    ScheduleSpec,
    SlowdownSpec,
    Trial,
)
from dsgd_bench.trial.run import Run

STEPS = 30
NETWORK = Network(latency=20e-6, bandwidth=1e9, jitter=0.5)
CLASSES = {
    "data": "generated",
    "samples": 400,
    "features": 6,
    "classes": 3,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "odsgd": {"warmup": 9},  # one stop before its end, one after
    "localsgd": {"every": 4},  # a stop between two averagings
    "postlocal": {"every": 4, "after": 0.8},  # 400 samples: after 10 steps of 4 x 8
    "sgp": {"graph": "one-peer-exponential"},
}
STATEFUL = OptimizerSpec(
    lr=0.3,
    momentum=0.9,
    nesterov=True,
    weight_decay=1e-3,
    schedule=ScheduleSpec("step", at=(1.2,), factor=0.5),
)

every = pytest.mark.parametrize("kind", ALGORITHMS)


class At:
    """Says that it is time to stop when it is asked for the `number`-th time."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def a_trial(kind: str, ranks: int, **more: Any) -> Trial:
    plain = {"plain", "own-momentum"} & ALGORITHMS[kind].traits
    options: dict[str, Any] = {
        "budget": BudgetSpec(steps=STEPS),
        "optimizer": OptimizerSpec(lr=0.3) if plain else STATEFUL,
        **more,
    }
    return Trial(
        ranks=ranks,
        algorithm=AlgorithmSpec(kind, SETTINGS.get(kind, {})),
        problem=ProblemSpec("softmax", batch=8, dtype="float64", settings=CLASSES),
        compute=ComputeSpec("emulated", 0.01),
        measure=MeasureSpec(copies=12),  # fewer than steps, so they are thinned out
        **options,
    )


def run(
    trial: Trial,
    folder: Path,
    stop: Callable[[], bool] | None = None,
    *,
    resumes: bool = True,
    seed: int = 0,
) -> bool:
    """Run a trial in virtual time until it stops or ends; tell whether it ended."""
    folder.mkdir(exist_ok=True)
    work = Run(trial, folder, "resuming", "none", {}, stop, resumes)
    finished = World(trial.ranks, NETWORK, seed).run(work)
    assert len(set(finished)) == 1
    return bool(finished[0])


def in_parts(trial: Trial, folder: Path, *stops: int) -> trace.Trace:
    """Run a trial that is stopped at each of `stops`, and to its end."""
    for seed, stop in enumerate(stops):
        assert not run(trial, folder, At(stop), seed=seed)
        assert not (folder / "trace.h5").exists()
    assert run(trial, folder, At(10**6), seed=len(stops))
    return trace.open_trace(folder / "trace.h5")


def at_once(trial: Trial, folder: Path) -> trace.Trace:
    assert run(trial, folder)
    return trace.open_trace(folder / "trace.h5")


# --- synchronous: bit by bit


@pytest.mark.parametrize("ranks", [1, 2, 5])
@claiming("synchronous")
def test_a_synchronous_trial_is_the_same_bit_by_bit(
    kind: str, ranks: int, tmp_path: Path
) -> None:
    """Mini-batches, momentum, schedule, delayed gradients, weights: all go on."""
    trial = a_trial(kind, ranks)
    whole = at_once(trial, tmp_path / "whole")
    parts = in_parts(trial, tmp_path / "parts", 7, 13)
    for name in ("loss", "samples", "weight"):
        np.testing.assert_array_equal(parts[name], whole[name])
    for name in (
        "loss_of_mean",
        "accuracy_of_mean",
        "local_loss",
        "consensus_distance",
    ):
        np.testing.assert_array_equal(parts[name], whole[name])
    assert len(parts.interruptions) == 2
    assert whole.interruptions == []


def test_what_a_slow_rank_draws_goes_on_too(tmp_path: Path) -> None:
    slow = SlowdownSpec("transient", factor=6.0, probability=0.3)
    trial = a_trial("dpsgd", 3, slowdown=slow)
    whole = at_once(trial, tmp_path / "whole")
    parts = in_parts(trial, tmp_path / "parts", 5, 11)
    np.testing.assert_allclose(
        parts["injected_asked"], whole["injected_asked"], rtol=1e-12
    )
    assert (whole["injected_asked"] > 0).any()


# --- all: nothing lost, nothing done twice


@every
def test_a_trial_in_parts_has_one_whole_trace(kind: str, tmp_path: Path) -> None:
    slow = SlowdownSpec("constant", ranks=(1,), factor=3.0)
    trial = a_trial(kind, 4, slowdown=slow)
    parts = in_parts(trial, tmp_path, 6, 9)
    works = parts["serves"] == 0
    done = parts["steps_done"]
    assert parts.status == "exhausted"
    if ALGORITHMS[kind].synchronous:
        assert (done[works] == STEPS).all()
    else:  # one gradient of every worker may be under way when the budget is used up
        n = works.sum()
        assert n * STEPS <= done[works].sum() <= n * STEPS + n
    start, duration = parts["start"], parts["duration"]
    for rank in range(4):
        steps = int(done[rank])
        assert np.isfinite(start[rank, :steps]).all()
        gaps = np.diff(start[rank, :steps]) - duration[rank, : steps - 1]
        assert (gaps > -1e-9).all()
        assert (gaps > 1e-9).sum() <= 2  # nothing is missing but at the two stops
    assert (np.diff(parts["moment_time"]) >= 0).all()
    assert parts["loss_of_mean"][-1] < parts["loss_of_mean"][0]
    staleness = parts["staleness"]
    assert (staleness[np.isfinite(staleness)] >= 0).all()
    assert not trace.checkpoint.find(tmp_path)
    assert verify(parts).failed == ()


def stopped_and_resumed(
    world: Ranks, size: int, kind: str, slope: Any, **more: Any
) -> tuple[list[Walk], list[Walk]]:
    """Walk up to step 5 on every rank, stop, and go on up to step 9."""

    def first(fabric: Fabric) -> Walk:
        start = a_start(kind, fabric.rank)
        return walk(fabric, kind, slope=slope, start=start, steps=5, **more)

    def second(fabric: Fabric) -> Walk:
        before = earlier[fabric.rank]
        return walk(fabric, kind, slope=slope, steps=9, before=before, **more)

    earlier = world.together(size, first)
    return earlier, world.together(size, second, seed=1)


@claiming("mean-preserving")
def test_the_mean_moves_by_the_gradients_of_both_parts(
    world: Ranks, size: int, kind: str
) -> None:
    """Whatever was under way at the stop has arrived once, and only once."""
    lr = 0.1
    earlier, later = stopped_and_resumed(world, size, kind, bowl)
    n = len(workers(later))
    first = np.mean([a_start(kind, rank) for rank in range(size)], axis=0)
    spent: Any = sum(w.spent for w in [*workers(earlier), *workers(later)])
    # rounding of nine steps on models of size one
    np.testing.assert_allclose(
        settle(later), first - lr / n * spent, rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("kind", ["osgp", "sgp"])
def test_push_sum_conserves_numerators_and_weights_over_a_stop(
    world: Ranks, size: int, kind: str
) -> None:
    _, later = stopped_and_resumed(world, size, kind, flat)
    mass: Any = sum(w.state.arrays["mass"] for w in later)
    starts = sum(start_of(rank) for rank in range(size))
    np.testing.assert_allclose(mass[:-1], starts, rtol=0, atol=1e-14 * size)
    assert mass[-1] == pytest.approx(size, abs=1e-14 * size)


def test_momentum_copies_of_acid_are_conserved_over_a_stop(
    world: Ranks, size: int
) -> None:
    """The sum of y, too: it starts as the sum of x and nothing moves it."""
    _, later = stopped_and_resumed(world, size, "acid", flat)
    copies = sum(w.state.arrays["copy"] for w in later)
    starts = sum(start_of(rank) for rank in range(size))
    np.testing.assert_allclose(copies, starts, rtol=0, atol=1e-13)


def test_dasgd_drains_at_a_stop_and_counts_on(world: Ranks, size: int) -> None:
    earlier, later = stopped_and_resumed(world, size, "dasgd", bowl)
    for w in earlier:
        np.testing.assert_allclose(w.final, earlier[0].final, rtol=0, atol=1e-14)
    for w in later:
        np.testing.assert_allclose(w.final, later[0].final, rtol=0, atol=1e-14)
        assert w.column("included")[0] >= 5 * size  # all of the first part is in


@claiming("synchronous")
def test_the_first_model_after_a_stop_is_the_last_before(
    world: Ranks, size: int, kind: str
) -> None:
    earlier, later = stopped_and_resumed(world, size, kind, bowl)
    np.testing.assert_array_equal(models(later, 0), models(earlier, 5))


# --- when things go wrong


def test_killed_after_going_on_it_goes_on_from_the_same_checkpoint(
    tmp_path: Path,
) -> None:
    def killed() -> bool:
        raise KeyboardInterrupt

    trial = a_trial("dpsgd", 3)
    whole = at_once(trial, tmp_path / "whole")
    folder = tmp_path / "killed"
    assert not run(trial, folder, At(7))
    with pytest.raises(KeyboardInterrupt):
        run(trial, folder, killed)
    parts = in_parts(trial, folder)
    np.testing.assert_array_equal(parts["loss"], whole["loss"])


def test_a_checkpoint_that_only_some_ranks_wrote_does_not_count(tmp_path: Path) -> None:
    checkpoint = trace.checkpoint.Checkpoint(3, 1.0, {}, {}, np.zeros((0, 1)))
    trace.checkpoint.write(tmp_path, 0, checkpoint, trial="x")
    assert trace.checkpoint.find(tmp_path) is None
    trace.checkpoint.publish(tmp_path)
    assert trace.checkpoint.find(tmp_path) is not None


def test_a_broken_checkpoint_is_named_with_the_way_out(tmp_path: Path) -> None:
    trial = a_trial("allreduce", 2)
    assert not run(trial, tmp_path, At(7))
    place = trace.checkpoint.find(tmp_path)
    assert place is not None
    (place / "rank-0001.h5").write_bytes(b"nothing of the kind")
    with pytest.raises(TraceError, match=r"remove .*checkpoint to run the trial from"):
        run(trial, tmp_path)


def test_parts_of_a_checkpoint_that_were_exchanged_are_refused(tmp_path: Path) -> None:
    """Each is whole and sealed; only its name is that of the other rank or trial."""
    trials = a_trial("dpsgd", 2), a_trial("allreduce", 2)
    for trial in trials:
        assert not run(trial, tmp_path / trial_id(trial), At(7))
    mine, theirs = (
        tmp_path / trial_id(each) / trial_folder.CHECKPOINT for each in trials
    )
    first, second = mine / "rank-0000.h5", mine / "rank-0001.h5"
    ours, others = first.read_bytes(), second.read_bytes()
    first.write_bytes(others)
    second.write_bytes(ours)
    with pytest.raises(TraceError, match=r"it is of rank [01] of trial"):
        run(trials[0], tmp_path / trial_id(trials[0]))
    first.write_bytes((theirs / "rank-0000.h5").read_bytes())
    second.write_bytes(others)
    with pytest.raises(
        TraceError, match=f"it is of rank 0 of trial {trial_id(trials[1])}"
    ):
        run(trials[0], tmp_path / trial_id(trials[0]))


def test_where_nothing_is_to_be_resumed_the_trial_starts_again(tmp_path: Path) -> None:
    trial = a_trial("allreduce", 2)
    assert not run(trial, tmp_path, At(7), resumes=False)
    assert trace.checkpoint.find(tmp_path) is None
    assert run(trial, tmp_path, resumes=False)
    assert trace.open_trace(tmp_path / "trace.h5").interruptions == []


def test_a_stop_that_comes_with_the_last_step_is_none(tmp_path: Path) -> None:
    """The step that is announced lies beyond the budget: all is done by then."""
    assert run(a_trial("allreduce", 3), tmp_path, At(STEPS - 1))
