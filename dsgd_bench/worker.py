"""What one rank does in a trial: build, warm up, drive, judge, save."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dsgd_bench import graphs, problems, streams, trace
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.algorithms.base import Algorithm, Steps
from dsgd_bench.arrays import Array
from dsgd_bench.budget import Budget, Service
from dsgd_bench.config import BudgetSpec, ComputeSpec, SlowdownSpec, Trial
from dsgd_bench.copies import Copies
from dsgd_bench.fabric import progress
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.board import Board
from dsgd_bench.judge import judge
from dsgd_bench.optimizer import Optimizer
from dsgd_bench.problems import Batches, Problem
from dsgd_bench.slowdown import Slowdown

WARM_UP = BudgetSpec(steps=3)
"""Steps of the same trial, without slowdowns, before the clock starts."""

STAGGER = 0.8
"""Share of the emulated time over which the ranks' real gradients are spread."""

FIRST_DISTANCE = 1e-3
"""Seconds between the first copies of an asynchronous run of unknown length."""


class Worker:
    """A rank, as an algorithm sees it.

    Parameters
    ----------
    trial : Trial
        What is run.
    problem : Problem
        Loss and gradient.
    fabric : Fabric
        The way to the other ranks.
    """

    def __init__(self, trial: Trial, problem: Problem, fabric: Fabric) -> None:
        algorithm = ALGORITHMS[trial.algorithm.kind]
        self.fabric = fabric
        self.rank, self.size = fabric.rank, fabric.size
        servers = algorithm.servers(trial.algorithm.settings, self.size)
        self.workers = self.size - servers
        self.serves = self.rank >= self.workers
        self.epochs = 0.0
        self.lead = 1
        self.problem = problem
        in_full = "in-full" in algorithm.traits and not trial.optimizer.raw_lr
        share = 1 / self.workers if in_full else 1.0
        self.optimizer = Optimizer(trial.optimizer, problem.initial(), share)
        self.update = self.optimizer.update
        self.descend = self.optimizer.descend
        shards = trial.problem.shards
        self._batches = Batches(
            problem,
            ranks=self.workers,
            rank=min(self.rank, self.workers - 1),  # a server never asks for any
            batch=trial.problem.batch,
            shards_by=shards.by,
            alpha=shards.alpha,
            seed=trial.seed,
        )
        self._compute = trial.compute
        self._slowdown = Slowdown(trial.slowdown, seed=trial.seed, rank=self.rank)
        self._minimum = trial.slowdown.mode == "minimum"
        self._seed = trial.seed
        self._gradients = 0
        self.loss = float("nan")

    def gradient(self, x: Array, out: Array) -> float:
        """Compute the mean gradient of the next mini-batch; then be as slow as asked.

        Emulated compute ends at the earliest `seconds` after this rank was last done
        with a collective, or with a step that had none: updating the model is part of
        it. A slowdown of factor s stretches that minimum s-fold, or adds (s - 1) times
        it afterwards; what was asked and what came about are both booked.

        When in that time the real gradient is computed is another one on every rank:
        ranks that share cores would otherwise hold each other up at the start.
        """
        fabric, ledger, seconds = self.fabric, self.fabric.ledger, self._compute.seconds
        step = self._gradients
        self._gradients += 1
        started = fabric.now()
        began = ledger.free_since if seconds else started
        if seconds:
            fabric.pause(seconds * STAGGER * self.rank / self.size)
        self.loss = self.problem.gradient(x, self._batches.indices(step), out)
        computed = fabric.now()
        factor = self._slowdown.factor(step)
        unslowed = max(computed, began + seconds)
        if self._minimum:
            end = max(computed, began + seconds * factor)
        else:
            end = began + (unslowed - began) * factor
        if end > computed:
            fabric.pause(max(0.0, end - fabric.now()))
        whole = fabric.now() - started
        injected = 0.0 if factor == 1.0 else whole - (unslowed - started)
        ledger.front.compute += whole - injected
        ledger.front.injected += injected
        ledger.injected_asked += (factor - 1) * (seconds or computed - started)
        return self.loss

    @property
    def lr(self) -> float:
        """The learning rate now."""
        return self.optimizer.lr

    def schedule(self, epochs: float) -> None:
        """Set the epochs that are done, and the learning rate for them."""
        self.epochs = epochs
        self.optimizer.schedule(epochs)

    def round(self, steps: int) -> float:
        """Return the rounds done after so many own steps: a server's are messages."""
        return steps / self.workers if self.serves else float(steps)

    def graph(self, name: str, *, late: int = 0) -> graphs.Graph:
        """Return a graph over the workers whose messages a synchronous step awaits.

        A rank that has ended a step has had news, at most `late` steps old per hop,
        from everybody within the graph's reach: nobody is further ahead than that.
        """
        graph = graphs.make(name, self.workers)
        self.lead = max(self.lead, graph.reach() * (1 + late))
        return graph

    def neighbors(self, graph: str) -> "RandomNeighbors":
        """Return this rank's random neighbors in `graph`."""
        near = graphs.make(graph, self.workers).neighbors[self.rank]
        return RandomNeighbors(near, streams.Draws(self._seed, "neighbor", self.rank))


