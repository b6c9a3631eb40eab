"""Runs a study: one trial after the other, skipping what is finished.

This process starts the ranks of each trial with the machine's launcher. If it is itself
a rank of an MPI job, all ranks run the trials together: see `inside_job`. A trial's
folder tells how far it is, see `trials`.
"""

import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from dsgd_bench import trace
from dsgd_bench.config import naming
from dsgd_bench.errors import DsgdError, HangError, TraceError
from dsgd_bench.host import processes, shared_memory
from dsgd_bench.io import files, printing
from dsgd_bench.io.trial_folder import Outcome, TrialFolder, shards_in
from dsgd_bench.spec.job import Job
from dsgd_bench.spec.machine import Machine
from dsgd_bench.spec.trial import Study, Trial
from dsgd_bench.study import (
    capacity,
    launch,
    lock,
    plan,
    rank_process,
    stale_segments,
    stopping,
)
from dsgd_bench.study.decision import (
    FINISHED,
    STOPPED,
    Decision,
    Ended,
    decide,
    failed,
)
from dsgd_bench.study.watchdog import Listener
from dsgd_bench.trace import trials
from dsgd_bench.trace.trials import Places

ELSEWHERE = "is being run by another dsgd-bench"

TAIL = 12
"""Lines of a failed trial's log that are shown."""

Start = Callable[[Job, TrialFolder], Ended]
"""Runs one trial in its folder; returns how it ended."""


class Display(Protocol):
    """Who is told how the study gets on."""

    def starting(self, trial: Trial, number: int, of: int, /) -> None:
        """Say which trial is next, a number of so many."""

    def ended(self, trial: Trial, outcome: str, /) -> None:
        """Say how a trial ended: ``finished``, ``skipped``, ``stopped`` or why not."""


@dataclass
class StudyOutcome:
    """What became of the trials of a study.

    Attributes
    ----------
    folder : Path
        Where the study's results are.
    since : float
        When this run began, by the clock of the file system.
    machine : Machine
        Where the trials are to run.
    finished : int
        Trials run now.
    skipped : list of Trial
        Trials that were finished before.
    elsewhere : int
        Trials that another dsgd-bench is running.
    failed : list of (Trial, str)
        Trials that failed, and why.
    stopped : list of Trial
        Trials that were stopped, or not started, because the job around ends.
    """

    folder: Path
    since: float
    machine: Machine
    finished: int = 0
    skipped: list[Trial] = field(default_factory=list)
    elsewhere: int = 0
    failed: list[tuple[Trial, str]] = field(default_factory=list)
    stopped: list[Trial] = field(default_factory=list)

    @cached_property
    def places(self) -> Places:
        """Where the results of every trial are."""
        return Places(self.folder)


def run_study(
    study: Study,
    machine: Machine,
    results: Path,
    display: Display,
    start: Start | None = None,
) -> StudyOutcome:
    """Run every trial that is not finished.

    Parameters
    ----------
    study, machine : Study, Machine
        What to run, and where.
    results : Path
        Where results go.
    display : Display
        Who is told.
    start : callable, optional
        How a trial is run; by default on ranks that the machine's launcher starts.

    Raises
    ------
    ConfigError
        If the job around has ended.
    LaunchError
        If the launcher cannot be found.
    TraceError
        If the results folder cannot be written.
    """
    outcome = begun(results / study.name, machine)
    if start is None:
        shared_memory.sweep()  # after a run that was killed itself
        stale_segments.remove(machine)
    jobs = jobs_of(study, machine)
    left, again = list(enumerate(jobs, 1)), True
    while left and again:
        before = outcome.finished
        left = [
            (number, job)
            for number, job in left
            if not _run_one(
                job, (number, len(jobs)), outcome, display, start or _launch
            )
        ]
        # another dsgd-bench may have died meanwhile: nobody else would run its trial
        again = outcome.finished > before
    outcome.elsewhere = len(left)
    return outcome


def jobs_of(study: Study, machine: Machine) -> list[Job]:
    """Return what the ranks of every trial are given, in the order of the study."""
    most = max((trial.ranks for trial in study.trials), default=0)
    return [
        Job(study.name, trial, machine, largest=trial.ranks == most)
        for trial in study.trials
    ]


def _run_one(
    job: Job,
    place: tuple[int, int],
    outcome: StudyOutcome,
    display: Display,
    start: Start,
) -> bool:
    """Run one trial, a number of so many, if nobody else does; tell whether so."""
    trial = job.trial
    folder = outcome.places.of(trial)
    if folder.outcome == Outcome.FINISHED:
        pass_over(Decision.SKIP, folder, outcome, trial, display)
        return True
    display.starting(trial, *place)
    try:
        with lock.held(folder.path) as ours:
            decision = decide(job, folder, outcome.since, ours=ours)
            if decision is Decision.RUN:
                note(outcome, trial, _started(start, job, folder), display)
            else:
                pass_over(decision, folder, outcome, trial, display)
            return decision is not Decision.LEAVE
    except TraceError as error:  # of this folder: the other trials do not depend on it
        note(outcome, trial, failed(str(error)), display)
    return True


