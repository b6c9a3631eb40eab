"""What the framework adds to the bare MPI calls: to one averaging, and to one step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from dsgd_bench import rng
from dsgd_bench.algorithms.adpsgd import adpsgd
from dsgd_bench.analysis.statistics import estimate, median, ratio_of_medians
from dsgd_bench.bench.flags import KIB, MIB, Parser, short
from dsgd_bench.bench.output import Row, command, fom, header, spread, table
from dsgd_bench.errors import ConfigError
from dsgd_bench.exchanges.replicas import Replicas
from dsgd_bench.exchanges.termination import Board
from dsgd_bench.fabric import preflight
from dsgd_bench.fabric.ledger import monotonic
from dsgd_bench.io import printing
from dsgd_bench.problems.message import Message
from dsgd_bench.spec.trial import AlgorithmSpec, BudgetSpec, ProblemSpec, Trial
from dsgd_bench.trial.budget import Budget
from dsgd_bench.trial.snapshots import Snapshots
from dsgd_bench.trial.worker import Worker, drive

if TYPE_CHECKING:
    from dsgd_bench.fabric.mpi.bare import BarePair
    from dsgd_bench.fabric.mpi.fabric import MpiFabric

RATIO_AIM = 1.3
OVERHEAD_AIM = 50e-6
"""What the framework may cost: times the bare form; seconds per step beyond it."""

BLOCKS = (64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, 1 * MIB)
"""Bytes per block that the bare form tries, beside the whole model."""

TRIES = 7
"""Times that each of them is tried; the best median counts."""

TINY = 16
"""Elements of the model whose steps are timed: no data to speak of."""

SLICE = 0.02
"""Seconds of steps that are driven at a stretch, framework and bare taking turns."""

BARRIERS = 200
"""Barriers whose median is the latency."""

LR = 0.1


@dataclass(frozen=True)
class AverageOptions:
    """What ``dsgd-bench bench average`` was asked.

    Attributes
    ----------
    sizes : tuple of int
        Bytes of the models.
    iterations, warm_up : int
        Samples of each form that count, and that come before.
    percentiles : tuple of float
        Printed beside the median.
    full : bool
        Whether minimum, maximum and number of samples are printed.
    words : tuple of str
        The words it was made of.
    ranks : int
        Always 2.
    """

    sizes: tuple[int, ...] = (4 * MIB, 100 * MIB)
    iterations: int = 40
    warm_up: int = 4
    percentiles: tuple[float, ...] = ()
    full: bool = False
    words: tuple[str, ...] = ()
    ranks: int = 2

    @classmethod
    def from_argv(cls, words: Sequence[str]) -> Self:
        """Read the words of a command line; wrong ones end the program, as usual."""
        parser = Parser("average", iterations=cls.iterations, warm_up=cls.warm_up)
        parser.add_sizes(cls.sizes)
        return cls(**vars(parser.parse_args(words)), words=tuple(words))


@dataclass(frozen=True)
class Comparison:
    """Times of one size in one situation; seconds, one per iteration."""

    nbytes: int
    situation: str
    block: int
    framework: list[float]
    bare: list[float]
    memcpy: float
    barrier: float


@dataclass(frozen=True)
class StepTimes:
    """Median seconds per step in each slice; equally many of both forms."""

    framework: list[float]
    bare: list[float]

    @property
    def beyond(self) -> list[float]:
        """Seconds per step beyond the bare calls, slice by slice."""
        return [f - b for f, b in zip(self.framework, self.bare, strict=True)]


def average(fabric: "MpiFabric", options: AverageOptions) -> None:
    """Compare averagings and steps with the bare MPI calls; rank 0 prints. Collective.

    Raises
    ------
    ConfigError
        Unless there are two ranks.
    """
    if fabric.size != 2:
        raise ConfigError(
            f"the benchmark 'average' runs on 2 ranks, not {fabric.size}: start it as "
            "`dsgd-bench bench average`"
        )
    lines = _header(fabric, options)
    compared = [
        found for nbytes in options.sizes for found in _compare(fabric, nbytes, options)
    ]
    stepped = compare_steps(fabric, options)
    if fabric.rank == 0:
        lines += report(compared, stepped, options)
        printing.lines(lines)


def _header(fabric: "MpiFabric", options: AverageOptions) -> list[str]:
    verdict = preflight.preflight(fabric)
    answers = {
        answer.verdict
        for pair in verdict.pairs.values()
        for answer in pair.operations.values()
    }
    facts = {
        "MPI library": fabric.describe()["mpi_library"],
        "Busy targets": f"{', '.join(sorted(answers))}; progress thread: "
        + ("yes" if verdict.thread else "no"),
        "Sizes": ", ".join(map(short, options.sizes)) + ", float32",
        "Iterations": f"{options.iterations}, warm-up {options.warm_up}",
        "Framework": "Replicas.average_with; bare: compare-and-swap locks, Get, Flush, "
        "average, Put in blocks",
        "alone": "rank 0 averages, rank 1 idles; both: each averages at once, the "
        "slower one counts",
        "Aim": f"ratio <= {RATIO_AIM}, step beyond bare <= {1e6 * OVERHEAD_AIM:.0f} us",
    }
    return header(fabric, "average: pairwise averaging against bare MPI", facts)


def _compare(
    fabric: "MpiFabric", nbytes: int, options: AverageOptions
) -> list[Comparison]:
    """Measure one size, alone and with both ranks averaging."""
    from dsgd_bench.fabric.mpi.bare import BarePair

    length = max(1, nbytes // 4)
    x = rng.generator(0, "bench", fabric.rank).random(length, np.float32)
    memcpy = _memcpy(x)
    compared = []
    with Replicas(fabric, x.copy(), _unmoved) as replicas:
        bare = BarePair(fabric.comm, x)
        for situation, interleaved in SITUATIONS.items():
            block = _best_block(fabric, bare, nbytes, interleaved)
            forms = (
                partial(replicas.average_with, 1 - fabric.rank),
                partial(bare.average, bare.blocks(block)),
            )
            times = interleaved(fabric, forms, options.iterations, options.warm_up)
            barrier = _barrier(fabric)
            compared.append(
                Comparison(
                    nbytes,
                    situation,
                    block,
                    framework=times[0],
                    bare=times[1],
                    memcpy=memcpy,
                    barrier=barrier,
                )
            )
        bare.close()
    return compared


def _unmoved(x: object, g: object) -> None:
    """Do nothing: models are only averaged here."""


Form = Callable[[], None]
Times = list[list[float]]


def alone(
    fabric: "MpiFabric", forms: Sequence[Form], iterations: int, warm_up: int
) -> Times:
    """Time `forms` on rank 0 in turns, rank 1 idling; rank 0's times, everywhere."""
    from dsgd_bench.fabric.mpi.bare import idle

    times: Times = [[] for _ in forms]
    if fabric.rank == 0:
        stream = rng.generator(0, "order")
        for _ in range(iterations + warm_up):
            for k in stream.permutation(len(forms)):
                started = fabric.now()
                forms[k]()
                times[k].append(fabric.now() - started)
    idle(fabric.comm)
    found: Times = fabric.gather([series[warm_up:] for series in times])[0]
    return found


