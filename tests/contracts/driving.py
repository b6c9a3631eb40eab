"""Drive an algorithm on one rank with gradients that the test chooses."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import numpy as np

from dsgd_bench.algorithms import ALGORITHMS, Algorithm
from dsgd_bench.algorithms.base import Steps
from dsgd_bench.arrays import HOST, Array, copy, host
from dsgd_bench.exchanges.resumable import State
from dsgd_bench.exchanges.termination import Board
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.columns import COLUMNS
from dsgd_bench.problems import Judgment, Problem
from dsgd_bench.problems.base import Ready
from dsgd_bench.spec.trial import (
    AlgorithmSpec,
    BudgetSpec,
    ComputeSpec,
    OptimizerSpec,
    ProblemSpec,
    SlowdownSpec,
    Trial,
)
from dsgd_bench.trial.budget import Budget, Service
from dsgd_bench.trial.snapshots import Snapshots
from dsgd_bench.trial.worker import Worker, drive

DIMENSION = 7
SAMPLES = 1024

Slope = Callable[[int, int, Array], Any]
"""``slope(rank, step, x)`` is the gradient of one rank in one step."""

Put = Callable[[Array], Array]
"""Copies a model to where it is to lie."""


def flat(rank: int, step: int, x: Array) -> float:
    """No gradient at all."""
    return 0.0


def bowl(rank: int, step: int, x: Array) -> Array:
    """f(x) = 1/4 ||x - c||^2, with a center of its own for every rank."""
    return 0.5 * (x - np.cos(np.arange(x.size) + rank))


def start_of(rank: int, dimension: int = DIMENSION) -> Array:
    """Models that differ from rank to rank and from element to element."""
    return np.sin(1.0 + np.arange(dimension) + 10.0 * rank)


class Sloped:
    """A problem whose gradient is `slope`; it remembers every gradient it gave."""

    labels = None
    optimum = None
    samples = SAMPLES

    def __init__(
        self, rank: int, start: Array, slope: Slope, put: Put = HOST.put
    ) -> None:
        self.dimension, self.dtype = start.size, start.dtype
        self.gradients: list[Array] = []
        self._rank, self._start, self._slope, self._put = rank, start, slope, put

    def initial(self) -> Array:
        return self._put(self._start)

    def gradient(
        self, x: Array, indices: Any, out: Array, ready: Ready | None = None
    ) -> float:
        g = np.empty_like(self._start)
        g[:] = self._slope(self._rank, len(self.gradients), host(x))
        copy(g, out)
        self.gradients.append(g)
        if ready is not None:  # in three parts, one of them empty
            for end, start in pairwise((out.size, out.size // 2, out.size // 2, 0)):
                ready(slice(start, end))
        return float(g @ g)

    def evaluate(self, x: Array) -> Judgment:
        return Judgment(loss=float(x @ x), accuracy=float("nan"))


class Exactly:
    """A budget of so many steps on every rank, asynchronous or not."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self.epochs = 0.0

    def lasts(self, steps: int, elapsed: float) -> bool:
        return steps < self._steps


class InTurn(Exactly):
    """As many steps, no rank more than one ahead, each with an averaging of its own.

    How fast ranks that share cores get on is the operating system's affair: one may
    take all its steps before another begins, or before its own communication thread
    has averaged once.
    """

    def __init__(self, steps: int, fabric: Fabric, *, threaded: bool) -> None:
        super().__init__(steps)
        self._fabric = fabric
        self._waits = threaded and fabric.size > 1

    def lasts(self, steps: int, elapsed: float) -> bool:
        while self._waits and self._fabric.ledger.exchanges.total() < steps:
            self._fabric.pause(1e-4)
        self._fabric.barrier()
        return super().lasts(steps, elapsed)


@dataclass
class Walk:
    """What one rank saw: models as yielded, gradients as given, and its accounts."""

    models: list[Array]
    gradients: list[Array]
    final: Array
    rows: list[tuple[float, ...]]
    counts: dict[str, int]
    exchanges: dict[int, int]
    serves: bool = False
    handed_over: int = 0
    """Bytes handed over to be sent until everything was closed."""
    state: State = field(default_factory=State)
    """What this rank needs to go on from here."""

    def column(self, name: str) -> Array:
        return np.array([row[COLUMNS.index(name)] for row in self.rows], float)

    @property
    def spent(self) -> Array:
        """All gradients of this rank, added up."""
        return sum(self.gradients, np.zeros_like(self.final))


