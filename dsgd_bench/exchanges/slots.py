"""Slots for messages at their receiver, a ring of them for every edge of a graph.

Written once over `base.Window`, for MPI and for virtual time. The sender puts a message
into the next slot and flushes it; only then does it add 1 to the edge's version word.
Each slot and each word has one writer, so a receiver that has read the version finds
the message whole. The receiver's processor takes no part.

What happens when the slots of an edge are full is not decided here: `inbox.Inbox`
refuses the next message and loses none, `newest.Newest` overwrites the oldest one.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.arrays import Array
from dsgd_bench.errors import FabricError
from dsgd_bench.fabric.base import Fabric, Resource, check_vector
from dsgd_bench.fabric.columns import Spans

ONE = np.ones(1, np.int64)


class Slots(Resource):
    """Rings of slots at the receivers, one ring per edge; collective to make.

    One thread of a rank sends and one receives; each has buffers of its own, so that
    the two share nothing but what MPI allows.

    Parameters
    ----------
    fabric : Fabric
        This rank's fabric.
    like : array of shape (dim,)
        A message, for its length and type.
    sources, targets : sequences of int
        Ranks that this rank receives from and sends to; the same edges on every rank.
    slots : int
        Messages of one edge that have a slot.

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
        slots: int,
    ) -> None:
        check_vector(like)
        self._fabric, self._ledger = fabric, fabric.ledger
        self._rank, self._size, self._nbytes = fabric.rank, like.size, like.nbytes
        self._slots = slots
        self.sources, self.targets = tuple(sources), tuple(targets)
        self._edges = fabric.gather((self.sources, self.targets))
        self._check_edges()
        places = len(self.sources)
        self._place = {source: place for place, source in enumerate(self.sources)}
        self._place_at = {
            target: self._edges[target][0].index(fabric.rank) for target in self.targets
        }
        length = max(1, places * slots * like.size)
        self._payloads = fabric.vectors(length, like)
        self._stamps = fabric.words(max(1, places * slots))
        self._versions = fabric.words(max(1, places))
        self._sent = dict.fromkeys(self.targets, 0)
        self._taken = [0] * places
        self._arrived = np.zeros(max(1, places), np.int64)
        self._stamp_out, self._stamp_in = np.zeros(1, np.int64), np.zeros(1, np.int64)

    def _check_edges(self) -> None:
        for rank, (sources, targets) in enumerate(self._edges):
            for target in targets:
                if rank not in self._edges[target][0]:
                    raise FabricError(
                        f"rank {rank} sends to rank {target}, which does not expect "
                        "it: hand in the same graph on every rank"
                    )
            for source in sources:
                if rank not in self._edges[source][1]:
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

    def _sent_to(self, target: int, started: float, account: Spans | None) -> None:
        """Book a message to `target` that was begun at `started`."""
        self._ledger.traffic.sent(self._nbytes)
        self._ledger.exchanges[target] += 1
        (account or self._ledger.training).transfer += self._fabric.now() - started

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
