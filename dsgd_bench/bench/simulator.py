"""How fast the simulator is: worker-steps and events per second, and memory."""

import platform
import resource
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Self

from dsgd_bench import problems, rng
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.algorithms.adpsgd import adpsgd
from dsgd_bench.analysis.statistics import median
from dsgd_bench.bench.flags import MIB, Parser, count, ranks
from dsgd_bench.bench.output import Row, fom, header, spread, table
from dsgd_bench.exchanges.termination import Board
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual.fabric import Interconnect, World
from dsgd_bench.io import printing
from dsgd_bench.spec.network import preset
from dsgd_bench.spec.trial import (
    AlgorithmSpec,
    BudgetSpec,
    ComputeSpec,
    ProblemSpec,
    Trial,
)
from dsgd_bench.trial.budget import Budget
from dsgd_bench.trial.snapshots import Snapshots
from dsgd_bench.trial.worker import Worker, drive

NETWORK = "ethernet-10"

SECONDS = 0.02
"""Emulated compute of a step, in virtual time."""

EVENTS = 200
"""Events per rank where there is no model."""

SAMPLES = 16_384
"""Of the quadratic; the ranks share them."""


@dataclass(frozen=True)
class SimulatorOptions:
    """What ``dsgd-bench bench simulator`` was asked.

    Attributes
    ----------
    workers : tuple of int
        Simulated ranks, one run each.
    algorithm : str
        What they run.
    dimension : int
        Elements of the model, in single precision.
    steps : int
        Steps per worker.
    iterations, warm_up, percentiles, full, words
        As in `AverageOptions`.
    """

    workers: tuple[int, ...] = (64, 1024, 10_000)
    algorithm: str = adpsgd.name
    dimension: int = 1000
    steps: int = 20
    iterations: int = 3
    warm_up: int = 0
    percentiles: tuple[float, ...] = ()
    full: bool = False
    words: tuple[str, ...] = ()

    ranks = 1  # all of it happens in one process

    @classmethod
    def from_argv(cls, words: Sequence[str]) -> Self:
        """Read the words of a command line; wrong ones end the program, as usual."""
        parser = Parser("simulator", iterations=cls.iterations, warm_up=cls.warm_up)
        add = parser.add_argument
        add("-n", dest="workers", type=_counts, metavar="N,...", default=cls.workers)
        add("--algorithm", choices=_WITHOUT_SERVERS, default=cls.algorithm)
        add("--dimension", type=count, default=cls.dimension, help="elements of models")
        add("--steps", type=count, default=cls.steps, help="steps per worker")
        return cls(**vars(parser.parse_args(words)), words=tuple(words))


_WITHOUT_SERVERS = [name for name, a in ALGORITHMS.items() if not a.servers({}, 2)]


def _counts(text: str) -> tuple[int, ...]:
    return tuple(ranks(word) for word in text.split(","))


@dataclass
class Found:
    """What the runs with one number of workers have shown.

    Attributes
    ----------
    seconds : list of float
        Seconds per worker-step, one per run.
    events : list of float
        Seconds per event of the same runs.
    bare : list of float
        Seconds per event of runs without models.
    peak : int
        Most bytes of memory that the process had so far.
    """

    seconds: list[float] = field(default_factory=list)
    events: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    peak: int = 0


def simulator(fabric: Fabric, options: SimulatorOptions) -> None:
    """Simulate in this process, a model on every worker and then none; print."""
    facts = {
        "Simulated": f"{options.algorithm}, quadratic, {options.dimension} parameters, "
        f"batch 1, {options.steps} steps of {1e3 * SECONDS:g} ms, on {NETWORK}",
        "Iterations": f"{options.iterations}, warm-up {options.warm_up}",
        "Python": f"{platform.python_version()}, one thread",
    }
    printing.lines(header(fabric, "simulator: speed of virtual time", facts))
    found = {size: _measure(size, options) for size in options.workers}
    printing.lines(report(found, options))


def _measure(size: int, options: SimulatorOptions) -> Found:
    found = Found()
    for number in range(options.iterations + options.warm_up):
        kept = found if number >= options.warm_up else Found()
        world = World(size, Interconnect(preset(NETWORK), size), seed=number)
        took = _steps(world, options)
        kept.seconds.append(took / (size * options.steps))
        kept.events.append(took / world.events)
        bare = World(size, Interconnect(preset(NETWORK), size), seed=number)
        kept.bare.append(_sleeps(bare) / bare.events)
    found.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found


def _steps(world: World, options: SimulatorOptions) -> float:
    """Let all ranks step; return the seconds, those of making the ranks included."""
    trial = Trial(
        ranks=world.size,
        algorithm=AlgorithmSpec(options.algorithm),
        problem=ProblemSpec(
            "quadratic",
            batch=1,
            settings={"dimension": options.dimension, "samples": SAMPLES},
        ),
        compute=ComputeSpec("emulated", SECONDS),
        budget=BudgetSpec(steps=options.steps),
    )
    problem = problems.make(trial.problem, trial.seed)
    algorithm = ALGORITHMS[options.algorithm]

    def work(fabric: Fabric) -> None:
        worker = Worker(trial, problem, fabric)
        x = problem.initial()
        snapshots = Snapshots(x, capacity=2, distance=1e9, by_step=True)
        with Board(fabric) as board:
            steps = algorithm.steps(x, worker)
            budget = Budget(
                trial.budget,
                board,
                batch=1,
                epoch=problem.samples,
                workers=worker.workers,
                synchronous=algorithm.synchronous,
                lead=lambda: worker.lead,
            )
            drive(steps, worker, budget, snapshots, 1)
            steps.close()

    started = perf_counter()
    world.run(work)
    return perf_counter() - started


def _sleeps(world: World) -> float:
    """Let all ranks sleep for random times; return the seconds."""
    times = rng.generator(0, "sleeps").exponential(SECONDS, EVENTS).tolist()

    def work(fabric: Fabric) -> None:
        for k in range(EVENTS):
            fabric.pause(times[(k + fabric.rank) % EVENTS])
            world.alive()

    started = perf_counter()
    world.run(work)
    return perf_counter() - started


def report(found: dict[int, Found], options: SimulatorOptions) -> list[str]:
    """Return the table, the figures of merit and the command."""
    rows, figures = [], []
    for size, one in found.items():
        step, event, bare = map(median, (one.seconds, one.events, one.bare))
        row: Row = {
            "Workers": str(size),
            "Worker-steps/s": f"{1 / step:.0f}",
            "Events/s": f"{1 / event:.0f}",
            "Events/s, no model": f"{1 / bare:.0f}",
            "Peak memory (MiB)": f"{one.peak / MIB:.0f}",
        }
        row |= spread("Step", one.seconds, options.percentiles, full=options.full)
        rows.append(row)
        figures += [
            fom(f"worker_steps_{size}", 1 / step, "1/s"),
            fom(f"events_{size}", 1 / event, "1/s"),
            fom(f"events_without_model_{size}", 1 / bare, "1/s"),
            fom(f"peak_memory_{size}", one.peak / MIB, "MiB"),
        ]
    command = shlex.join(["dsgd-bench", "bench", "simulator", *options.words])
    return [*table(rows), *figures, command]
