"""What recording the trace costs a step, and whether the spans add up to it."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dsgd_bench import rng, trace
from dsgd_bench.algorithms.adpsgd import adpsgd
from dsgd_bench.analysis.statistics import median, ratio_of_medians
from dsgd_bench.bench.flags import Parser, count, ranks, seconds
from dsgd_bench.bench.output import Row, command, fom, header, spread, table
from dsgd_bench.errors import TraceError
from dsgd_bench.exchanges.termination import Board
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.ledger import SPANS, Ledger
from dsgd_bench.fabric.preflight import Verdict
from dsgd_bench.io import printing
from dsgd_bench.io.trial_folder import shard_of
from dsgd_bench.problems.message import Message
from dsgd_bench.spec.trial import (
    AlgorithmSpec,
    BudgetSpec,
    ComputeSpec,
    ProblemSpec,
    Trial,
)
from dsgd_bench.trace.shard import FLUSH_PERIOD
from dsgd_bench.trial.budget import Budget
from dsgd_bench.trial.snapshots import Snapshots
from dsgd_bench.trial.worker import Worker, drive

SHARE_AIM = 0.01
"""Share of a step that recording may cost, and by which spans may miss the step."""

DIMENSION = 1024
"""Elements of the model: small, so that nothing but the recording takes time."""

CLOSINGS = 100
"""Steps closed at a stretch where the cost of closing one is timed."""


@dataclass(frozen=True)
class RecordingOptions:
    """What ``dsgd-bench bench recording`` was asked.

    Attributes
    ----------
    ranks : int
        Ranks that step.
    iterations, warm_up : int
        Runs with and without recording that count, and that come before.
    steps : int
        Steps per rank of a run.
    seconds : float
        Emulated compute of a step.
    folder : Path or None
        File system that is written to; None is the one of temporary files.
    percentiles, full, words
        As in `AverageOptions`.
    """

    ranks: int = 1
    iterations: int = 10
    warm_up: int = 1
    steps: int = 200
    seconds: float = 0.005
    folder: Path | None = None
    percentiles: tuple[float, ...] = ()
    full: bool = False
    words: tuple[str, ...] = ()

    @classmethod
    def from_argv(cls, words: Sequence[str]) -> Self:
        """Read the words of a command line; wrong ones end the program, as usual."""
        parser = Parser("recording", iterations=cls.iterations, warm_up=cls.warm_up)
        add = parser.add_argument
        add("-n", dest="ranks", type=ranks, metavar="RANKS", default=cls.ranks)
        add("--steps", type=count, default=cls.steps, help="steps of a run")
        add("--seconds", type=seconds, default=cls.seconds, help="of a step")
        add("--folder", type=Path, default=None, help="where to write the shards")
        return cls(**vars(parser.parse_args(words)), words=tuple(words))


@dataclass
class Found:
    """What the runs of one rank have shown; seconds unless said.

    Attributes
    ----------
    without, recorded : list of float
        Median seconds per step, one per run.
    gaps : list of float
        Share of each recorded step by which its spans miss it; no unit.
    flushes : list of float
        Seconds of each flush.
    driven : float
        Seconds of all recorded runs.
    """

    without: list[float] = field(default_factory=list)
    recorded: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    flushes: list[float] = field(default_factory=list)
    driven: float = 0.0


@dataclass
class Witness(Ledger):
    """A ledger with stamps of its own before and after a step is closed.

    Attributes
    ----------
    recorded : bool
        Whether steps are noted; else they are only counted.
    stamps : list of (float, float)
        Clock before and after closing each step; first, twice, when it was opened.
    """

    recorded: bool = True
    stamps: list[tuple[float, float]] = field(default_factory=list)

    def open(self, step: int = 0, elapsed: float = 0.0) -> None:
        """Start the clock: the next step begins now."""
        super().open(step, elapsed)
        self.stamps.append((self.origin, self.origin))

    def close_step(self, *, loss: float, samples: int) -> float:
        """Note or count one step that ends now; return the seconds since the start."""
        before = self.now()
        if self.recorded:
            super().close_step(loss=loss, samples=samples)
        else:
            self.steps += 1
            self.free_since = before
        after = self.now()
        self.stamps.append((before, after))
        return after - self.origin


def recording(fabric: Fabric, options: RecordingOptions) -> None:
    """Run with and without recording in turns; rank 0 prints. Collective."""
    trial = Trial(
        ranks=fabric.size,
        algorithm=AlgorithmSpec(adpsgd.name),
        problem=ProblemSpec("message", batch=1, settings={"dimension": DIMENSION}),
        compute=ComputeSpec("emulated", options.seconds),
        budget=BudgetSpec(steps=options.steps),
    )
    found = Found()
    stream = rng.generator(0, "order")  # the same on all ranks
    with _folder(fabric, options) as folder:
        for number in range(options.iterations + options.warm_up):
            kept = found if number >= options.warm_up else Found()
            for recorded in stream.permutation([False, True]):
                _run(fabric, trial, folder if recorded else None, kept)
    closing = closing_cost(fabric.ledger)
    everybody = fabric.gather(found)
    facts = {
        "Steps": f"{options.steps} per run and rank, emulated compute "
        f"{1e3 * options.seconds:g} ms each",
        "Iterations": f"{options.iterations} runs of each, warm-up {options.warm_up}",
        "Recording": f"a row per step, a flush every {FLUSH_PERIOD} s, to "
        f"{options.folder or tempfile.gettempdir()}",
        "Aim": f"share of a step <= {SHARE_AIM:.0%}, spans within {SHARE_AIM:.0%}",
    }
    lines = header(fabric, "recording: what the trace costs", facts)
    if fabric.rank == 0:
        printing.lines([*lines, *report(everybody, closing, options)])


@contextmanager
def _folder(fabric: Fabric, options: RecordingOptions) -> Iterator[Path]:
    """Make a folder for this rank's shards, and remove it afterwards."""
    try:
        made = tempfile.TemporaryDirectory(dir=options.folder, prefix="dsgd-bench-")
    except OSError as error:
        raise TraceError(
            f"rank {fabric.rank} cannot write to {options.folder} ({error}): choose "
            "another --folder"
        ) from None
    with made as folder:
        yield Path(folder)