class RandomNeighbors:
    """Uniformly random neighbors, a pure function of (seed, rank, draw)."""

    def __init__(self, near: tuple[int, ...], draws: streams.Draws) -> None:
        self._near = near
        self._draws = draws
        self._count = 0

    def draw(self) -> int | None:
        """Return a random neighbor, or None if there is none."""
        if not self._near:
            return None
        u = self._draws[self._count]
        self._count += 1
        return self._near[int(u * len(self._near))]


def drive(
    steps: Steps, worker: Worker, budget: Budget | Service, copies: Copies, batch: int
) -> float:
    """Run one rank; only what lies between opening the ledger and the end is timed.

    A server's steps end by themselves, once every worker has left.

    Returns
    -------
    float
        Seconds on this rank's clock.
    """
    fabric, ledger = worker.fabric, worker.fabric.ledger
    x = next(steps)  # buffers and windows are made here
    copies.take_if_due(x, step=0, time=0.0)
    fabric.barrier()
    ledger.open()
    elapsed = 0.0
    samples = 0 if worker.serves else batch
    while budget.lasts(ledger.steps, elapsed):
        worker.schedule(budget.epochs)
        try:
            x = next(steps)
        except StopIteration:
            break
        elapsed = ledger.close_step(loss=worker.loss, samples=samples)
        started = fabric.now()
        if copies.take_if_due(x, step=worker.round(ledger.steps), time=elapsed):
            ledger.front.copying += fabric.now() - started
    return elapsed


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
    """

    trial: Trial
    folder: Path
    study: str
    progress: str
    provenance: dict[str, Any]

    def __call__(self, fabric: Fabric) -> None:
        """Run this rank of the trial; collective.

        Raises
        ------
        ConfigError
            If problem, graph and number of ranks do not fit.
        TraceError
            If the trace cannot be written.
        """
        trial = self.trial
        algorithm = ALGORITHMS[trial.algorithm.kind]
        problem = problems.make(trial.problem, trial.seed)
        verdict = progress.preflight(fabric, self.progress)
        self._warm_up(algorithm, problem, fabric)
        facts = trace.Facts(
            trial=trial,
            study=self.study,
            provenance=self.provenance,
            progress=verdict,
            epoch_samples=problem.samples,
            fabric=fabric.kind,
            servers=algorithm.servers(trial.algorithm.settings, fabric.size),
            staleness=algorithm.staleness,
            model_bytes=problem.dimension * problem.dtype.itemsize,
        )
        offset = fabric.clock_offset()
        with trace.ShardWriter(self.folder, fabric, facts) as shard:
            with np.errstate(all="ignore"):  # divergence is a result
                copies, final = self._timed(algorithm, problem, fabric, shard)
            judgments = judge(problem, fabric, copies, final, servers=facts.servers)
            shard.finish(judgments, offset, fabric.clock_offset())
        fabric.barrier()  # every shard is closed
        if fabric.rank == 0:
            trace.merge(self.folder)
        fabric.barrier()

    def _warm_up(self, algorithm: Algorithm, problem: Problem, fabric: Fabric) -> None:
        """Run a few steps of the same trial unobserved: caches, pages, connections."""
        trial = msgspec.structs.replace(
            self.trial, slowdown=SlowdownSpec(), compute=ComputeSpec()
        )
        worker = Worker(trial, problem, fabric)
        with Board(fabric) as board:
            copies = Copies(problem.initial(), capacity=2, distance=1.0, by_step=True)
            steps = algorithm.steps(
                problem.initial(), worker, **trial.algorithm.settings
            )
            budget = self._budget(WARM_UP, board, worker, algorithm)
            with np.errstate(all="ignore"):
                drive(steps, worker, budget, copies, trial.problem.batch)
            steps.close()

    def _timed(
        self,
        algorithm: Algorithm,
        problem: Problem,
        fabric: Fabric,
        shard: trace.ShardWriter,
    ) -> tuple[Copies, tuple[Array, float, float]]:
        """Run the trial proper; return the copies and the final model, as `judge`."""
        trial = self.trial
        worker = Worker(trial, problem, fabric)
        x = problem.initial()
        copies = self._copies(x, algorithm.synchronous)
        with Board(fabric) as board:
            steps = algorithm.steps(x, worker, **trial.algorithm.settings)
            budget = self._budget(trial.budget, board, worker, algorithm)
            with shard.recording():
                elapsed = drive(steps, worker, budget, copies, trial.problem.batch)
            steps.close()
            drained = fabric.now() - fabric.ledger.origin
        end = worker.round(fabric.ledger.steps) if algorithm.synchronous else elapsed
        return copies, (x, end, drained)

    def _copies(self, x: Array, synchronous: bool) -> Copies:
        capacity = self.trial.measure.copies
        budget = self.trial.budget
        distance = 1.0
        if not synchronous:
            distance = FIRST_DISTANCE
            if budget == BudgetSpec(seconds=budget.seconds):  # it will last that long
                distance = (budget.seconds or 0.0) / (capacity - 2)
        return Copies(x, capacity=capacity, distance=distance, by_step=synchronous)

    def _budget(
        self, settings: BudgetSpec, board: Board, worker: Worker, algorithm: Algorithm
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
        )