def pass_over(
    decision: Decision,
    folder: TrialFolder,
    outcome: StudyOutcome,
    trial: Trial,
    display: Display,
) -> None:
    """Note a trial that is not run now, by what was decided of it."""
    if decision is Decision.SKIP:
        outcome.skipped.append(trial)
        display.ended(trial, "skipped")
    elif decision is Decision.LEAVE:
        display.ended(trial, ELSEWHERE)
    elif decision is Decision.GIVE_UP:
        note(outcome, trial, failed(folder.reason), display)
    else:
        note(outcome, trial, STOPPED, display)


def _started(start: Start, job: Job, folder: TrialFolder) -> Ended:
    """Run a trial in its folder, which is held; return how it ended."""
    try:
        prepare(folder.path)
        return start(job, folder)
    except TraceError as error:
        return failed(folder.first_reason(str(error)))


def begun(folder: Path, machine: Machine) -> StudyOutcome:
    """Make the study's folder, and see that it can be written."""
    stopping.refuse_past()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TraceError(_unwritable(folder, error)) from None
    prepare(folder)
    return StudyOutcome(folder, lock.now_there(folder), machine)


def note(outcome: StudyOutcome, trial: Trial, ended: Ended, display: Display) -> None:
    """Note how a trial ended."""
    if ended == STOPPED:
        outcome.stopped.append(trial)
        display.ended(trial, "stopped: the job around ends")
    elif ended == FINISHED:
        outcome.finished += 1
        display.ended(trial, "finished")
    else:
        outcome.failed.append((trial, ended.reason))
        display.ended(trial, ended.reason)


def _launch(job: Job, folder: TrialFolder) -> Ended:
    """Run one trial with the launcher; return how it ended."""
    clear(job, folder)
    job.write(folder.job)
    ranks, machine = job.trial.ranks, job.machine
    command = launch.command(folder.job, ranks, machine, sys.executable)
    environment = launch.variables(ranks, machine, sys.executable)
    said: list[str] = []

    def listen(line: str) -> None:
        if not said and (sentence := rank_process.sentence(line)):
            said.append(sentence)

    ended = ""
    try:
        listener = _listener(folder, machine.watchdog)
        status = processes.run(
            command, environment, folder.log, listen, on_glance=listener
        )
        ended = _why_ended(status, job.trial, folder) if status else ""
    except HangError as error:
        ended = str(error)
    except KeyboardInterrupt:
        if not folder.ready.exists():  # else it came when all was done
            _give_up(folder, "interrupted: it will be run again")
        raise
    for end, mark in ((FINISHED, folder.ready), (STOPPED, folder.stopped)):
        if mark.exists():
            if ended:
                _say_ended_late(job, folder, ended)
            return end
    # where the disk is full, what a rank has said is all there is of the reason
    said.append(ended or "the launcher ended with status 0")
    return failed(_give_up(folder, said[0]))


def _listener(folder: TrialFolder, watchdog: float) -> Listener:
    """Return what listens for signs of life of a trial: rank 0 touches its job."""

    def over() -> bool:
        return folder.outcome != Outcome.MISSING

    return Listener(watchdog, folder.job, folder.log, over=over)


def _say_ended_late(job: Job, folder: TrialFolder, how: str) -> None:
    """Say that a trial is done although its processes did not end as they should."""
    printing.complain(
        f"dsgd-bench: {naming.description(job.trial)} is done and its results are "
        f"kept, but {how}: see {folder.log}"
    )


def _why_ended(status: int, trial: Trial, folder: TrialFolder) -> str:
    """Say how the launcher ended, and that shared memory was too small if it was."""
    reason = f"the launcher ended with status {status}"
    lines = log_tail(folder).splitlines()
    if capacity.killed_by_memory(status, lines):
        model = 0
        with suppress(DsgdError):  # the problem that its ranks could not build either
            model = plan.model_bytes(trial)
        if lack := capacity.too_little_shared_memory(trial.ranks, model):
            reason += f": {lack}"
    return reason


def clear(job: Job, folder: TrialFolder) -> None:
    """Remove what the last run of a trial left, but for what it goes on from."""
    trials.clear(folder, checkpoints=job.machine.when_stopped != "resume")


def _give_up(folder: TrialFolder, reason: str) -> str:
    """Keep what a failed trial recorded; return the first reason that was given."""
    trace.checkpoint.tidy(folder.path)  # gives room for the reason
    reason = folder.first_reason(reason)
    if any(shards_in(folder.path)):
        with suppress(TraceError):  # killed before the first flush: nothing to keep
            trace.merge(folder.path, crashed=reason)
    return reason


def log_tail(folder: TrialFolder) -> str:
    """Return the end of a trial's log."""
    with suppress(OSError):  # no log, or none that can be read
        return "\n".join(files.read_end(folder.log).splitlines()[-TAIL:])
    return ""


def prepare(folder: Path) -> None:
    """See that a folder that is held can be written, without leaving anything."""
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            probe.write(b"\0" * 4096)
    except OSError as error:
        raise TraceError(_unwritable(folder, error)) from None


def _unwritable(folder: Path, error: OSError) -> str:
    return (
        f"the results folder {folder} cannot be written ({error}): choose another "
        "with --results, or free some space"
    )
