"""Runs a study: one trial after the other, skipping what is finished.

Either this process starts the ranks of each trial with the machine's launcher, or, if
it is itself a rank of an MPI job, all ranks run the trials together.

A trial's folder ``RESULTS/STUDY/ID`` tells how far it is: ``READY`` means finished,
``ERROR`` says in a sentence why it failed; anything else is run (again).
"""

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dsgd_bench import launch, processes, rank, trace
from dsgd_bench.errors import LaunchError, TraceError
from dsgd_bench.specs import Job, Machine, Study, Trial

if TYPE_CHECKING:
    from dsgd_bench.fabric.mpi import MpiFabric

JOB, LOG, LOCK = "job.json", "log.txt", ".lock"

TAIL = 12
"""Lines of a failed trial's log that are shown."""


class Display(Protocol):
    """Who is told how the study gets on."""

    def starting(self, trial: Trial, number: int, of: int, /) -> None:
        """Say that a trial is being started."""

    def ended(self, trial: Trial, outcome: str, /) -> None:
        """Say how a trial ended: ``finished``, ``skipped`` or why it failed."""


@dataclass
class Outcome:
    """What became of the trials of a study.

    Attributes
    ----------
    folder : Path
        Where the study's results are.
    finished, skipped : int
        Trials run now, and finished before.
    elsewhere : int
        Trials that another dsgd-bench is running.
    failed : list of (Trial, str)
        Trials that failed, and why.
    """

    folder: Path
    finished: int = 0
    skipped: int = 0
    elsewhere: int = 0
    failed: list[tuple[Trial, str]] = field(default_factory=list)


def run_study(
    study: Study, machine: Machine, results: Path, display: Display
) -> Outcome:
    """Run every trial that is not finished, each with the machine's launcher.

    Raises
    ------
    LaunchError
        If the launcher cannot be found.
    TraceError
        If the results folder cannot be written.
    """
    outcome = Outcome(results / study.name)
    for number, trial in enumerate(study.trials, 1):
        folder = _prepare(outcome.folder / trial.id)
        with _locked(folder) as ours:
            if (folder / rank.READY).exists():
                outcome.skipped += 1
                display.ended(trial, "skipped")
            elif not ours:
                outcome.elsewhere += 1
                display.ended(trial, "is being run by another dsgd-bench")
            else:
                display.starting(trial, number, len(study.trials))
                reason = _launch(Job(study.name, trial, machine), folder)
                _note(outcome, trial, reason, display)
    return outcome


def _note(outcome: Outcome, trial: Trial, reason: str, display: Display) -> None:
    if reason:
        outcome.failed.append((trial, reason))
    else:
        outcome.finished += 1
    display.ended(trial, reason or "finished")


def _launch(job: Job, folder: Path) -> str:
    """Run one trial with the launcher; return why it failed, or nothing."""
    clear(folder)
    job.write(folder / JOB)
    ranks, machine = job.trial.ranks, job.machine
    command = launch.command(folder / JOB, ranks, machine, sys.executable)
    environment = launch.environment(ranks, machine, sys.executable)
    try:
        status = processes.run(command, environment, folder / LOG)
    except KeyboardInterrupt:
        _give_up(folder, "interrupted: it will be run again")
        raise
    if (folder / rank.READY).exists():
        return ""
    return _give_up(folder, f"the launcher ended with status {status}")


def _give_up(folder: Path, reason: str) -> str:
    """Keep what a failed trial recorded; return the first reason that was given."""
    rank.note_error(folder, reason)
    reason = (folder / rank.ERROR).read_text().strip() or reason
    if any(folder.glob("rank-*.h5")):
        with suppress(TraceError):  # killed before the first flush: nothing to keep
            trace.merge(folder, crashed=reason)
    return reason


def log_tail(folder: Path) -> str:
    """Return the end of a trial's log."""
    path = folder / LOG
    if not path.exists():
        return ""
    return "\n".join(path.read_text(errors="replace").splitlines()[-TAIL:])


def clear(folder: Path) -> None:
    """Remove what an earlier, failed run of a trial left."""
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _prepare(folder: Path) -> Path:
    """Make the trial's folder and see that it can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
    except OSError as error:
        raise TraceError(
            f"the results folder {folder} cannot be written ({error}): choose another "
            "with --results, or free some space"
        ) from None
    return folder


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold the trial's folder; the kernel lets go of it when this process dies."""
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        except OSError:  # no locks on this file system; one run at a time is up to you
            yield True
        else:
            yield True


def run_study_here(
    study: Study,
    machine: Machine,
    results: Path,
    display: Display,
    fabric: "MpiFabric",
) -> Outcome:
    """Run the study on the ranks of the MPI job that this process is one of.

    Raises
    ------
    LaunchError
        If a trial asks for more ranks than the job has.
    """
    largest = max((trial.ranks for trial in study.trials), default=0)
    if largest > fabric.size:
        raise LaunchError(
            f"study {study.name} asks for {largest} ranks but this MPI job has "
            f"{fabric.size}: start it with mpiexec -n {largest}, or without mpiexec"
        )
    outcome = Outcome(results / study.name)
    for number, trial in enumerate(study.trials, 1):
        folder = outcome.folder / trial.id
        with _held_by_first(fabric, folder) as state:
            if state != "run":
                outcome.skipped += state == "skipped"
                outcome.elsewhere += state != "skipped"
                display.ended(trial, state)
                continue
            display.starting(trial, number, len(study.trials))
            _on_ranks(fabric, Job(study.name, trial, machine), folder)
            _note(outcome, trial, "", display)
    return outcome


def _on_ranks(fabric: "MpiFabric", job: Job, folder: Path) -> None:
    """Run one trial on the first ranks of the job; the others wait."""
    if fabric.rank == 0:
        job.write(folder / JOB)
    part = fabric.part(job.trial.ranks)
    if part is not None:
        work: Callable[[], None] = lambda: rank.run_trial(part, job, folder)  # noqa: E731
        rank.guarded(part, folder, work)
        part.close()
    fabric.barrier()


@contextmanager
def _held_by_first(fabric: "MpiFabric", folder: Path) -> Iterator[str]:
    """Let rank 0 hold the folder and decide for all what becomes of the trial."""
    if fabric.rank:
        yield fabric.gather(None)[0]
        return
    with _locked(_prepare(folder)) as ours:
        ready = (folder / rank.READY).exists()
        state = "run" if ours else "is being run by another dsgd-bench"
        if ready:
            state = "skipped"
        elif ours:
            clear(folder)
        yield fabric.gather(state)[0]
