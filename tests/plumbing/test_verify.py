"""A valid trial passes every check; a trace broken in some way fails the right one."""

import functools

import h5py
import numpy as np
import pytest

from dsgd_bench import report, trace
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.analysis.verify import verify
from dsgd_bench.fabric.virtual.fabric import World
from dsgd_bench.spec.job import Job
from dsgd_bench.spec.machine import Machine
from dsgd_bench.spec.trial import (
    AlgorithmSpec,
    BudgetSpec,
    ComputeSpec,
    MeasureSpec,
    OptimizerSpec,
    ProblemSpec,
    SlowdownSpec,
    Trial,
)
from dsgd_bench.trial.run import Run

RANKS, STEPS = 4, 12
PROVENANCE = {"hosts": ["node1"] * RANKS}
BUDGETS = {
    "steps": BudgetSpec(steps=STEPS),
    "samples": BudgetSpec(samples=90),
    "seconds": BudgetSpec(seconds=0.1),
    "both": BudgetSpec(seconds=0.1, epochs=2.0),
}
EACH = tuple(ALGORITHMS)


def make(folder, kind, *, ranks=RANKS, budget="steps", **more):
    """Return the trace of a trial in virtual time, in which rank 0 is slow."""
    trial = Trial(
        ranks=ranks,
        algorithm=AlgorithmSpec(kind, {"warmup": 3} if kind == "odsgd" else {}),
        problem=ProblemSpec("quadratic"),
        optimizer=OptimizerSpec(lr=more.pop("lr", 0.1)),
        compute=ComputeSpec("emulated", 0.01),
        slowdown=SlowdownSpec("constant", (0,), 3.0),
        budget=BUDGETS[budget],
        measure=MeasureSpec(**more),
    )
    folder.mkdir(exist_ok=True)
    World(ranks).run(Run(trial, folder, "toy", "auto", dict(PROVENANCE)))
    return trace.open_trace(folder / "trace.h5")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Return a function that makes each trace once; a test breaks a copy of it."""

    @functools.cache
    def once(kind, **more):
        return make(tmp_path_factory.mktemp("trials") / kind, kind, **more)

    def fresh(kind, **more):
        found = once(kind, **more)
        again = trace.open_trace(found.path)
        return again, again._arrays

    return fresh


def failed(found):
    return {check.name for check in verify(found).failed}


@pytest.mark.parametrize("kind", EACH)
@pytest.mark.parametrize(("ranks", "budget"), [(1, "steps"), (4, "steps")])
def test_no_check_fails_on_a_valid_trial(tmp_path, kind, ranks, budget):
    found = verify(make(tmp_path, kind, ranks=ranks, budget=budget))
    assert found.failed == ()
    assert len(found.checks) >= 10
    assert len({check.name for check in found.checks}) == len(found.checks)


@pytest.mark.parametrize("kind", ["allreduce", "adpsgd", "dasgd", "osgp", "asgd"])
@pytest.mark.parametrize("budget", [b for b in BUDGETS if b != "steps"])
def test_no_check_fails_whatever_the_budget_is(tmp_path, kind, budget):
    assert verify(make(tmp_path, kind, ranks=3, budget=budget)).failed == ()


def test_a_diverged_trial_is_valid_but_its_models_are_not_compared(tmp_path):
    found = make(tmp_path, "allreduce", lr=1e30)
    assert found.status == "diverged"
    assert failed(found) == set()
    assert "identical replicas" not in {check.name for check in verify(found).checks}


def test_what_was_found_and_expected_is_said_in_words(recorded):
    found, arrays = recorded("allreduce")
    arrays["steps_done"][1] -= 1
    checks = {check.name: check for check in verify(found).failed}
    check = checks["equal steps"]
    assert (check.found, check.expected) == ("1 steps apart", "<= 0")
    assert "synchronous" in check.why
    assert verify(found).label == "allreduce on 4 ranks, 3x on rank 0, seed 0"


def negative_rest(arrays):
    arrays["compute"][1, 2] += 0.001  # booked twice, so the rest is below zero
    arrays["other"][1, 2] -= 0.001


def lost_time(arrays):
    arrays["waiting"][1, 2] += 0.001


def overlapping_steps(arrays):
    arrays["start"][2, 3:] -= 0.005


def lost_row(arrays):
    arrays["duration"][3, -1] = np.nan


def lost_samples(arrays):
    arrays["samples_done"][0] -= 1


def one_step_less(arrays):
    arrays["steps_done"][2] -= 1


def one_round_less(arrays):
    for name in ("steps_done", "samples_done"):
        arrays[name] *= (STEPS - 1) / STEPS


def one_round_more(arrays):
    for name in ("steps_done", "samples_done"):
        arrays[name] *= (STEPS + 1) / STEPS


def many_more(arrays):
    arrays["steps_done"] *= 2


def replicas_apart(arrays):
    arrays["consensus_distance"][-1] += 1e-4 * arrays["norm_of_mean"][-1]


def no_weight(arrays):
    arrays["weight"][1, 3] = 0.0


def lost_weight(arrays):
    arrays["weight"][1, 3] -= 1e-4


def bytes_from_nowhere(arrays):
    arrays["bytes_in"][1, 3] += 1e6


def lost_message(arrays):
    arrays["bytes_in"][1, 3] = 0.0


def wrong_clock(arrays):
    arrays["clock_offset_end"][2] = 1e-3


def moments_in_disorder(arrays):
    arrays["copy_time"][1] = arrays["copy_time"][1, ::-1]


def target_met_after_all(arrays):
    arrays["loss_of_mean"][-1] = -1.0


def too_stale(arrays):
    arrays["staleness"][1, 3] = 9.0


def stale_before_it_was_taken(arrays):
    arrays["staleness"][1, 3] = -1.0


def begun_too_late(arrays):
    arrays["duration"][1, 0] += 1.0
    arrays["compute"][1, 0] += 1.0
    arrays["start"][1, 1:] += 1.0
    arrays["elapsed"][1] += 1.0


BREAKS = [
    ("allreduce", negative_rest, "no second twice"),
    ("allreduce", lost_time, "spans add up"),
    ("adpsgd", overlapping_steps, "steps follow each other"),
    ("adpsgd", lost_row, "every step recorded"),
    ("asgd", lost_samples, "every gradient counted"),
    ("dpsgd", one_step_less, "equal steps"),
    ("allreduce", one_round_less, "budget used up"),
    ("allreduce", one_round_more, "within the budget"),
    ("adpsgd", many_more, "within the budget"),
    ("allreduce", replicas_apart, "identical replicas"),
    ("ssgd", replicas_apart, "identical replicas"),
    ("dasgd", replicas_apart, "equal when drained"),
    ("sgp", no_weight, "positive weights"),
    ("osgp", no_weight, "positive weights"),
    ("sgp", lost_weight, "weights add up to n"),
    ("adpsgd", lost_message, "bytes in and out"),
    ("dpsgd", lost_message, "bytes in and out"),
    ("osgp", lost_message, "bytes in and out"),
    ("dasgd", bytes_from_nowhere, "nothing from nowhere"),
    ("swift", bytes_from_nowhere, "nothing from nowhere"),
    ("asgd", lost_message, "bytes from servers"),
    ("odsgd", bytes_from_nowhere, "bytes from servers"),
    ("allreduce", wrong_clock, "one host, one clock"),
    ("adpsgd", moments_in_disorder, "evaluation points in order"),
    ("osgp", too_stale, "staleness"),
    ("odsgd", too_stale, "staleness"),
    ("adpsgd", stale_before_it_was_taken, "staleness"),
]


@pytest.mark.parametrize(
    ("kind", "how", "name"), BREAKS, ids=[f"{k}-{h.__name__}" for k, h, _ in BREAKS]
)
def test_a_broken_trace_fails_its_check(recorded, kind, how, name):
    found, arrays = recorded(kind)
    assert failed(found) == set()
    how(arrays)
    assert name in failed(found)


def test_a_step_begun_after_the_time_was_up_is_found(recorded):
    found, arrays = recorded("adpsgd", budget="seconds")
    begun_too_late(arrays)
    assert failed(found) == {"no step too late"}


def test_a_status_that_the_losses_deny_is_found(recorded):
    found, arrays = recorded("allreduce", target_loss=-0.5)
    assert failed(found) == set()
    target_met_after_all(arrays)
    assert failed(found) == {"status"}


def test_clocks_of_other_hosts_may_differ(recorded):
    found, arrays = recorded("allreduce")
    wrong_clock(arrays)
    found.provenance["hosts"] = ["node1", "node1", "node2", "node2"]
    assert failed(found) == set()


def finished(folder, kind):
    """Return the folder of a finished trial, as `run` leaves it."""
    found = make(folder / kind, kind)
    Job("toy", found.trial, Machine()).write(folder / kind / "job.json")
    (folder / kind / "READY").touch()
    return found.path


def test_the_report_says_in_a_line_that_all_trials_are_valid(tmp_path):
    finished(tmp_path, "allreduce")
    finished(tmp_path, "adpsgd")
    found = report.write_report(tmp_path)
    assert "checks of 2 finished trials, all pass" in found.terminal()
    for name in ("report.md", "report.html"):
        text = (tmp_path / name).read_text()
        assert "checks of 2 finished trials, all pass" in text
    assert not found.standing().invalid


@pytest.mark.parametrize("columns", [60, 200])
def test_the_report_shows_a_table_of_the_checks_that_fail(tmp_path, columns):
    with h5py.File(finished(tmp_path, "allreduce"), "r+") as file:
        file["samples_done"][1] = 7.0
    finished(tmp_path, "adpsgd")
    found = report.write_report(tmp_path)
    text = " ".join(found.terminal(columns=columns).split())
    assert "1 of 2 finished trials not valid" in text
    assert "! allreduce on 4 ranks" in text
    for name in ("report.md", "report.html"):
        text = (tmp_path / name).read_text()
        for word in ("every gradient counted", "samples", "one gradient of 32"):
            assert word in text
    standing = found.standing()
    assert standing.invalid
    assert " FAIL " in standing.sentinel()
    other = {row.trial.id for row in standing.rows if row.trial.algorithm == "adpsgd"}
    assert not found.standing(other).invalid, "only the trials that were asked for"
