"""Slow links in software: chosen ranks or pairs exchange no faster than they may.

A wrapper over any fabric, for clusters whose network may not be changed. What the
real network does, it still does; an operation over a slow link ends when it would have
by itself, but not before the slow link has carried it. So the slower of the two counts,
and what overlaps with computing on a real slow link overlaps here.

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

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.arrays import Array
from dsgd_bench.fabric.base import Fabric, Messages, VectorWindow, WordWindow
from dsgd_bench.fabric.slow_ports import SlowPorts
from dsgd_bench.fabric.slow_transfers import (
    SlowMessages,
    SlowVectorWindow,
    SlowWordWindow,
)
from dsgd_bench.fabric.wrapped import WrappedFabric
from dsgd_bench.spec.trial import SlowLinksSpec


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
    return SlowLinks(fabric, settings)


class SlowLinks(WrappedFabric):
    """A fabric some links of which are slow.

    Parameters
    ----------
    fabric : Fabric
        What really carries everything.
    settings : SlowLinksSpec
        Which links, and how slow.
    """

    def __init__(self, fabric: Fabric, settings: SlowLinksSpec) -> None:
        super().__init__(fabric)
        self._ports = SlowPorts(fabric, settings)
        self._ring_until = -np.inf  # when started collectives are through

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
        self._ring_until = entered + 2 * (n - 1) / n * x.nbytes * self._ports.per_byte
        due = self._ring_until + 2 * (n - 1) * self._ports.seconds
        with self._fabric.averaging(x):
            yield
        self._meet(self._fabric.now(), due)

    def _ring(self, nbytes: int) -> float:
        n = self._fabric.size
        return 2 * (n - 1) * (self._ports.seconds + nbytes / n * self._ports.per_byte)

    def _meet(self, since: float, until: float) -> None:
        """Prolong the collective that ended at `since`; it is transfer, as the rest."""
        if until > since:
            self._ports.pause_until(until)
            self._fabric.ledger.met(since, self._fabric.now())

    def vectors(self, length: int, like: NDArray[Any]) -> VectorWindow:
        """Open a window of a vector of `length` zeros on every rank; collective."""
        return SlowVectorWindow(self._ports, self._fabric.vectors(length, like))

    def words(self, count: int) -> WordWindow:
        """Open a window of `count` control words on every rank; collective."""
        return SlowWordWindow(self._ports, self._fabric.words(count))

    def messages(self) -> Messages:
        """Open a channel for two-sided messages; collective."""
        return SlowMessages(self._ports, self._fabric)