def both(
    fabric: "MpiFabric", forms: Sequence[Form], iterations: int, warm_up: int
) -> Times:
    """Time `forms` on both ranks at once, in turns; of each, the slower rank counts."""
    times: Times = [[] for _ in forms]
    stream = rng.generator(0, "order")  # the same on both ranks
    for _ in range(iterations + warm_up):
        for k in stream.permutation(len(forms)):
            fabric.barrier()
            started = fabric.now()
            forms[k]()
            times[k].append(fabric.now() - started)
    gathered = fabric.gather([series[warm_up:] for series in times])
    slower: Times = np.max(gathered, axis=0).tolist()
    return slower


SITUATIONS: dict[str, Callable[..., Times]] = {"alone": alone, "both": both}


def _best_block(
    fabric: "MpiFabric",
    bare: "BarePair",
    nbytes: int,
    interleaved: Callable[..., Times],
) -> int:
    """Return the bytes per block with which the bare form is quickest."""
    tried = [*(block for block in BLOCKS if block < nbytes), nbytes]
    forms = [partial(bare.average, bare.blocks(block)) for block in tried]
    medians = [median(times) for times in interleaved(fabric, forms, TRIES, 1)]
    return tried[int(np.argmin(medians))]


def _memcpy(x: "np.ndarray[Any, Any]") -> float:
    """Return the median seconds of copying `x` on both ranks at once."""
    out, seconds = np.zeros_like(x), []
    for _ in range(TRIES + 1):
        started = monotonic()
        np.copyto(out, x)
        seconds.append(monotonic() - started)
    return median(seconds[1:])


def _barrier(fabric: "MpiFabric") -> float:
    """Return the median seconds of a barrier: it tells the computer's state."""
    seconds = []
    for _ in range(BARRIERS):
        started = fabric.now()
        fabric.comm.Barrier()
        seconds.append(fabric.now() - started)
    return median(seconds)


