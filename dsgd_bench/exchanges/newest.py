"""The newest model of every neighbor, in slots that the sender overwrites.

The sender never waits; the receiver copies the newest model and checks afterwards that
no part of it was overwritten meanwhile. Models are lost by design, which is right for
models and wrong for gradients and for the weights of push-sum: those go through an
`inbox.Inbox`.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from dsgd_bench.arrays import Array, Scratch, axpy, finish
from dsgd_bench.exchanges.overlapped import Overlapped
from dsgd_bench.exchanges.resumable import State
from dsgd_bench.exchanges.slots import Slots
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.columns import Spans


class Newest(Slots):
    """The newest model of every neighbor; older ones are overwritten, no rank waits.

    A version v is read whole if at most v + slots - 2 were published once it has been
    copied: the writer has not begun on its slot then. Otherwise the newest one is
    copied again, which is counted as ``slot_retries``. Messages that were never read
    are counted as ``overwritten``. Never for gradients or push-sum weights.

    Parameters
    ----------
    fabric : Fabric
        This rank's fabric.
    x : array of shape (dim,)
        This rank's initial model, which its targets have, with its first step as
        stamp, until the first one is published.
    sources, targets
        As for `Slots`.
    slots : int
        Versions kept; with two a reader must be done before the next one comes.
    state : State, optional
        Of this rank, if it may be stopped and go on.

    Raises
    ------
    FabricError
        As for `Slots`.
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
        self._overlapped = Overlapped(fabric)
        for target in self.targets:
            self._send(target, x, (state or State()).step)
        fabric.barrier()  # every rank has the first model of all its sources
        self._taken = self._look().tolist()

    def publish(
        self, rank: int, values: Array, stamp: int, *, account: Spans | None = None
    ) -> None:
        """Put `values` where `rank` finds its newest message; see `Inbox.push`."""
        started = self._fabric.now()
        self._send(rank, values, stamp)
        self._sent_to(rank, started, account)

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
        self._ledger.training.update += self._fabric.now() - started
        return stamp

    def broadcast(self, x: Array, stamp: int) -> None:
        """Publish a copy of `x` to all targets, overlapped with the next steps.

        If the last one is still in flight this one is left out, and counted as
        ``unpublished``: on a slow network models would pile up.
        """
        if self._overlapped.running:
            self._ledger.counts["unpublished"] += 1
            return
        self._overlapped.join()
        started = self._fabric.now()
        self._outgoing[:] = x
        self._ledger.training.update += self._fabric.now() - started
        if self.targets:
            self._overlapped.begin(partial(self._publish_all, stamp))

    def _publish_all(self, stamp: int, account: Spans) -> None:
        for target in self.targets:
            self.publish(target, self._outgoing, stamp, account=account)

    def mix(self, x: Array, weights: Mapping[int, float], step: int) -> None:
        """Compute ``x <- w_ii x + sum_j w_ij x_j``, x_j the newest of each source.

        The ledger notes as the age of each x_j the `step` minus its stamp, and as
        staleness the largest, that of the own model, 0, included.
        """
        ledger, now = self._ledger, self._fabric.now
        started = now()
        x *= weights[self._rank]
        ledger.training.update += now() - started
        for source in self.sources:
            stamp = self.newest(source, self._theirs)
            started = now()
            axpy(weights[source], self._theirs, x, self._scratch)
            finish(x)
            ledger.training.update += now() - started
            ledger.averaged(step - stamp)
        if self.sources:
            ledger.staleness = max(0.0, ledger.age)

    def close(self) -> None:
        """Wait until the last model has been put, then free the windows; collective."""
        self._overlapped.join()
        self._overlapped.close()
        super().close()