def _run(fabric: Fabric, trial: Trial, folder: Path | None, found: Found) -> None:
    """Drive one run, recorded in `folder` if there is one; add what it shows."""
    ledger = fabric.ledger
    fabric.ledger = witness = Witness(fabric.now, recorded=folder is not None)
    problem = Message(dimension=DIMENSION)
    worker = Worker(trial, problem, fabric)
    with Board(fabric) as board:
        steps = adpsgd.steps(problem.initial(), worker)
        budget = Budget(
            trial.budget,
            board,
            batch=1,
            epoch=problem.samples,
            workers=worker.workers,
            synchronous=False,
        )
        snapshots = Snapshots(
            problem.initial(), capacity=40, distance=1e-3, by_step=False
        )
        with _shard(fabric, trial, folder) as shard, shard.recording():
            drive(steps, worker, budget, snapshots, 1)
        steps.close()
    fabric.ledger = ledger
    stamps = np.array(witness.stamps)
    per_step = median(np.diff(stamps[:, 0]).tolist())
    if folder is None:
        found.without.append(per_step)
    else:
        found.recorded.append(per_step)
        _check(trace.Shard.read(shard_of(folder, fabric.rank)), stamps, found)


class _NoShard:
    """A run without recording: nothing is written."""

    def recording(self) -> nullcontext[None]:
        return nullcontext()


@contextmanager
def _shard(
    fabric: Fabric, trial: Trial, folder: Path | None
) -> Iterator[trace.ShardWriter | _NoShard]:
    if folder is None:
        yield _NoShard()
        return
    facts = trace.Facts(
        trial=trial,
        study="recording",
        provenance={},
        progress=Verdict(thread=False, pairs={}),
        epoch_samples=1,
        fabric=fabric.kind,
        servers=0,
        staleness="gradients",
        model_bytes=0,
    )
    with trace.ShardWriter(folder, fabric, facts) as shard:
        yield shard


