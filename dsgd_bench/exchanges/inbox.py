"""Lossless one-sided messages: first in, first out on every edge of a graph.

The receiver acknowledges what it has copied by a sum onto a word at the sender, and a
sender whose slots are all unread may not send. So no message is lost, as gradients and
the weights of push-sum need it.
"""

from collections.abc import Sequence

import numpy as np

from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.slots import ONE, Slots
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.columns import Spans

LEFT = 1 << 62
"""Added to a version word by a sender that will send no more."""


class Inbox(Slots):
    """Lossless messages along directed edges, on each edge in the order sent.

    A receiver takes messages until `exhausted`, before it closes: what is unread then
    is lost.

    Parameters
    ----------
    fabric, like, sources, targets
        As for `Slots`.
    slots : int
        Messages of one edge that may be unread.

    Raises
    ------
    FabricError
        As for `Slots`.
    """

    def __init__(
        self,
        fabric: Fabric,
        like: Array,
        sources: Sequence[int],
        targets: Sequence[int],
        *,
        slots: int = 3,
    ) -> None:
        super().__init__(fabric, like, sources, targets, slots)
        # a window of its own: the sending thread alone reads it
        self._acknowledged = fabric.words(max(1, len(self.targets)))
        self._word = {target: word for word, target in enumerate(self.targets)}
        self._word_at = [
            self._edges[source][1].index(fabric.rank) for source in self.sources
        ]
        self._read = dict.fromkeys(self.targets, 0)
        self._turn = 0

    def push(
        self, rank: int, values: Array, stamp: int, *, account: Spans | None = None
    ) -> bool:
        """Send `values` to `rank`, or nothing at all if its slots are full.

        Parameters
        ----------
        rank : int
            One of the targets.
        values : array of shape (dim,)
            The message; the caller's again when this returns.
        stamp : int
            Travels with it: the step it belongs to.
        account : Spans
            Where the time is booked; by default on the training thread's account.

        Returns
        -------
        bool
            Whether it was sent.
        """
        started = self._fabric.now()
        if self._sent[rank] - self._read[rank] >= self._slots:
            self._read[rank] = self._acknowledged.read(self._rank, self._word[rank])
            if self._sent[rank] - self._read[rank] >= self._slots:
                return False
        self._send(rank, values, stamp)
        self._sent_to(rank, started, account)
        return True

    def take(self, out: Array, source: int | None = None) -> tuple[int, int] | None:
        """Copy the oldest unread message of a source to `out`, and acknowledge it.

        Parameters
        ----------
        out : array of shape (dim,)
            Filled with the whole message, or left alone.
        source : int
            Rank whose message is taken; by default all sources in turn.

        Returns
        -------
        tuple of int or None
            Source and stamp; None if no message is there, and no time is booked then.
        """
        if not self.sources:
            return None
        started = self._fabric.now()
        place = self._unread(source)
        if place is None:
            self._look()
            place = self._unread(source)
        if place is None:
            return None
        account = self._ledger.training
        looked = self._fabric.now()
        stamp = self._copy(place, self._taken[place], out)
        copied = self._fabric.now()
        self._taken[place] += 1
        rank, word = self.sources[place], self._word_at[place]
        self._acknowledged.accumulate(ONE, rank, slice(word, word + 1))
        self._acknowledged.flush(rank)
        self._ledger.traffic.received(self._nbytes)
        account.update += copied - looked
        account.transfer += self._fabric.now() - copied + looked - started
        return rank, stamp

    def _unread(self, source: int | None) -> int | None:
        """Return the place of a source with a message seen but not taken, in turn."""
        if source is not None:
            place = self._place[source]
            return place if self._waiting(place) else None
        count = len(self.sources)
        for turn in range(self._turn, self._turn + count):
            if self._waiting(turn % count):
                self._turn = turn % count + 1
                return turn % count
        return None

    def _waiting(self, place: int) -> int:
        return self._arrived.item(place) % LEFT - self._taken[place]

    def leave(self) -> None:
        """Announce to every target that no message follows; nothing may be pushed."""
        farewell = np.full(1, LEFT, np.int64)
        for target in self.targets:
            place = self._place_at[target]
            self._versions.accumulate(farewell, target, slice(place, place + 1))
            self._versions.flush(target)

    def left(self, source: int) -> bool:
        """Return whether `source` had left when `take` last found no message of it."""
        return self._arrived.item(self._place[source]) >= LEFT

    @property
    def exhausted(self) -> bool:
        """Whether all sources have left and all they sent has been taken."""
        return all(
            self.left(source) and not self._waiting(place)
            for place, source in enumerate(self.sources)
        )

    def close(self) -> None:
        """Free the windows; what is unread is lost. Collective."""
        super().close()
        self._acknowledged.free()
