"""A rank as an algorithm sees it, and the loop that drives its steps."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dsgd_bench import graphs, rng
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.algorithms.base import Steps
from dsgd_bench.algorithms.facts import amount
from dsgd_bench.arrays import Array, finish
from dsgd_bench.exchanges.resumable import State
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.problems import Batches, Problem
from dsgd_bench.problems.base import Ready
from dsgd_bench.slowdowns import Slowdown
from dsgd_bench.spec.trial import Trial
from dsgd_bench.trial import gradient_time
from dsgd_bench.trial.budget import Budget, Service
from dsgd_bench.trial.optimizer import Optimizer
from dsgd_bench.trial.snapshots import Snapshots

STAGGER = 0.8
"""Share of the emulated time over which the ranks' real gradients are spread."""

FORWARD = 1 / 3
"""Share of a gradient's time before its first part is ready: backpropagation takes
twice as many operations as the way forward."""


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
    state : State, optional
        What survived a stop of this trial.
    replayed : GradientTimes, optional
        What gradients take instead of what the trial says, whenever they start.
    """

    def __init__(
        self,
        trial: Trial,
        problem: Problem,
        fabric: Fabric,
        state: State | None = None,
        replayed: gradient_time.GradientTimes | None = None,
    ) -> None:
        algorithm = ALGORITHMS[trial.algorithm.kind]
        self.state = state = state or State()
        self.fabric = fabric
        self.rank, self.size = fabric.rank, fabric.size
        servers = algorithm.servers(trial.algorithm.settings, self.size)
        self.workers = self.size - servers
        self.serves = self.rank >= self.workers
        self.epochs = 0.0
        setup = algorithm.setup(trial.algorithm.settings, self.size)
        self.lead = int(amount(algorithm.max_skew, setup))
        self.problem = problem
        per_gradient = (
            "per-gradient-lr" in algorithm.traits and not trial.optimizer.raw_lr
        )
        share = 1 / self.workers if per_gradient else 1.0
        self.optimizer = Optimizer(trial.optimizer, problem.initial(), share, state)
        self.updating = fabric.ledger.updating
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
        times = replayed or gradient_time.of(
            trial.compute, seed=trial.seed, rank=self.rank
        )
        self._seconds = times.seconds
        self._replays = replayed is not None
        self._padded = trial.compute.mode != "measured"
        # in virtual time no core is shared
        self._stagger = STAGGER * self.rank / self.size * (fabric.kind == "mpi")
        self._slowdown = Slowdown(trial.slowdown, seed=trial.seed, rank=self.rank)
        self._minimum = trial.slowdown.mode == "minimum"
        self._seed = trial.seed
        self._gradients = state.keep("gradients", np.zeros(1, np.int64))
        self.loss = float("nan")

    def gradient(self, x: Array, out: Array, ready: Ready | None = None) -> float:
        """Compute the mean gradient of the next mini-batch; then be as slow as asked.

        Emulated compute ends at the earliest `GradientTimes.seconds` after this rank
        was last done with a collective, or with a step that had none: updating the
        model is part of it. A slowdown of factor s stretches that minimum s-fold, or
        adds (s - 1) times it afterwards; what was asked and what came about are both
        booked.

        When in that time the real gradient is computed is another one on every rank:
        ranks that share cores would otherwise hold each other up at the start.

        `ready` is told of each part of `out` once it is final. If computing is emulated
        or slowed down, that is stretched over the whole time: see `Parts`.
        """
        fabric, ledger = self.fabric, self.fabric.ledger
        step = self._gradients.item(0)
        self._gradients[0] = step + 1
        seconds = self._seconds(step)
        factor = self._slowdown.factor(step)
        started = fabric.now()
        began = ledger.free_since if seconds and not self._replays else started
        if seconds and self._stagger:
            fabric.pause(seconds * self._stagger)
        parts = Parts(fabric, ready, later=self._padded or factor != 1.0)
        self.loss = self._compute_gradient(x, step, out, parts)
        computed = fabric.now()
        unslowed = max(computed, began + seconds)
        if self._minimum:
            end = max(computed, began + seconds * factor)
        else:
            end = began + (unslowed - began) * factor
        if parts.wanted:
            parts.pass_on(began, end)
        if end > computed:
            fabric.pause(max(0.0, end - fabric.now()))
        whole = fabric.now() - started - parts.spent
        injected = 0.0 if factor == 1.0 else whole - (unslowed - started)
        ledger.training.compute += whole - injected
        ledger.training.injected += injected
        asked = seconds or computed - started
        ledger.injected_asked += (factor - 1) * asked
        return self.loss

    def _compute_gradient(
        self, x: Array, step: int, out: Array, parts: "Parts"
    ) -> float:
        indices = self._batches.indices(step)
        if not parts.wanted:
            return self.problem.gradient(x, indices, out)
        with parts:
            return self.problem.gradient(x, indices, out, parts.ready)

    def update(self, x: Array, g: Array) -> None:
        """Move `x` by `g` as the optimizer says; booked, on the training thread."""
        with self.updating:
            self.optimizer.update(x, g)
            finish(x)  # a GPU's arithmetic is no part of what comes next

    def descend(self, x: Array, g: Array, scale: float = 1.0) -> None:
        """Move `x` by -`scale` lr `g`; booked, on the training thread."""
        with self.updating:
            self.optimizer.descend(x, g, scale)
            finish(x)

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

    def graph(self, name: str) -> graphs.Graph:
        """Return a graph over the workers."""
        return graphs.make(name, self.workers)

    def neighbors(self, graph: str) -> "RandomNeighbors":
        """Return this rank's random neighbors in `graph`."""
        near = graphs.make(graph, self.workers).neighbors[self.rank]
        draws = rng.Draws(self._seed, "neighbor", self.rank)
        count = self.state.keep("neighbors", np.zeros(1, np.int64))
        return RandomNeighbors(near, draws, count)


