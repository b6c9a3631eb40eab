"""The ledger of one rank: where the time of every step went, and what crossed the wire.

All accounts only ever grow; closing a step notes by how much. So another thread may
book on an account of its own while a step is being closed, and nothing gets lost.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import sub
from time import perf_counter

SPANS = ("compute", "injected", "moving", "waiting", "mixing", "copying")
"""Where the training thread's time goes; what is left of a step is 'other'."""

TRAFFIC = ("bytes_out", "bytes_in", "messages_out", "messages_in")

NOTES = (
    "staleness",
    "age",
    "changes",
    "included",
    "delivered",
    "weight",
    "waited_for",
    "meeting_start",
    "meeting_end",
)
"""What an algorithm's fabric may note about a step; NaN where it did not."""

COLUMNS = (
    "start",
    "duration",
    *SPANS,
    "hidden",
    "flushing",
    *TRAFFIC,
    "injected_asked",
    "loss",
    "samples",
    *NOTES,
)
"""What the ledger notes for every step, in this order; units in `trace.VARIABLES`."""

NAN = float("nan")


@dataclass
class Spans:
    """Seconds by what they were spent on, since the ledger was opened."""

    compute: float = 0.0
    injected: float = 0.0
    moving: float = 0.0
    waiting: float = 0.0
    mixing: float = 0.0
    copying: float = 0.0


@dataclass
class Traffic:
    """Bytes and messages by one rule for all: what was handed over to be sent.

    ``out`` leaves this rank, whoever started the transfer on it as origin; ``in`` is
    what this rank received or fetched. Control words (locks, versions) do not count.
    `scale` is bytes on the wire per byte of a vector: not 1 only where a simulated
    model stands for a larger one.
    """

    bytes_out: int = 0
    bytes_in: int = 0
    messages_out: int = 0
    messages_in: int = 0
    scale: float = 1.0

    def sent(self, nbytes: int, messages: int = 1) -> None:
        """Book `nbytes` handed over to be sent."""
        self.bytes_out += nbytes
        self.messages_out += messages

    def received(self, nbytes: int, messages: int = 1) -> None:
        """Book `nbytes` received or fetched."""
        self.bytes_in += nbytes
        self.messages_in += messages


@dataclass
class Ledger:
    """The accounts of one rank and the rows that closing a step adds.

    Attributes
    ----------
    now : callable
        The fabric's clock, in seconds; only differences mean anything.
    devices : callable
        Bytes that this host's network devices have sent and received, if known.
    front : Spans
        What the training thread did; its spans and 'other' add up to the step.
    beside : Spans
        Communication beside the gradient, by another thread: not part of the sum.
    counts : Counter
        What else happened, by name: lock retries, mixed reads.
    exchanges : Counter
        Averagings started, by neighbor.
    staleness : float
        Of this step's gradient, where the exchange itself knows it: versions of the
        model at a server, or steps of a message.
    age : float
        Own step minus the step stamp of the model mixed in, the largest of this step.
    changes : float
        Changes of the own replica between reading it and applying the gradient.
    included : float
        Gradients of all workers in the model that this step's gradient was taken at.
    delivered : float
        Own gradients that have reached every worker.
    weight : float
        The push-sum weight after this step.
    free_since : float
        When this rank was last done with a collective or an exchange, or with a step:
        emulated computing counts from here, so it hides no communication before it.
    rows : list of tuples
        One tuple per closed step, in the order of `COLUMNS`. A writer may take rows
        from the front while new ones are appended.
    """

    now: Callable[[], float]
    devices: Callable[[], tuple[float, float]] = lambda: (NAN, NAN)
    front: Spans = field(default_factory=Spans)
    beside: Spans = field(default_factory=Spans)
    traffic: Traffic = field(default_factory=Traffic)
    flushing: float = 0.0
    staleness: float = NAN
    age: float = NAN
    changes: float = NAN
    included: float = NAN
    delivered: float = NAN
    weight: float = NAN
    waited_for: float = NAN
    meeting_start: float = NAN
    meeting_end: float = NAN
    injected_asked: float = 0.0
    free_since: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    exchanges: Counter[int] = field(default_factory=Counter)
    steps: int = 0
    origin: float = 0.0
    rows: list[tuple[float, ...]] = field(default_factory=list)

    def open(self, step: int = 0, elapsed: float = 0.0) -> None:
        """Start the clock: the next step begins now.

        Where a run goes on after a stop, `step` steps and `elapsed` seconds lie before.
        """
        self.rows.clear()
        self.counts.clear()
        self.exchanges.clear()
        self.steps = step
        self._forget_notes()
        # a run that goes on has lost what the devices said before
        self._devices_before = (NAN, NAN) if step else self.devices()
        self._begun = self.free_since = self.now()
        self.origin = self._begun - elapsed
        self._last = self._totals()

    def drained(self) -> dict[str, float]:
        """Return bytes, now that all has arrived: those of the drain, those on links.

        The first two were booked since the last step was closed; the others are what
        this host's devices sent and received since the clock started.
        """
        totals = dict(zip(TRAFFIC, self._totals()[-len(TRAFFIC) :], strict=True))
        closed = dict(zip(TRAFFIC, self._last[-len(TRAFFIC) :], strict=True))
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

    def mixed(self, age: float) -> None:
        """Note the age, in steps, of a model that was mixed in."""
        if not self.age >= age:  # NaN: the first of this step
            self.age = age

    def met(self, start: float, end: float) -> None:
        """Note one collective: entered at `start`, left at `end` (clock seconds).

        How much of it was waiting, and for whom, only the other ranks' clocks can
        tell: `trace.merge` splits it. Until then all of it is booked as moving.
        """
        if self.meeting_start != self.meeting_start:
            self.meeting_start = start - self.origin
        self.meeting_end = end - self.origin
        self.free_since = end
        self.front.moving += end - start

    def close_step(self, *, loss: float, samples: int) -> float:
        """Note one step that ends now; return the seconds since the clock started."""
        end = self.now()
        totals = self._totals()
        spent = map(sub, totals, self._last)
        self.rows.append(
            (
                self._begun - self.origin,
                end - self._begun,
                *spent,
                self.injected_asked,
                loss,
                samples,
                self.staleness,
                self.age,
                self.changes,
                self.included,
                self.delivered,
                self.weight,
                self.waited_for,
                self.meeting_start,
                self.meeting_end,
            )
        )
        if self.meeting_end != self.meeting_end:  # NaN: no collective in this step
            self.free_since = end
        self._begun, self._last = end, totals
        self.injected_asked = 0.0
        self._forget_notes()
        self.steps += 1
        return end - self.origin

    def _forget_notes(self) -> None:
        self.staleness = self.age = self.changes = NAN
        self.included = self.delivered = self.weight = NAN
        self.waited_for = self.meeting_start = self.meeting_end = NAN

    def _totals(self) -> tuple[float, ...]:
        f, b, t = self.front, self.beside, self.traffic
        return (
            f.compute,
            f.injected,
            f.moving,
            f.waiting,
            f.mixing,
            f.copying,
            b.moving + b.waiting + b.mixing,
            self.flushing,
            t.bytes_out * t.scale,
            t.bytes_in * t.scale,
            t.messages_out,
            t.messages_in,
        )


monotonic = perf_counter
"""This host's monotonic clock in seconds; read often, so no Python lies around it."""
