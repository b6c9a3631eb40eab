"""Simulates a study: trial after trial in this process, all ranks in virtual time.

Ranks share the problem and keep their records in memory; what is written is one trace
per trial, of the same format as a measured one and marked as virtual.
"""

import gc
import time
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from dsgd_bench import problems, trace
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.errors import DsgdError, FabricError
from dsgd_bench.fabric.virtual.fabric import World
from dsgd_bench.fabric.virtual.network import Interconnect
from dsgd_bench.host import provenance
from dsgd_bench.io import files
from dsgd_bench.io.trial_folder import TrialFolder
from dsgd_bench.problems import Problem
from dsgd_bench.spec.job import Job
from dsgd_bench.spec.machine import Machine
from dsgd_bench.spec.trial import Study, Trial
from dsgd_bench.study import plan, runner
from dsgd_bench.study.decision import FINISHED, Ended, failed
from dsgd_bench.study.runner import StudyOutcome
from dsgd_bench.trace import trials
from dsgd_bench.trial.run import Run, Together


class Simulated:
    """How far the simulation of one trial is; may be asked at any moment.

    Attributes
    ----------
    trial : Trial
        What is simulated.
    """

    def __init__(self, trial: Trial, world: World, together: Together) -> None:
        self.trial = trial
        self._world, self._together = world, together
        self._steps = _steps(trial, together.problem.samples)
        self._began = time.monotonic()

    @property
    def time(self) -> float:
        """Virtual seconds that have passed."""
        return self._world.time

    @property
    def steps(self) -> int:
        """Steps that all ranks together have taken."""
        return sum(map(len, self._together.rows))

    @property
    def share(self) -> float:
        """Share of the budget that is used up, by what ends the trial first."""
        seconds = self.trial.budget.seconds
        used = [self.time / seconds] if seconds else []
        used += [self.steps / self._steps] if self._steps else []
        return min(1.0, max(used, default=0.0))

    @property
    def steps_per_second(self) -> float:
        """Steps of all ranks per second of this computer's time."""
        return self.steps / max(time.monotonic() - self._began, 1e-9)


class Display(runner.Display, Protocol):
    """Who is told how a simulated study gets on."""

    def running(self, progress: Simulated, /) -> None:
        """Show, from now on, how far a trial is."""


def simulate_study(study: Study, results: Path, display: Display) -> StudyOutcome:
    """Simulate every trial that is not finished; each has a network.

    Raises
    ------
    TraceError
        If the results folder cannot be written.
    """
    start = partial(_simulate, display=display)
    return runner.run_study(study, Machine(), results, display, start)


def _simulate(job: Job, folder: TrialFolder, display: Display) -> Ended:
    """Simulate one trial; return how it ended."""
    trials.clear(folder, checkpoints=True)
    try:
        job.write(folder.job)
        _run(job, folder, display)
        folder.ready.touch()
        return FINISHED
    except KeyboardInterrupt:
        folder.fail("interrupted: it will be simulated again")
        raise
    except DsgdError as error:
        reason = str(error)
    except MemoryError:
        reason = "this process has too little memory for so many ranks"
    except Exception as error:  # noqa: BLE001 (the other trials do not depend on it)
        said = traceback.format_exception_only(error)[-1].strip()
        reason = files.no_room(error, folder.path) or f"a simulated rank raised {said}"
        with suppress(OSError):  # no room for it either
            files.write_text(folder.log, traceback.format_exc())
    finally:
        gc.collect()  # ranks refer to each other, and there are thousands of them
    # returned as it is: the file may have no room
    return failed(folder.first_reason(" ".join(reason.split())))


def _run(job: Job, folder: TrialFolder, display: Display) -> None:
    """Run all ranks of a trial, and write its trace."""
    trial = job.trial
    problem = problems.make(trial.problem, trial.seed)
    together = Together(problem)
    world = world_of(trial, problem)
    display.running(Simulated(trial, world, together))
    work = Run(
        trial,
        folder.path,
        job.study,
        progress="none",
        provenance=provenance.collect(),
        resumes=False,
        together=together,
    )
    world.run(work)
    trace.write_trace(folder.path, together.shards)


def world_of(trial: Trial, problem: Problem) -> World:
    """Return the virtual time of a trial's ranks, over its network."""
    spec, links = trial.network, trial.slowdown.links
    if spec is None:
        raise FabricError("a trial without a network cannot be simulated: give it one")
    network = Interconnect(
        spec,
        trial.ranks,
        model_bytes=problem.dimension * problem.dtype.itemsize,
        slow=links if links.label else None,
        seed=spec.seed,
    )
    return World(trial.ranks, network, spec.seed)


def _steps(trial: Trial, epoch: int) -> float:
    """Return the steps of all workers after which the budget ends, 0 if it is none."""
    algorithm = ALGORITHMS[trial.algorithm.kind]
    servers = algorithm.servers(trial.algorithm.settings, trial.ranks)
    workers = trial.ranks - servers
    return workers * min(plan.rounds(trial, workers, epoch), default=0.0)