def _check(shard: trace.Shard, stamps: NDArray[np.float64], found: Found) -> None:
    """Compare the steps read back from a shard with the witness's stamps."""
    if shard.steps != len(stamps) - 1:
        raise TraceError(
            f"{len(stamps) - 1} steps were made but {shard.steps} were recorded: "
            "report this as an error of dsgd-bench"
        )
    columns = shard.columns
    duration, flushing = columns["duration"], columns["flushing"]
    found.gaps += span_gaps(columns, stamps).tolist()
    found.flushes += flushing[flushing > 0].tolist()
    found.driven += float(duration.sum())


def span_gaps(
    columns: Mapping[str, NDArray[np.float64]], stamps: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return by which share of each step its spans, with 'other', miss the step.

    Parameters
    ----------
    columns : mapping
        Seconds of each span and of the whole step, shape (steps,).
    stamps : array of shape (steps + 1, 2)
        Clock before and after closing each step: between them the step ended. So its
        duration has bounds, however long the computer stopped in between.
    """
    duration = columns["duration"]
    spans = np.sum([columns[name] for name in SPANS], axis=0)
    overbooked = spans - duration  # where positive, 'other' would be negative
    shortest = stamps[1:, 0] - stamps[:-1, 1]
    longest = stamps[1:, 1] - stamps[:-1, 0]
    missed = np.maximum(shortest - duration, duration - longest)
    gaps: NDArray[np.float64] = np.maximum(np.maximum(overbooked, missed), 0.0)
    return gaps / duration


def closing_cost(ledger: Ledger) -> float:
    """Return the median seconds of closing a step; the ledger is opened anew for it."""
    ledger.open()
    seconds = []
    for _ in range(CLOSINGS):
        started = ledger.now()
        for _ in range(CLOSINGS):
            ledger.close_step(loss=0.0, samples=1)
        seconds.append((ledger.now() - started) / CLOSINGS)
        ledger.rows.clear()
    return median(seconds)


def report(
    everybody: Sequence[Found], closing: float, options: RecordingOptions
) -> list[str]:
    """Return the tables, the figures of merit and the command, as lines.

    Parameters
    ----------
    everybody : sequence of Found
        By rank.
    closing : float
        Seconds of closing a step.
    options : RecordingOptions
        What was asked.
    """
    without = [step for found in everybody for step in found.without]
    recorded = [step for found in everybody for step in found.recorded]
    flushes = [seconds for found in everybody for seconds in found.flushes]
    driven = sum(found.driven for found in everybody)
    gap = max(gap for found in everybody for gap in found.gaps)
    flushing = sum(flushes) / driven
    direct = closing / median(without) + flushing
    row: Row = {
        "Step(ms)": f"{1e3 * options.seconds:g}",
        "Without(ms)": f"{1e3 * median(without):.5g}",
        "Recorded(ms)": f"{1e3 * median(recorded):.5g}",
    }
    ratio = ratio_of_medians(recorded, without)
    if ratio is not None:
        row |= {
            "Share(%)": f"{100 * (ratio.value - 1):.3f}",
            "Low": f"{100 * (ratio.low - 1):.3f}",
            "High": f"{100 * (ratio.high - 1):.3f}",
        }
    for name, times in (("Without", without), ("Recorded", recorded)):
        row |= spread(name, times, options.percentiles, full=options.full)
    return [
        *table([row]),
        fom("recording_share", 100 * (median(recorded) / median(without) - 1), "%"),
        fom("recording_share_direct", 100 * direct, "%"),
        fom("close_step", 1e6 * closing, "us"),
        fom("flush", 1e3 * (median(flushes) if flushes else 0.0), "ms"),
        fom("flushing_share", 100 * flushing, "%"),
        fom("span_gap", 100 * gap, "%"),
        command("recording", options.words),
    ]