class Parts:
    """Tells an algorithm which parts of a gradient are ready, perhaps as slow as asked.

    A part of an emulated or slowed gradient is ready as far into the whole time as it
    was into the real computation. Where no time passes in that, in virtual time, the
    forward pass takes `FORWARD` of the whole, and each part its share by size of the
    rest.

    Parameters
    ----------
    fabric : Fabric
        Whose clock counts.
    ready : callable, optional
        What the algorithm wants to have called.
    later : bool
        Whether that waits for `pass_on`; else it is called at once.

    Attributes
    ----------
    wanted : bool
        Whether anybody wants to know.
    spent : float
        Seconds that the algorithm took in these calls: no part of computing.
    """

    def __init__(self, fabric: Fabric, ready: Ready | None, *, later: bool) -> None:
        self._fabric, self._ready, self._later = fabric, ready, later
        self._noted: list[tuple[slice, float]] = []
        self._span = (0.0, 0.0)
        self.wanted = ready is not None
        self.spent = 0.0

    def __enter__(self) -> None:
        self._span = (self._fabric.now(), 0.0)

    def __exit__(self, *_: object) -> None:
        self._span = (self._span[0], self._fabric.now())

    def ready(self, part: slice) -> None:
        """Take note of a part, or tell of it at once."""
        if self._later:
            self._noted.append((part, self._fabric.now()))
        else:
            self._tell(part)

    def pass_on(self, began: float, end: float) -> None:
        """Tell of all that was noted, as if computing had lasted from began to end."""
        fabric, (first, last) = self._fabric, self._span
        size = self._noted[0][0].stop if self._noted else 0
        for part, at in self._noted:
            share = FORWARD + (1 - FORWARD) * (1 - part.start / max(size, 1))
            if last > first:
                share = (at - first) / (last - first)
            left = began + share * (end - began) - fabric.now()
            if left > 0.0:
                fabric.pause(left)
            self._tell(part)

    def _tell(self, part: slice) -> None:
        if self._ready is not None:
            started = self._fabric.now()
            self._ready(part)
            self.spent += self._fabric.now() - started


class RandomNeighbors:
    """Uniformly random neighbors, a pure function of (seed, rank, draw)."""

    def __init__(
        self, near: Sequence[int], draws: rng.Draws, count: NDArray[np.int64]
    ) -> None:
        self._near, self._degree = near, len(near)
        self._draws = draws
        self._count = count

    def draw(self) -> int | None:
        """Return a random neighbor, or None if there is none."""
        if not self._degree:
            return None
        drawn = self._count.item(0)
        self._count[0] = drawn + 1
        return self._near[int(self._draws[drawn] * self._degree)]


def drive(
    steps: Steps,
    worker: Worker,
    budget: Budget | Service,
    snapshots: Snapshots,
    batch: int,
) -> float:
    """Run one rank; only what lies between opening the ledger and the end is timed.

    A server's steps end by themselves, once every worker has left. Where the run goes
    on after a stop, steps and clock do, too.

    Returns
    -------
    float
        Seconds on this rank's clock.
    """
    fabric, ledger = worker.fabric, worker.fabric.ledger
    before, elapsed = worker.state.step, worker.state.elapsed
    x = next(steps)  # buffers and windows are made here
    snapshots.take_if_due(x, step=worker.round(before), time=elapsed)
    fabric.barrier()
    ledger.open(before, elapsed)
    samples = 0 if worker.serves else batch
    while budget.lasts(ledger.steps, elapsed):
        worker.schedule(budget.epochs)
        try:
            x = next(steps)
        except StopIteration:
            break
        elapsed = ledger.close_step(loss=worker.loss, samples=samples)
        started = fabric.now()
        if snapshots.take_if_due(x, step=worker.round(ledger.steps), time=elapsed):
            ledger.training.snapshot += fabric.now() - started
    return elapsed
