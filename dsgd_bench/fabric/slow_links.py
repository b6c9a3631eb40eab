"""Slow links in software: chosen ranks or pairs exchange no faster than they may.

A wrapper over any fabric, for clusters where nobody may touch the network. What the
real network does, it still does; an operation over a slow link ends when it would have
by itself, but not before the slow link has carried it. So the slower of the two counts,
and what computing hides on a real slow link is hidden here.

The slow link of a rank is a port for each direction, that of a pair a wire for each
direction. Bytes pass through one after the other at `rate`; at the far end a message
arrives `seconds` later, which occupies nothing. A message through several ports is in
all of them at once, as in a switch that cuts through. A one-sided operation is two
messages, there and back, one of them without data: so the request of a get queues
behind a put, as it does in a real link.

What is known of a port is what this rank sends through it. Two-sided messages tell
their receivers when they left, so ports are exact for them; one-sided operations of
several origins on one slow target each find its ports free. They wait at `flush`,
messages at `arrive` and `wait`, collectives before they return: for those, every rank
adds what a ring all-reduce takes through the slowest link, 2 (n - 1) messages and
2 (n - 1) / n of the bytes. Collectives that are under way together follow each other.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dsgd_bench.arrays import Array
from dsgd_bench.fabric.base import Fabric, Messages, Window
from dsgd_bench.spec.trial import SlowLinksSpec

WORD = 8
"""Bytes of a control word."""

BITS = 8

OUT, IN = "out", "in"


def slowed(fabric: Fabric, settings: SlowLinksSpec) -> Fabric:
    """Return `fabric` with slow links, or itself where no link is slow.

    Parameters
    ----------
    fabric : Fabric
        This rank's fabric.
    settings : SlowLinksSpec
        Which links, and how slow. No ranks and no pairs named: all are meant.
    """
    if fabric.size == 1 or not (settings.seconds or settings.rate):
        return fabric
    return cast(Fabric, SlowLinks(fabric, settings))


class SlowLinks:
    """A fabric some links of which are slow; whatever is not here is the fabric's.

    Parameters
    ----------
    fabric : Fabric
        What really carries everything.
    settings : SlowLinksSpec
        Which links, and how slow.
    """

    def __init__(self, fabric: Fabric, settings: SlowLinksSpec) -> None:
        self._fabric = fabric
        self.seconds = settings.seconds
        self._per_byte = BITS / settings.rate if settings.rate else 0.0
        self._ranks = frozenset(settings.ranks)
        self._pairs = frozenset(
            frozenset(map(int, pair.split("-"))) for pair in settings.pairs
        )
        self._all = not settings.ranks and not settings.pairs
        self._busy_until: dict[Hashable, float] = defaultdict(lambda: -np.inf)
        self._ring_until = -np.inf  # when started collectives are through
        self._lock = threading.Lock()  # helper threads send, too

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fabric, name)

    def is_slow(self, rank: int) -> bool:
        """Say whether operations between this rank and `rank` are slow."""
        return bool(self._ports(self._fabric.rank, rank))

    def _ports(self, source: int, target: int) -> list[Hashable]:
        """Return the slow ports and wires on the way from `source` to `target`."""
        if source == target:
            return []
        ports: list[Hashable] = []
        if self._all or source in self._ranks:
            ports.append((OUT, source))
        if self._all or target in self._ranks:
            ports.append((IN, target))
        if frozenset((source, target)) in self._pairs:
            ports.append((source, target))
        return ports

    def carry(
        self, source: int, target: int, nbytes: int, start: float | None = None
    ) -> float:
        """Send bytes through the slow ports; return when the last one has passed.

        Parameters
        ----------
        source, target : int
            Ranks; one of them is this one.
        nbytes : int
            Size of the message.
        start : float, optional
            When it begins at the earliest; by default now.
        """
        return self._through(self._ports(source, target), nbytes, start)

    def receive(self, source: int, nbytes: int, sent: float) -> float:
        """Return when a message that left its sender at `sent` is here, all of it.

        The sender knows of all ports but this rank's own.
        """
        own = (IN, self._fabric.rank)
        ports = [port for port in self._ports(source, self._fabric.rank) if port == own]
        start = sent - nbytes * self._per_byte
        return self._through(ports, nbytes, start) + self.seconds

    def round_trip(self, rank: int, there: int, back: int) -> float:
        """Return when an operation on `rank` is done that sends and fetches bytes."""
        own = self._fabric.rank
        asked = self.carry(own, rank, there or WORD) + self.seconds
        return (self.carry(rank, own, back, asked) if back else asked) + self.seconds

    def _through(
        self, ports: Sequence[Hashable], nbytes: int, start: float | None
    ) -> float:
        took = nbytes * self._per_byte
        start = self._fabric.now() if start is None else start
        with self._lock:
            start = max([start, *(self._busy_until[port] for port in ports)])
            for port in ports:
                self._busy_until[port] = start + took
        return start + took

    def pause_until(self, time: float) -> None:
        """Wait until the clock shows `time`, without using the processor."""
        left = time - self._fabric.now()
        if left > 0.0:
            self._fabric.pause(left)

    def average(self, x: Array) -> None:
        """Replace `x` by its mean over all ranks, in place; everyone waits."""
        self._fabric.average(x)
        done = self._fabric.now()
        self._meet(done, done + self._ring(x.nbytes))

    @contextmanager
    def averaging(self, x: Array) -> Iterator[None]:
        """Start `average` on entry and finish it on exit; `x` is lent meanwhile."""
        n = self._fabric.size
        entered = max(self._fabric.now(), self._ring_until)
        self._ring_until = entered + 2 * (n - 1) / n * x.nbytes * self._per_byte
        due = self._ring_until + 2 * (n - 1) * self.seconds
        with self._fabric.averaging(x):
            yield
        self._meet(self._fabric.now(), due)

    def _ring(self, nbytes: int) -> float:
        n = self._fabric.size
        return 2 * (n - 1) * (self.seconds + nbytes / n * self._per_byte)

    def _meet(self, since: float, until: float) -> None:
        """Prolong the collective that ended at `since`; it is transfer, as the rest."""
        if until > since:
            self.pause_until(until)
            self._fabric.ledger.met(since, self._fabric.now())

    def window(
        self, length: int, dtype: DTypeLike, like: NDArray[Any] | None = None
    ) -> Window:
        """Open a window of `length` zeros on every rank; collective."""
        return cast(Window, SlowWindow(self, self._fabric.window(length, dtype, like)))

    def messages(self) -> Messages:
        """Open a channel for two-sided messages; collective."""
        return SlowMessages(self, self._fabric)


class SlowWindow:
    """`base.Window` whose transfers with slow ranks take their time until `flush`."""

    def __init__(self, links: SlowLinks, window: Window) -> None:
        self._links, self._window = links, window
        self._due: dict[int, float] = {}

    def within_reach(self, rank: int) -> NDArray[Any] | None:
        # what is computed on directly would not be slow
        return None if self._links.is_slow(rank) else self._window.within_reach(rank)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._window, name)

    def get(self, rank: int, part: slice, out: NDArray[Any]) -> None:
        self._begin(rank, back=out.nbytes)
        self._window.get(rank, part, out)

    def getting(self, rank: int, part: slice, out: NDArray[Any]) -> Callable[[], None]:
        self._begin(rank, back=out.nbytes)
        due, wait = self._due.get(rank), self._window.getting(rank, part, out)

        def wait_for_the_link() -> None:
            wait()
            if due is not None:
                self._links.pause_until(due)

        return wait_for_the_link

    def put(self, values: NDArray[Any], rank: int, part: slice) -> None:
        self._begin(rank, there=values.nbytes)
        self._window.put(values, rank, part)

    def fetch(self, rank: int, part: slice, out: NDArray[Any]) -> None:
        self._begin(rank, back=out.nbytes)
        self._window.fetch(rank, part, out)

    def accumulate(self, values: NDArray[Any], rank: int, part: slice) -> None:
        self._begin(rank, there=values.nbytes)
        self._window.accumulate(values, rank, part)

    def _begin(self, rank: int, there: int = 0, back: int = 0) -> None:
        if self._links.is_slow(rank):
            due = self._links.round_trip(rank, there, back)
            self._due[rank] = max(due, self._due.get(rank, due))

    def flush(self, rank: int) -> None:
        self._window.flush(rank)
        if rank in self._due:
            self._links.pause_until(self._due.pop(rank))

    def add(self, value: int, rank: int, index: int) -> int:
        with self._word(rank):
            return self._window.add(value, rank, index)

    def read(self, rank: int, index: int) -> int:
        with self._word(rank):
            return self._window.read(rank, index)

    def compare_and_swap(self, old: int, new: int, rank: int, index: int) -> int:
        with self._word(rank):
            return self._window.compare_and_swap(old, new, rank, index)

    @contextmanager
    def _word(self, rank: int) -> Iterator[None]:
        """Let an operation on one word take its time; it ends the others before it."""
        self._begin(rank)
        yield
        if rank in self._due:
            self._links.pause_until(self._due.pop(rank))


class SlowMessages:
    """`base.Messages` that arrive from slow ranks when their link has let them.

    Before every message over a slow link goes a stamp, on a channel of its own: when
    the last byte leaves the sender, on rank 0's clock.
    """

    def __init__(self, links: SlowLinks, fabric: Fabric) -> None:
        self._links, self._rank = links, fabric.rank
        self._offset = fabric.offsets[fabric.rank]
        self._messages, self._stamps = fabric.messages(), fabric.messages()
        self._left: list[NDArray[Any]] = []
        self._sent_until = -np.inf
        self._expected: list[tuple[NDArray[Any], int, int]] = []

    def send(self, values: NDArray[Any], rank: int) -> None:
        if self._links.is_slow(rank):
            due = self._links.carry(self._rank, rank, values.nbytes)
            self._sent_until = max(self._sent_until, due)
            self._left.append(np.array([due - self._offset]))
            self._stamps.send(self._left[-1], rank)
        self._messages.send(values, rank)

    def receive(self, out: NDArray[Any], rank: int) -> None:
        if self._links.is_slow(rank):
            self._expected.append((np.zeros(1), rank, out.nbytes))
            self._stamps.receive(self._expected[-1][0], rank)
        self._messages.receive(out, rank)

    def arrive(self) -> None:
        self._messages.arrive()
        self._stamps.arrive()
        self._links.pause_until(self._arrived())

    def _arrived(self) -> float:
        """Return when the last expected message is here, those that left first first.

        Each waits for its own link, and for the others in this rank's own port.
        """
        latest = -np.inf
        for stamp, rank, nbytes in sorted(
            self._expected, key=lambda one: one[0].item()
        ):
            sent = stamp.item() + self._offset
            latest = max(latest, self._links.receive(rank, nbytes, sent))
        self._expected.clear()
        return latest

    def wait(self) -> None:
        self.arrive()
        self._messages.wait()
        self._stamps.wait()
        self._links.pause_until(self._sent_until)
        self._left.clear()

    def take(self, out: NDArray[Any]) -> tuple[int, int]:
        rank, count = self._messages.take(out)
        if self._links.is_slow(rank):
            stamp = np.zeros(1)
            self._stamps.receive(stamp, rank)
            self._stamps.arrive()
            nbytes = count * out.itemsize
            sent = stamp.item() + self._offset
            self._links.pause_until(self._links.receive(rank, nbytes, sent))
        return rank, count

    def close(self) -> None:
        self._links.pause_until(self._sent_until)
        self._messages.close()
        self._stamps.close()
