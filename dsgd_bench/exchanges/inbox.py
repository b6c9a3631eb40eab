"""Messages that are put: slots at the receiver, a ring of them for every edge.

Written once over `base.Window`, for MPI and for virtual time. A message goes into its
slot by put and flush; only then is the edge's version word counted up, by a sum. There
is one writer per slot and word, so whoever has seen the version sees the message. The
receiver's processor takes no part. Two rules for what happens when slots run out:

`Inbox`
    first in, first out, and lossless: the receiver acknowledges what it has copied by a
    sum onto a word of the sender's, and a full ring refuses the next message.
`Newest`
    newest wins: the writer never waits and overwrites the oldest slot; a reader copies
    the newest message and looks afterwards whether it was whole. Messages are lost by
    design: right for models, forbidden for gradients and for the mass of push-sum.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.arrays import Array, Scratch, axpy, finish
from dsgd_bench.errors import FabricError
from dsgd_bench.exchanges.resumable import State
from dsgd_bench.fabric.base import Fabric, Resource, check_vector
from dsgd_bench.fabric.columns import Spans

ONE = np.ones(1, np.int64)

LEFT = 1 << 62
"""Added to a version word by a sender that will send no more."""


class _Slots(Resource):
    """What both have: rings of slots at the receivers, and who has which.

    Nothing here is shared by threads of one rank except as MPI allows it: one thread
    sends, one receives. Each has buffers of its own.
    """

    def __init__(
        self,
        fabric: Fabric,
        like: Array,
        sources: Sequence[int],
        targets: Sequence[int],
        slots: int,
    ) -> None:
        check_vector(like)
        self._fabric, self._ledger = fabric, fabric.ledger
        self._rank, self._size, self._nbytes = fabric.rank, like.size, like.nbytes
        self._slots = slots
        self.sources, self.targets = tuple(sources), tuple(targets)
        self._everybody = fabric.gather((self.sources, self.targets))
        self._check_edges()
        places = len(self.sources)
        self._place = {source: place for place, source in enumerate(self.sources)}
        self._place_at = {
            target: self._everybody[target][0].index(fabric.rank)
            for target in self.targets
        }
        length = max(1, places * slots * like.size)
        self._payloads = fabric.window(length, like.dtype, like)
        self._stamps = fabric.window(max(1, places * slots), np.int64)
        self._versions = fabric.window(max(1, places), np.int64)
        self._sent = dict.fromkeys(self.targets, 0)
        self._taken = [0] * places
        self._arrived = np.zeros(max(1, places), np.int64)
        self._stamp_out, self._stamp_in = np.zeros(1, np.int64), np.zeros(1, np.int64)

    def _check_edges(self) -> None:
        for rank, (sources, targets) in enumerate(self._everybody):
            for target in targets:
                if rank not in self._everybody[target][0]:
                    raise FabricError(
                        f"rank {rank} sends to rank {target}, which does not expect "
                        "it: hand in the same graph on every rank"
                    )
            for source in sources:
                if rank not in self._everybody[source][1]:
                    raise FabricError(
                        f"rank {rank} expects rank {source}, which does not send to "
                        "it: hand in the same graph on every rank"
                    )

    def _send(self, target: int, values: Array, stamp: int) -> None:
        """Put a message into the next slot at `target`, then count it there."""
        place, number = self._place_at[target], self._sent[target]
        slot = place * self._slots + number % self._slots
        self._stamp_out[0] = stamp
        self._payloads.put(values, target, self._part(slot))
        self._stamps.put(self._stamp_out, target, slice(slot, slot + 1))
        self._payloads.flush(target)
        self._stamps.flush(target)
        self._versions.accumulate(ONE, target, slice(place, place + 1))
        self._versions.flush(target)
        self._sent[target] = number + 1

    def _sent_to(self, target: int, started: float, spans: Spans | None) -> None:
        """Book a message to `target` that was begun at `started`."""
        self._ledger.traffic.sent(self._nbytes)
        self._ledger.exchanges[target] += 1
        (spans or self._ledger.front).transfer += self._fabric.now() - started

    def _copy(self, place: int, number: int, out: Array) -> int:
        """Copy message `number` of a source to `out`; return its stamp."""
        slot = place * self._slots + number % self._slots
        self._payloads.get(self._rank, self._part(slot), out)
        self._stamps.get(self._rank, slice(slot, slot + 1), self._stamp_in)
        self._payloads.flush(self._rank)
        self._stamps.flush(self._rank)
        return int(self._stamp_in[0])

    def _look(self) -> NDArray[np.int64]:
        """Return the version words of all sources as they are now."""
        self._versions.fetch(self._rank, slice(0, self._arrived.size), self._arrived)
        self._versions.flush(self._rank)
        return self._arrived

    def _part(self, slot: int) -> slice:
        return slice(slot * self._size, (slot + 1) * self._size)

    def close(self) -> None:
        """Free the windows; collective."""
        self._fabric.barrier()
        self._payloads.free()
        self._stamps.free()
        self._versions.free()


class Inbox(_Slots):
    """Lossless messages along directed edges, in the order sent on every edge.

    A receiver that wants all of them takes until `exhausted`, before it closes.

    Parameters
    ----------
    fabric : Fabric
        This rank's fabric.
    like : array of shape (dim,)
        A message, for length and type.
    sources, targets : sequences of int
        Ranks that this rank hears from and sends to; the same edges on every rank.
    slots : int
        Messages of one edge that may be unread.

    Raises
    ------
    FabricError
        If the ranks do not agree on the edges.
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
        self._acknowledged = fabric.window(max(1, len(self.targets)), np.int64)
        self._word = {target: word for word, target in enumerate(self.targets)}
        self._word_at = [
            self._everybody[source][1].index(fabric.rank) for source in self.sources
        ]
        self._read = dict.fromkeys(self.targets, 0)
        self._turn = 0

    def push(
        self, rank: int, values: Array, stamp: int, *, spans: Spans | None = None
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
        spans : Spans
            Account that the time is booked on; by default the training thread's.

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
        self._sent_to(rank, started, spans)
        return True

    def take(self, out: Array, source: int | None = None) -> tuple[int, int] | None:
        """Copy the oldest unread message of a source to `out`, and acknowledge it.

        Parameters
        ----------
        out : array of shape (dim,)
            Filled with the whole message, or left alone.
        source : int
            Whose message; by default anybody's, in turn.

        Returns
        -------
        tuple of int or None
            Source and stamp; None if nothing is there, and no time is booked then.
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
        spans = self._ledger.front
        looked = self._fabric.now()
        stamp = self._copy(place, self._taken[place], out)
        copied = self._fabric.now()
        self._taken[place] += 1
        rank, word = self.sources[place], self._word_at[place]
        self._acknowledged.accumulate(ONE, rank, slice(word, word + 1))
        self._acknowledged.flush(rank)
        self._ledger.traffic.received(self._nbytes)
        spans.update += copied - looked
        spans.transfer += self._fabric.now() - copied + looked - started
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
        """Tell every target that nothing more will come; push no more."""
        farewell = np.full(1, LEFT, np.int64)
        for target in self.targets:
            place = self._place_at[target]
            self._versions.accumulate(farewell, target, slice(place, place + 1))
            self._versions.flush(target)

    def left(self, source: int) -> bool:
        """Tell whether `source` had left when `take` last found nothing of it."""
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


class Newest(_Slots):
    """The newest model of every neighbor, overwritten at will: nobody ever waits.

    A version v is read whole if at most v + slots - 2 were published once it has been
    copied: the writer has not begun on its slot then. Otherwise the newest one is
    copied again, which is counted as ``slot_retries``. Messages that were never read
    are counted as ``overwritten``. Never for gradients or push-sum mass.

    Parameters
    ----------
    fabric : Fabric
        This rank's fabric.
    x : array of shape (dim,)
        This rank's initial model, which its targets have, with its first step as
        stamp, until the first one is published.
    sources, targets : sequences of int
        Ranks that this rank hears from and sends to; the same edges on every rank.
    slots : int
        Versions kept; with two a reader must be done before the next one comes.
    state : State, optional
        Of this rank, if it may be stopped and go on.

    Raises
    ------
    FabricError
        If the ranks do not agree on the edges.
    """

    def __init__(
        self,
        fabric: Fabric,
        x: Array,
        sources: Sequence[int],
        targets: Sequence[int],
        *,
        slots: int = 3,
        state: State | None = None,
    ) -> None:
        super().__init__(fabric, x, sources, targets, slots)
        self._outgoing, self._theirs = np.empty_like(x), np.empty_like(x)
        self._scratch = Scratch(x)
        self._thread = fabric.beside()
        self._started = self._under_way = False
        for target in self.targets:
            self._send(target, x, (state or State()).step)
        fabric.barrier()  # everybody has everybody's first model
        self._taken = self._look().tolist()

    def publish(
        self, rank: int, values: Array, stamp: int, *, spans: Spans | None = None
    ) -> None:
        """Put `values` where `rank` finds its newest message; see `Inbox.push`."""
        started = self._fabric.now()
        self._send(rank, values, stamp)
        self._sent_to(rank, started, spans)

    def newest(self, source: int, out: Array) -> int:
        """Copy the newest whole model of `source` to `out`; return its stamp."""
        started = self._fabric.now()
        place = self._place[source]
        version = int(self._look()[place])
        while True:
            stamp = self._copy(place, version - 1, out)
            latest = int(self._look()[place])
            if latest <= version + self._slots - 2:
                break
            version = latest
            self._ledger.counts["slot_retries"] += 1
        fresh, self._taken[place] = version - self._taken[place], version
        if fresh:
            self._ledger.traffic.received(self._nbytes * fresh, fresh)
            self._ledger.counts["overwritten"] += fresh - 1
        self._ledger.front.update += self._fabric.now() - started
        return stamp

    def broadcast(self, x: Array, stamp: int) -> None:
        """Publish a copy of `x` to all targets, beside whatever comes next.

        If the last one is still under way this one is left out, and counted as
        ``unpublished``: on a slow network models would pile up.
        """
        if self._under_way:
            self._ledger.counts["unpublished"] += 1
            return
        self._join()
        started = self._fabric.now()
        self._outgoing[:] = x
        self._ledger.front.update += self._fabric.now() - started
        if self.targets:
            self._started = self._under_way = True
            self._thread.start(lambda: self._publish_all(stamp))

    def _publish_all(self, stamp: int) -> None:
        try:
            for target in self.targets:
                self.publish(target, self._outgoing, stamp, spans=self._ledger.beside)
        finally:
            self._under_way = False

    def _join(self) -> None:
        if self._started:
            self._thread.join()
            self._started = False

    def mix(self, x: Array, weights: Mapping[int, float], step: int) -> None:
        """Compute ``x <- w_ii x + sum_j w_ij x_j``, x_j the newest of each source.

        The ledger notes as the age of each x_j the `step` minus its stamp, and as
        staleness the largest, that of the own model, 0, included.
        """
        ledger, now = self._ledger, self._fabric.now
        started = now()
        x *= weights[self._rank]
        ledger.front.update += now() - started
        for source in self.sources:
            stamp = self.newest(source, self._theirs)
            started = now()
            axpy(weights[source], self._theirs, x, self._scratch)
            finish(x)
            ledger.front.update += now() - started
            ledger.mixed(step - stamp)
        if self.sources:
            ledger.staleness = max(0.0, ledger.age)

    def close(self) -> None:
        """Let the last model under way arrive, then free the windows; collective."""
        self._join()
        self._thread.close()
        super().close()
