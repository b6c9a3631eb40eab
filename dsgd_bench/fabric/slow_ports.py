"""The slow ports and wires of one rank: when what is sent through them has passed.

The arithmetic of `slow_links`, which says what is slow and why; nothing is sent here.
"""

import threading
from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from dsgd_bench.fabric.base import Fabric
from dsgd_bench.spec.trial import SlowLinksSpec

WORD = 8
"""Bytes of a control word."""

BITS = 8

OUT, IN = "out", "in"


class SlowPorts:
    """Which links of a rank are slow, and until when each of them is busy.

    Parameters
    ----------
    fabric : Fabric
        This rank's fabric, for its clock.
    settings : SlowLinksSpec
        Which links, and how slow.

    Attributes
    ----------
    seconds : float
        By which a message arrives later.
    per_byte : float
        Seconds that a byte takes.
    """

    def __init__(self, fabric: Fabric, settings: SlowLinksSpec) -> None:
        self._fabric, self._rank = fabric, fabric.rank
        self.seconds = settings.seconds
        self.per_byte = BITS / settings.rate if settings.rate else 0.0
        self._ranks = frozenset(settings.ranks)
        self._pairs = frozenset(
            frozenset(map(int, pair.split("-"))) for pair in settings.pairs
        )
        self._all = not settings.ranks and not settings.pairs
        self._busy_until: dict[Hashable, float] = defaultdict(lambda: -np.inf)
        self._lock = threading.Lock()  # helper threads send, too

    def is_slow(self, rank: int) -> bool:
        """Tell whether operations between this rank and `rank` are slow."""
        return bool(self._between(self._rank, rank))

    def _between(self, source: int, target: int) -> list[Hashable]:
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
        return self._through(self._between(source, target), nbytes, start)

    def receive(self, source: int, nbytes: int, sent: float) -> float:
        """Return when a message that left its sender at `sent` is here, all of it.

        The sender knows of all ports but this rank's own.
        """
        own = (IN, self._rank)
        ports = [port for port in self._between(source, self._rank) if port == own]
        start = sent - nbytes * self.per_byte
        return self._through(ports, nbytes, start) + self.seconds

    def round_trip(self, rank: int, there: int, back: int) -> float:
        """Return when an operation on `rank` is done that sends and fetches bytes."""
        own = self._rank
        asked = self.carry(own, rank, there or WORD) + self.seconds
        return (self.carry(rank, own, back, asked) if back else asked) + self.seconds

    def _through(
        self, ports: Sequence[Hashable], nbytes: int, start: float | None
    ) -> float:
        took = nbytes * self.per_byte
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
