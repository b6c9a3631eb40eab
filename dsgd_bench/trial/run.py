"""One trial on one rank: warm up, drive, evaluate and save, or stop and go on later."""

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np

from dsgd_bench import arrays, problems, trace
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.algorithms.base import Algorithm
from dsgd_bench.arrays import Array, Host
from dsgd_bench.config.identity import trial_id
from dsgd_bench.exchanges.resumable import State
from dsgd_bench.exchanges.termination import Board
from dsgd_bench.fabric import preflight, slow_links
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.problems import Problem
from dsgd_bench.spec.machine import GpuSpec
from dsgd_bench.spec.trial import BudgetSpec, ComputeSpec, SlowdownSpec, Trial
from dsgd_bench.trace.checkpoint import Checkpoint
from dsgd_bench.trial.budget import Budget, Service
from dsgd_bench.trial.evaluation import evaluate
from dsgd_bench.trial.gradient_time import GradientTimes
from dsgd_bench.trial.snapshots import Snapshots
from dsgd_bench.trial.worker import Worker, drive

WARM_UP = BudgetSpec(steps=3)
"""Steps of the same trial, without slowdowns, before the clock starts."""

FIRST_DISTANCE = 1e-3
"""Seconds between the first snapshots of an asynchronous run of unknown length."""


@dataclass(frozen=True)
class Ended:
    """What is left of the timed part on one rank.

    Attributes
    ----------
    snapshots : Snapshots
        Models kept for evaluation.
    final : (array, float, float)
        The model after the run, as `evaluate` takes it.
    elapsed : float
        Seconds until the end of this rank's last step.
    state : State
        What it needs to go on.
    stopped : bool
        Whether it ended before its budget was used up.
    """

    snapshots: Snapshots
    final: tuple[Array, float, float]
    elapsed: float
    state: State
    stopped: bool


