"""The ledger of one rank: where the time of every step went, and what crossed the wire.

All accounts only ever grow; closing a step notes by how much. So another thread may
book on an account of its own while a step is being closed, and nothing gets lost.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isnan
from operator import sub
from time import perf_counter
from typing import Any

from dsgd_bench.fabric.columns import (
    ACCOUNTS,
    COLUMNS,
    NAN,
    NOTES,
    SPANS,
    TRAFFIC,
    Notes,
    Spans,
    Traffic,
)

__all__ = ["COLUMNS", "SPANS", "Ledger", "Notes", "Spans", "Traffic", "monotonic"]

Record = Callable[["Ledger"], tuple[float, ...]]


def _written_out() -> tuple[Record, Record, Callable[["Ledger"], None]]:
    """Return what reads the totals, reads the notes and forgets them.

    They are compiled from the table of columns, as `dataclass` makes ``__init__``:
    closing a step takes 1.6 us so, and 3.3 with `operator.attrgetter` and ``map``.
    """
    spent = [f"training.{column.name}" for column in ACCOUNTS]
    sent = [
        f"traffic.{column.name}" + " * traffic.scale" * (column.unit == "byte")
        for column in TRAFFIC
    ]
    notes = [f"ledger.{column.name}" for column in NOTES]
    zeros = [
        each
        for column, each in zip(NOTES, notes, strict=True)
        if not isnan(column.start)
    ]
    blank = f"{' = '.join(each for each in notes if each not in zeros)} = nan"
    beside = "overlapped.transfer + overlapped.waiting + overlapped.update"
    text = "\n    ".join(
        [
            "def totals(ledger):",
            "training, overlapped = ledger.training, ledger.overlapped",
            "traffic = ledger.traffic",
            f"return {', '.join([*spent, beside, 'ledger.flushing', *sent])}",
        ]
    )
    text += f"\ndef noted(ledger):\n    return {', '.join(notes)}"
    text += (
        f"\ndef forget(ledger, nan=nan):\n    {blank}\n    {' = '.join(zeros)} = 0.0"
    )
    made: dict[str, Any] = {"nan": NAN}
    exec(text, made)  # nothing but names of our own columns
    return made["totals"], made["noted"], made["forget"]


totals_of, noted_in, forget_notes = _written_out()


class Updating:
    """Books what the training thread does in a ``with`` block on `update`.

    One object per ledger, entered in every step, also within itself: the algorithm may
    call the optimizer in a block of an exchange, and only the outermost block counts.
    Another thread books on `Ledger.overlapped` by itself.

    Parameters
    ----------
    ledger : Ledger
        Whose clock and account these are.
    """

    __slots__ = ("_depth", "_ledger", "_started")

    def __init__(self, ledger: "Ledger") -> None:
        self._ledger = ledger
        self._depth, self._started = 0, 0.0

    def __enter__(self) -> None:
        if not self._depth:
            self._started = self._ledger.now()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            ledger = self._ledger
            ledger.training.update += ledger.now() - self._started


@dataclass
class Ledger(Notes):
    """The accounts of one rank and the rows that closing a step adds.

    What is noted about a step are the attributes of `Notes`.

    Attributes
    ----------
    now : callable
        The fabric's clock, in seconds; only differences mean anything.
    devices : callable
        Bytes that this host's network devices have sent and received, if known.
    training : Spans
        What the training thread did; its spans and 'other' add up to the step.
    overlapped : Spans
        Communication overlapped with the gradient, by a helper thread: not part of
        the sum.
    updating : Updating
        A block of the training thread that is booked on `update`.
    counts : Counter
        What else happened, by name: lock retries, mixed reads.
    exchanges : Counter
        Averagings started, by neighbor.
    free_since : float
        When this rank was last done with a collective or an exchange, or with a step:
        emulated computing counts from here, so it hides no communication before it.
    rows : list of tuples
        One tuple per closed step, in the order of `COLUMNS`. A writer may take rows
        from the beginning while new ones are appended.
    failure : Exception or None
        Why a writer cannot keep the rows; the step that is closed next raises it.
    """

    now: Callable[[], float]
    devices: Callable[[], tuple[float, float]] = lambda: (NAN, NAN)
    training: Spans = field(default_factory=Spans)
    overlapped: Spans = field(default_factory=Spans)
    traffic: Traffic = field(default_factory=Traffic)
    flushing: float = 0.0
    free_since: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    exchanges: Counter[int] = field(default_factory=Counter)
    steps: int = 0
    origin: float = 0.0
    rows: list[tuple[float, ...]] = field(default_factory=list)
    failure: Exception | None = None

    def __post_init__(self) -> None:
        self.updating = Updating(self)

    def open(self, step: int = 0, elapsed: float = 0.0) -> None:
        """Start the clock: the next step begins now.

        Where a run goes on after a stop, `step` steps and `elapsed` seconds lie before.
        """
        self.rows.clear()
        self.counts.clear()
        self.exchanges.clear()
        self.steps = step
        forget_notes(self)
        # a run that goes on has lost what the devices said before
        self._devices_before = (NAN, NAN) if step else self.devices()
        self._begun = self.free_since = self.now()
        self.origin = self._begun - elapsed
        self._last = totals_of(self)

    def drained(self) -> dict[str, float]:
        """Return bytes, now that all has arrived: those of the drain, those on links.

        The first two were booked since the last step was closed; the others are what
        this host's devices sent and received since the clock started.
        """
        names = [column.name for column in TRAFFIC]
        totals = dict(zip(names, totals_of(self)[-len(names) :], strict=True))
        closed = dict(zip(names, self._last[-len(names) :], strict=True))
        before, after = self._devices_before, self.devices()
        return {
            "drain_bytes_out": totals["bytes_out"] - closed["bytes_out"],
            "drain_bytes_in": totals["bytes_in"] - closed["bytes_in"],
            "link_bytes_out": after[0] - before[0],
            "link_bytes_in": after[1] - before[1],
        }

    def exchanged(self, nbytes: int, neighbor: int) -> None:
        """Book one averaging with `neighbor`: `nbytes` each way, moved by this rank."""
        traffic = self.traffic
        traffic.bytes_out += nbytes
        traffic.bytes_in += nbytes
        traffic.messages_out += 1
        traffic.messages_in += 1
        self.exchanges[neighbor] += 1

    def averaged(self, age: float) -> None:
        """Note the age, in steps, of a model that was averaged in."""
        if not self.age >= age:  # NaN: the first of this step
            self.age = age

    def met(self, start: float, end: float) -> None:
        """Note one collective: entered at `start`, left at `end` (clock seconds).

        How much of it was waiting, and for whom, only the other ranks' clocks can
        tell: `trace.merge` splits it. Until then all of it is booked as transfer.
        """
        if self.meeting_start != self.meeting_start:
            self.meeting_start = start - self.origin
        self.meeting_end = end - self.origin
        self.free_since = end
        self.training.transfer += end - start

    def close_step(self, *, loss: float, samples: int) -> float:
        """Note one step that ends now; return the seconds since the clock started.

        Raises
        ------
        Exception
            The `failure`, if the rows that were taken could not be kept.
        """
        end = self.now()
        self.loss, self.samples = loss, samples
        totals = totals_of(self)
        self.rows.append(
            (
                self._begun - self.origin,
                end - self._begun,
                *map(sub, totals, self._last),
                *noted_in(self),
            )
        )
        if self.meeting_end != self.meeting_end:  # NaN: no collective in this step
            self.free_since = end
        self._begun, self._last = end, totals
        forget_notes(self)
        self.steps += 1
        if self.failure is not None:
            raise self.failure
        return end - self.origin


monotonic = perf_counter
"""This host's monotonic clock in seconds; read often, so no Python lies around it."""
