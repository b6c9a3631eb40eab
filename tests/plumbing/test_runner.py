"""What a run does with each trial's folder, before any rank is started."""

import os
from pathlib import Path

import msgspec
import pytest

from dsgd_bench.config.identity import trial_id
from dsgd_bench.io.trial_folder import ERROR, READY, TrialFolder
from dsgd_bench.spec.job import Job
from dsgd_bench.spec.machine import Machine
from dsgd_bench.spec.trial import AlgorithmSpec, BudgetSpec, ProblemSpec, Study, Trial
from dsgd_bench.study import lock, runner, stopping
from dsgd_bench.study.decision import Decision, decide

TRIAL = Trial(
    ranks=2,
    algorithm=AlgorithmSpec("allreduce"),
    problem=ProblemSpec("softmax"),
    budget=BudgetSpec(steps=1),
)
STUDY = Study("tiny", Path("tiny.toml"), (TRIAL,))
REFUSING = Machine(launcher=("false", "{ranks}"))
"""A launcher that starts nothing: a trial that is run fails."""


class Silent:
    def starting(self, trial: Trial, number: int, of: int, /) -> None: ...
    def ended(self, trial: Trial, outcome: str, /) -> None: ...


def run(results: Path) -> runner.StudyOutcome:
    return runner.run_study(STUDY, REFUSING, results, Silent())


def folder_of(results: Path) -> Path:
    folder = results / "tiny" / trial_id(TRIAL)
    folder.mkdir(parents=True)
    return folder


def test_a_trial_that_failed_before_is_run_again(tmp_path: Path) -> None:
    error = folder_of(tmp_path) / ERROR
    error.write_text("it broke\n")
    os.utime(error, (1.0, 1.0))
    assert run(tmp_path).failed == [(TRIAL, "the launcher ended with status 1")]


def test_a_trial_that_fails_elsewhere_meanwhile_is_not_tried_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The elements of a job array would all try it one after the other."""
    (folder_of(tmp_path) / ERROR).write_text("it broke\n")
    monkeypatch.setattr(lock, "now_there", lambda _: 0.0)
    assert run(tmp_path).failed == [(TRIAL, "it broke")]


def test_a_finished_trial_is_skipped(tmp_path: Path) -> None:
    (folder_of(tmp_path) / READY).touch()
    outcome = run(tmp_path)
    assert outcome.skipped == [TRIAL]
    assert not outcome.failed


def test_at_the_end_of_a_job_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "STOP").touch()
    monkeypatch.setenv(stopping.FILE, str(tmp_path / "STOP"))
    outcome = run(tmp_path)
    assert outcome.stopped == [TRIAL]
    assert not (tmp_path / "tiny" / trial_id(TRIAL) / "job.json").exists()


def test_a_trial_that_another_one_holds_is_left_to_it(tmp_path: Path) -> None:
    with lock.held(folder_of(tmp_path)):
        outcome = run(tmp_path)
    assert outcome.elsewhere == 1
    assert not outcome.failed


@pytest.mark.parametrize(
    ("mark", "ours", "ends", "expected"),
    [
        (READY, True, False, Decision.SKIP),
        (READY, False, True, Decision.SKIP),
        (ERROR, False, False, Decision.LEAVE),
        (ERROR, True, True, Decision.GIVE_UP),
        ("", True, True, Decision.STOP),
        ("", True, False, Decision.RUN),
    ],
)
def test_one_decision_is_made_of_a_trial_for_ranks_that_are_started_or_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mark: str,
    ours: bool,
    ends: bool,
    expected: Decision,
) -> None:
    folder = folder_of(tmp_path)
    if mark:
        (folder / mark).touch()
    monkeypatch.setattr(stopping, "due", lambda _: ends)
    assert (
        decide(Job("tiny", TRIAL, REFUSING), TrialFolder(folder), 0.0, ours=ours)
        is expected
    )


def test_a_trial_that_failed_before_this_run_began_is_run(tmp_path: Path) -> None:
    error = folder_of(tmp_path) / ERROR
    error.touch()
    since = error.stat().st_mtime + 1
    job = Job("tiny", TRIAL, REFUSING)
    assert decide(job, TrialFolder(error.parent), since, ours=True) is Decision.RUN


def test_a_trial_whose_folder_cannot_be_held_is_named_by_its_own_number(
    tmp_path: Path,
) -> None:
    """Not by that of the last one that could be started."""
    odd = msgspec.structs.replace(TRIAL, seed=1)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / trial_id(odd)).touch()
    said = []

    class Saying:
        def starting(self, trial: Trial, number: int, of: int, /) -> None:
            said.append((trial, f"{number}/{of}"))

        def ended(self, trial: Trial, outcome: str, /) -> None:
            said.append((trial, outcome))

    study = Study("tiny", Path("tiny.toml"), (TRIAL, odd))
    runner.run_study(study, REFUSING, tmp_path, Saying())
    assert [trial for trial, _ in said] == [TRIAL, TRIAL, odd, odd]
    assert [words for _, words in said][::2] == ["1/2", "2/2"]