def a_trial(
    fabric: Fabric,
    *,
    kind: str = "allreduce",
    settings: dict[str, Any] | None = None,
    optimizer: OptimizerSpec | None = None,
    spec: ProblemSpec | None = None,
    slowdown: SlowdownSpec | None = None,
    compute: float | None = None,
    seed: int = 0,
) -> Trial:
    """Return a trial for `Worker`; gradients take a while, on MPI a short one."""
    if compute is None:
        compute = 0.003 if fabric.kind == "virtual" else 0.001
    return Trial(
        ranks=fabric.size,
        seed=seed,
        algorithm=AlgorithmSpec(kind, settings or {}),
        optimizer=optimizer or OptimizerSpec(),
        problem=spec or ProblemSpec("quadratic", batch=1, dtype="float64"),
        slowdown=slowdown or SlowdownSpec(),
        compute=ComputeSpec("emulated" if compute else "measured", compute),
        budget=BudgetSpec(steps=1),
    )


def walk(
    fabric: Fabric,
    algorithm: str | Algorithm,
    *,
    slope: Slope = bowl,
    start: Array | None = None,
    problem: Problem | None = None,
    steps: int = 4,
    budget: BudgetSpec | Exactly | None = None,
    settings: dict[str, Any] | None = None,
    before: Walk | None = None,
    **more: Any,
) -> Walk:
    """Run one rank as `dsgd_bench.trial.run` does, up to step `steps` or a `budget`.

    `start` is the first model of this rank, by default a model common to all; it goes
    on from `before` if there is one; `more` goes into `a_trial`.
    """
    if isinstance(algorithm, str):
        algorithm = ALGORITHMS[algorithm]
    start = start_of(0) if start is None else start
    state = State()
    if before is not None:
        start = before.final
        state = State(before.state.step, 1.0, before.state.arrays)
        slope = later(slope, before)
    put = getattr(fabric, "gpu", HOST).put
    problem = problem or cast(Problem, Sloped(fabric.rank, start, slope, put))
    trial = a_trial(fabric, kind=algorithm.name, settings=settings, **more)
    worker = Worker(trial, problem, fabric, state)
    x = problem.initial()
    models: list[Array] = []
    ledger = fabric.ledger
    snapshots = Snapshots(x, capacity=2, distance=1e9, by_step=True)
    with Board(fabric) as board:
        until: Any = budget or Exactly(steps)
        if worker.serves:
            until = Service(1 / worker.problem.samples)
        elif isinstance(budget, BudgetSpec):
            until = a_budget(budget, board, worker, algorithm)
        walking = noting(algorithm.steps(x, worker, **(settings or {})), models)
        handed_over = ledger.traffic.bytes_out
        drive(walking, worker, until, snapshots, trial.problem.batch)
        walking.close()
    return Walk(
        models,
        list(getattr(problem, "gradients", [])),
        host(x),
        list(ledger.rows),
        dict(ledger.counts),
        dict(ledger.exchanges),
        worker.serves,
        ledger.traffic.bytes_out - handed_over,
        saved(ledger.steps, state),
    )


def saved(step: int, state: State) -> State:
    """Return a state as it would be read from a checkpoint."""
    copied = State(step)
    copied.arrays = {name: host(array).copy() for name, array in state.arrays.items()}
    return copied


def later(slope: Slope, before: Walk) -> Slope:
    """Return `slope` counted from the gradients that were given before."""
    given = before.state.arrays["gradients"].item(0)
    return lambda rank, step, x: slope(rank, step + given, x)


def a_budget(
    spec: BudgetSpec, board: Board, worker: Worker, algorithm: Algorithm
) -> Budget:
    return Budget(
        spec,
        board,
        batch=1,
        epoch=worker.problem.samples,
        workers=worker.workers,
        synchronous=algorithm.synchronous,
        lead=lambda: worker.lead,
    )


def noting(steps: Steps, models: list[Array]) -> Steps:
    """Yield what `steps` yields and keep a copy of it."""
    try:
        for x in steps:
            models.append(host(x).copy())
            yield x
    finally:
        steps.close()
