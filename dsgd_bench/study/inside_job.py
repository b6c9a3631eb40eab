"""Runs a study on the ranks of the MPI job that this process is one of."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dsgd_bench.errors import LaunchError, TraceError
from dsgd_bench.io.trial_folder import TrialFolder
from dsgd_bench.spec.job import Job
from dsgd_bench.spec.machine import Machine
from dsgd_bench.spec.trial import Study
from dsgd_bench.study import lock, rank_process, runner
from dsgd_bench.study.decision import FINISHED, STOPPED, Decision, Ended, decide, failed
from dsgd_bench.study.watchdog import Watchdog

if TYPE_CHECKING:
    from dsgd_bench.fabric.mpi.fabric import MpiFabric


def run_study_here(
    study: Study,
    machine: Machine,
    results: Path,
    display: runner.Display,
    fabric: "MpiFabric",
) -> runner.StudyOutcome:
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
    outcome = runner.begun(results / study.name, machine)
    with rank_process.answering(fabric, machine.watchdog) as watchdog:
        for number, job in enumerate(runner.jobs_of(study, machine), 1):
            trial = job.trial
            # not every rank's: their file systems may lag behind each other
            first = outcome.places.of(trial) if fabric.rank == 0 else None
            folder = fabric.gather(first)[0]
            with _held_by_first(fabric, job, folder, outcome.since) as decided:
                if decided is not Decision.SKIP:
                    display.starting(trial, number, len(study.trials))
                if decided is Decision.RUN:
                    ended = _on_ranks(fabric, job, folder, watchdog)
                    runner.note(outcome, trial, ended, display)
                elif isinstance(decided, Ended):
                    runner.note(outcome, trial, decided, display)
                else:
                    outcome.elsewhere += decided is Decision.LEAVE
                    runner.pass_over(decided, folder, outcome, trial, display)
    return outcome


def _on_ranks(
    fabric: "MpiFabric", job: Job, folder: TrialFolder, watchdog: Watchdog
) -> Ended:
    """Run one trial on the first ranks of the job; the others wait.

    It has finished or was stopped: what fails on the ranks ends the whole job.
    """
    part = fabric.part(range(job.trial.ranks))
    with rank_process.in_trial(watchdog, fabric, part, folder, job.machine.watchdog):
        if part is not None:
            work: Callable[[], None] = lambda: rank_process.run_trial(part, job, folder)  # noqa: E731
            rank_process.guarded(part, folder, work)
            part.close()
        fabric.barrier()
    stopped: bool = fabric.gather(folder.stopped.exists())[0]
    return STOPPED if stopped else FINISHED


@contextmanager
def _held_by_first(
    fabric: "MpiFabric", job: Job, folder: TrialFolder, since: float
) -> Iterator[Decision | Ended]:
    """Let rank 0 hold the folder and decide for all what becomes of the trial.

    It has failed, and the others are run, where the folder cannot be held or written:
    no rank has begun then.
    """
    if fabric.rank:
        yield fabric.gather(None)[0]
        return
    with ExitStack() as holding:
        try:
            ours = holding.enter_context(lock.held(folder.path))
            decided = _readied(job, folder, decide(job, folder, since, ours=ours))
        except TraceError as error:
            decided = failed(str(error))
        yield fabric.gather(decided)[0]


def _readied(job: Job, folder: TrialFolder, decision: Decision) -> Decision | Ended:
    """Make a folder that is held ready for its ranks, if the trial is to be run."""
    if decision is Decision.RUN:
        try:
            runner.prepare(folder.path)
            runner.clear(job, folder)
            job.write(folder.job)
        except TraceError as error:
            return failed(folder.first_reason(str(error)))
    return decision