@dataclass(frozen=True)
class Together:
    """What the ranks of one trial share that are simulated in one process.

    Nothing is measured there, so no warm-up is needed.

    Attributes
    ----------
    problem : Problem
        One for all: ranks take turns, and none pauses while it computes.
    shards : dict of int to Shard
        Their records, by rank, once they are finished; the caller writes them.
    rows : list of Packed
        Rows of their ledgers so far, one entry per rank.
    evaluated : int
        Ranks whose own models are evaluated, about.
    replayed : sequence of GradientTimes
        What the gradients of each worker take, where a run is replayed.
    """

    problem: Problem
    shards: dict[int, trace.Shard] = field(default_factory=dict)
    rows: list[trace.Packed] = field(default_factory=list)
    evaluated: int = 64
    replayed: Sequence[GradientTimes] = ()

    def times(self, rank: int) -> GradientTimes | None:
        """Return the gradient times of a rank; None where the trial says them."""
        return self.replayed[rank] if rank < len(self.replayed) else None

    def every(self, workers: int) -> int:
        """Return that the model of every so-many-th worker is evaluated."""
        return max(1, workers // self.evaluated)


@dataclass(frozen=True)
class Run:
    """One trial on one fabric: where it is written and what is written beside it.

    Attributes
    ----------
    trial : Trial
        What is run.
    folder : Path
        The trial's folder, which exists.
    study : str
        Name of the study it belongs to.
    progress : str
        ``"auto"``, ``"thread"`` or ``"none"``: who keeps MPI answering.
    provenance : dict
        Where and with what it is run.
    stop : callable, optional
        Tells rank 0 whether to stop before the budget is used up.
    resumes : bool
        Whether a stopped trial goes on where it was; else it starts again.
    gpu : GpuSpec
        How ranks use their GPUs.
    together : Together, optional
        What the ranks of this process share, where it has them all.
    """

    trial: Trial
    folder: Path
    study: str
    progress: str
    provenance: dict[str, Any]
    stop: Callable[[], bool] | None = None
    resumes: bool = True
    gpu: GpuSpec = field(default_factory=GpuSpec)
    together: Together | None = None

    def __call__(self, fabric: Fabric) -> bool:
        """Run this rank of the trial, or go on where it was stopped; collective.

        Returns
        -------
        bool
            Whether the trial is finished. If not, it was stopped.

        Raises
        ------
        ConfigError
            If problem, graph and number of ranks do not fit.
        TraceError
            If the trace cannot be written, or a checkpoint not be read.
        GpuError
            If a GPU has too little memory.
        """
        place = self._device(fabric)
        with place.guard(fabric.rank):
            return self._run(fabric, place)

    def _device(self, fabric: Fabric) -> Host:
        """Return where this rank computes: those of a host share its GPUs evenly."""
        if self.trial.compute.device == "cpu":
            return arrays.HOST
        nodes = fabric.nodes()
        mine = [rank for rank, node in enumerate(nodes) if node == nodes[fabric.rank]]
        compute = self.trial.compute
        place = arrays.device(
            compute.device, mine.index(fabric.rank), compute.precision
        )
        places = fabric.gather((nodes[fabric.rank], place.place))
        place.divide(places.count(places[fabric.rank]), self.gpu.memory)
        return place

    def _reaching(self, fabric: Fabric, place: Host) -> Fabric:
        """Return a fabric for vectors that lie in `place`."""
        if place.kind == "cpu":
            return fabric
        from dsgd_bench.arrays.cuda import Gpu
        from dsgd_bench.fabric.gpu.fabric import on_gpus

        return on_gpus(fabric, cast(Gpu, place), self.gpu.transport)

    def _run(self, fabric: Fabric, place: Host) -> bool:
        algorithm = ALGORITHMS[self.trial.algorithm.kind]
        problem = self._problem(place)
        fabric = self._reaching(fabric, place)
        verdict = preflight.preflight(fabric, self.progress)
        if self.together is None:
            self._warm_up(algorithm, problem, fabric)
        facts = self._facts(fabric, problem, verdict, _describe(fabric, place))
        before = self._last_checkpoint(fabric)
        started = fabric.clock_offset()
        with self._shard(fabric, facts, before) as shard:
            with np.errstate(all="ignore"):  # divergence is a result
                ended = self._timed(algorithm, problem, fabric, shard, before)
            offsets = started, fabric.clock_offset()
            finished = not any(fabric.gather(ended.stopped))
            if finished:
                judgments = evaluate(
                    problem,
                    fabric,
                    ended.snapshots,
                    ended.final,
                    servers=facts.servers,
                    every=self._evaluates(fabric.size - facts.servers),
                )
                shard.finish(judgments, *offsets)
            elif self.resumes and isinstance(shard, trace.ShardWriter):
                self._save(fabric, shard, ended, offsets)
        fabric.barrier()  # every shard is closed
        if self.together is not None:
            return finished
        if fabric.rank == 0 and finished:
            trace.merge(self.folder)
            trace.checkpoint.discard(self.folder)
        elif fabric.rank == 0 and self.resumes:
            trace.checkpoint.publish(self.folder)
        fabric.barrier()
        return finished

    def _facts(
        self,
        fabric: Fabric,
        problem: Problem,
        verdict: preflight.Verdict,
        place: dict[str, Any],
    ) -> trace.Facts:
        """Return what is known of the trial before it has begun."""
        trial = self.trial
        algorithm = ALGORITHMS[trial.algorithm.kind]
        scale = fabric.ledger.traffic.scale
        return trace.Facts(
            trial=trial,
            study=self.study,
            provenance=self.provenance | place,
            progress=verdict,
            epoch_samples=problem.samples,
            fabric=fabric.kind,
            servers=algorithm.servers(trial.algorithm.settings, fabric.size),
            staleness=algorithm.staleness,
            model_bytes=round(problem.dimension * problem.dtype.itemsize * scale),
            optimum=problem.optimum,
        )

    def _problem(self, place: Host) -> Problem:
        if self.together is not None:
            return self.together.problem
        return problems.make(self.trial.problem, self.trial.seed, device=place)

    def _shard(
        self, fabric: Fabric, facts: trace.Facts, before: Checkpoint | None
    ) -> trace.ShardWriter | trace.ShardKeeper:
        if self.together is not None:
            shared = self.together
            return trace.ShardKeeper(shared.shards, shared.rows, fabric, facts)
        return trace.ShardWriter(self.folder, fabric, facts, before)

    def _evaluates(self, workers: int) -> int:
        return 1 if self.together is None else self.together.every(workers)

    def _last_checkpoint(self, fabric: Fabric) -> Checkpoint | None:
        """Read this rank's part of the last checkpoint, the one that rank 0 sees."""
        place = trace.checkpoint.find(self.folder) if self.resumes else None
        place = fabric.gather(place)[0]
        if place is None:
            return None
        return trace.checkpoint.read(place, fabric.rank, trial=trial_id(self.trial))

    def _warm_up(self, algorithm: Algorithm, problem: Problem, fabric: Fabric) -> None:
        """Run a few steps of the same trial unobserved: caches, pages, connections."""
        trial = msgspec.structs.replace(
            self.trial, slowdown=SlowdownSpec(), compute=ComputeSpec()
        )
        worker = Worker(trial, problem, fabric)
        with Board(fabric) as board:
            snapshots = Snapshots(
                problem.initial(), capacity=2, distance=1.0, by_step=True
            )
            steps = algorithm.steps(
                problem.initial(), worker, **trial.algorithm.settings
            )
            budget = self._budget(WARM_UP, board, worker, algorithm)
            with np.errstate(all="ignore"):
                drive(steps, worker, budget, snapshots, trial.problem.batch)
            steps.close()

    def _timed(
        self,
        algorithm: Algorithm,
        problem: Problem,
        fabric: Fabric,
        shard: trace.ShardWriter | trace.ShardKeeper,
        before: Checkpoint | None,
    ) -> Ended:
        """Run the trial proper, up to its end or to a stop; links may be slow."""
        trial = self.trial
        if trial.network is None:  # else it has prices for slow links, too
            fabric = slow_links.slowed(fabric, trial.slowdown.links)
        state = State()
        if before is not None:
            state = State(before.step, before.elapsed, before.arrays)
        shared = self.together
        replayed = shared.times(fabric.rank) if shared else None
        worker = Worker(trial, problem, fabric, state, replayed)
        x = state.keep("model", problem.initial())
        snapshots = self._snapshots(x, algorithm.synchronous)
        if before is not None:
            snapshots.unpack(before.copies)
        with Board(fabric, sum(fabric.gather(state.step)[: worker.workers])) as board:
            steps = algorithm.steps(x, worker, **trial.algorithm.settings)
            budget = self._budget(
                trial.budget, board, worker, algorithm, stop=self._stop(fabric)
            )
            with shard.recording():
                elapsed = drive(steps, worker, budget, snapshots, trial.problem.batch)
            steps.close()
            shard.drained = fabric.ledger.drained()
            drained = fabric.now() - fabric.ledger.origin
        end = worker.round(fabric.ledger.steps) if algorithm.synchronous else elapsed
        final = arrays.host(x), end, drained
        return Ended(snapshots, final, elapsed, state, budget.stopped)

    def _stop(self, fabric: Fabric) -> Callable[[], bool] | None:
        """Return what tells when to stop; None on all ranks if it is on rank 0."""
        if fabric.gather(self.stop is not None)[0]:
            return self.stop or (lambda: False)
        return None

    def _save(
        self,
        fabric: Fabric,
        shard: trace.ShardWriter,
        ended: Ended,
        offsets: tuple[tuple[float, float], tuple[float, float]],
    ) -> None:
        """Write this rank's part of a checkpoint; the clock stops for all at once."""
        origin = fabric.ledger.origin - (offsets[0][0] + offsets[1][0]) / 2
        origins, ends = zip(
            *fabric.gather((origin, origin + ended.elapsed)), strict=True
        )
        elapsed = max(ends) - min(origins)
        interruption = {
            "seconds": elapsed,
            "stopped_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "host": platform.node(),
        }
        trace.checkpoint.write(
            self.folder,
            fabric.rank,
            shard.checkpoint(
                {name: arrays.host(kept) for name, kept in ended.state.arrays.items()},
                ended.snapshots.pack(),
                elapsed=elapsed,
                origin=origin,
                interruption=interruption,
            ),
            trial=trial_id(self.trial),
        )

    def _snapshots(self, x: Array, synchronous: bool) -> Snapshots:
        capacity = self.trial.measure.copies
        budget = self.trial.budget
        distance = 1.0
        if not synchronous:
            distance = FIRST_DISTANCE
            if budget == BudgetSpec(seconds=budget.seconds):  # it will last that long
                distance = (budget.seconds or 0.0) / (capacity - 2)
        return Snapshots(x, capacity=capacity, distance=distance, by_step=synchronous)

    def _budget(
        self,
        settings: BudgetSpec,
        board: Board,
        worker: Worker,
        algorithm: Algorithm,
        *,
        stop: Callable[[], bool] | None = None,
    ) -> Budget | Service:
        batch, epoch = self.trial.problem.batch, worker.problem.samples
        if worker.serves:
            return Service(batch / epoch)
        return Budget(
            settings,
            board,
            batch=batch,
            epoch=epoch,
            workers=worker.workers,
            synchronous=algorithm.synchronous,
            counted=self.trial.optimizer.schedule.kind != "constant",
            lead=lambda: worker.lead,
            stop=stop,
            step=worker.state.step,
        )


def _describe(fabric: Fabric, place: Host) -> dict[str, Any]:
    """Return what the trace says of the GPUs of all ranks; nothing on hosts."""
    gpus = fabric.gather(place.describe())
    if place.kind == "cpu":
        return {}
    transport = asdict(fabric.transport)  # type: ignore[attr-defined]
    kinds = {f"{g['name']}, CuPy {g['cupy']}, CUDA {g['runtime']}" for g in gpus}
    return {"gpu": sorted(kinds), "gpus": gpus, "gpu_transport": transport}