def compare_steps(fabric: "MpiFabric", options: AverageOptions) -> StepTimes:
    """Time steps of AD-PSGD on a tiny model, as `worker.drive` runs them, and bare.

    Rank 0 steps, in slices of `SLICE` seconds; rank 1 idles. Collective.
    """
    from dsgd_bench.fabric.mpi.bare import BarePair, idle

    problem = Message(dimension=TINY)
    trial = Trial(
        ranks=fabric.size,
        algorithm=AlgorithmSpec(adpsgd.name),
        problem=ProblemSpec("message", batch=1, settings={"dimension": TINY}),
        budget=BudgetSpec(seconds=SLICE),
    )
    worker = Worker(trial, problem, fabric)
    steps = adpsgd.steps(problem.initial(), worker)
    next(steps)
    bare = BarePair(fabric.comm, problem.initial())
    found: Times = [[], []]
    stream = rng.generator(0, "order")
    with Board(fabric) as board:

        def framework() -> float:
            budget = Budget(
                trial.budget, board, batch=1, epoch=1, workers=2, synchronous=False
            )
            snapshots = Snapshots(
                problem.initial(), capacity=40, distance=SLICE / 38, by_step=False
            )
            drive(steps, worker, budget, snapshots, 1)
            return median([row[1] for row in fabric.ledger.rows])

        forms = (framework, partial(_bare_steps, fabric, bare))
        for _ in range(options.iterations + options.warm_up):
            for k in stream.permutation(len(forms)):
                if fabric.rank == 0:
                    found[k].append(forms[k]())
                elif k == 0:
                    fabric.barrier()  # the one in `drive`
                idle(fabric.comm)
    bare.close()
    steps.close()
    return StepTimes(*(series[options.warm_up :] for series in found))


def _bare_steps(fabric: "MpiFabric", bare: "BarePair") -> float:
    """Do bare steps for `SLICE` seconds; return the median of their durations."""
    x, g = np.zeros(TINY, np.float32), np.zeros(TINY, np.float32)
    blocks = bare.blocks(x.nbytes)
    stamps = [fabric.now()]
    while stamps[-1] - stamps[0] < SLICE:
        bare.step(blocks, g, x, LR)
        stamps.append(fabric.now())
    return median(np.diff(stamps).tolist())


def report(
    compared: Sequence[Comparison], stepped: StepTimes, options: AverageOptions
) -> list[str]:
    """Return the tables, the figures of merit and the command, as lines."""
    lines = table([_row(found, options) for found in compared])
    lines += table([_step_row(stepped)])
    for found in compared:
        name = f"{short(found.nbytes)}_{found.situation}"
        framework, bare = median(found.framework), median(found.bare)
        lines += [
            fom(f"average_framework_{name}", 1e3 * framework, "ms"),
            fom(f"average_bare_{name}", 1e3 * bare, "ms"),
            fom(f"average_ratio_{name}", framework / bare, "1"),
        ]
    lines.append(fom("step_beyond_bare", 1e6 * median(stepped.beyond), "us"))
    return [*lines, command("average", options.words)]


def _row(found: Comparison, options: AverageOptions) -> Row:
    row = {
        "Size": str(found.nbytes),
        "Situation": found.situation,
        "Framework(ms)": f"{1e3 * median(found.framework):.4g}",
        "Bare(ms)": f"{1e3 * median(found.bare):.4g}",
    }
    ratio = ratio_of_medians(found.framework, found.bare)
    if ratio is not None:
        row |= {
            "Ratio": f"{ratio.value:.3f}",
            "Low": f"{ratio.low:.3f}",
            "High": f"{ratio.high:.3f}",
        }
    row |= {
        "Block": str(found.block),
        "Memcpy(ms)": f"{1e3 * found.memcpy:.4g}",
        "Barrier(us)": f"{1e6 * found.barrier:.3g}",
    }
    for name, times in (("Framework", found.framework), ("Bare", found.bare)):
        row |= spread(name, times, options.percentiles, full=options.full)
    return row


def _step_row(stepped: StepTimes) -> Row:
    row = {
        "Step": f"{TINY} elements",
        "Framework(us)": f"{1e6 * median(stepped.framework):.4g}",
        "Bare(us)": f"{1e6 * median(stepped.bare):.4g}",
    }
    beyond = estimate(stepped.beyond)
    if beyond is not None:
        row |= {
            "Beyond(us)": f"{1e6 * beyond.value:.3g}",
            "Low": f"{1e6 * beyond.low:.3g}",
            "High": f"{1e6 * beyond.high:.3g}",
        }
    return row
