"""Every rank's model in a window that itself takes the sums of all the others.

What DASGD (arXiv:2309.03754) needs: a movement is added to the own replica at once and
to all the others as soon as it gets there; nothing else ever changes a replica. Only
sums meet fetches, the owner's own included, so no movement is lost or added twice under
any interleaving, and once all have arrived the replicas differ by rounding only. There
is no inbox: what has arrived is in the model that is read next.

A read may find part of a sum that is just arriving. The rest is in the next one.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.arrays import Array, copy
from dsgd_bench.exchanges.overlapped import Overlapped
from dsgd_bench.exchanges.resumable import State
from dsgd_bench.fabric.base import Fabric, Resource, check_vector
from dsgd_bench.fabric.columns import Spans

OWN = np.array([1, 0], np.int64)
"""What one's own gradient adds to one's own counters: a gradient, but no message."""


class SumReplicas(Resource):
    """Replicas to which every rank adds its movements; no rank waits for another.

    Every rank counts, for each origin, the gradients and the messages that have
    arrived. A rank that adds counts only once the data are there, and a rank that reads
    looks at the counters first: a model holds at least the gradients that they count.

    Parameters
    ----------
    fabric : Fabric
        This rank's fabric.
    x : array of shape (dim,)
        Initial model; holds the final one after `close`.
    state : State, optional
        Of this rank, if it may be stopped and go on.

    Attributes
    ----------
    unsent : int
        Own gradients in the sum that has yet to be sent.
    applied : array of shape (size,)
        Gradients of every rank in the model that was read last, at least; after
        `close`, exactly those in the final model.
    """

    def __init__(self, fabric: Fabric, x: Array, state: State | None = None) -> None:
        check_vector(x)
        before = fabric.gather((state or State()).step)
        size = fabric.size
        self._fabric, self._ledger, self._rank = fabric, fabric.ledger, fabric.rank
        self._x, self._whole = x, slice(0, x.size)
        self._models = fabric.vectors(x.size, x)
        self._counters = fabric.words(2 * size)
        self._mine = slice(2 * self._rank, 2 * self._rank + 2)
        self._others = [(self._rank + hop) % size for hop in range(1, size)]
        self._sum, self._lent = np.zeros_like(x), np.zeros_like(x)
        self._message = np.array([0, 1], np.int64)
        self._arrived: NDArray[np.int64] = np.zeros((size, 2), np.int64)
        self.applied = self._arrived[:, 0]
        self.unsent = 0
        self._received = 0
        self._included, self._delivered = sum(before), before[self._rank]
        self._overlapped = Overlapped(fabric)
        copy(x, self._models.local)
        self._models.sync()
        self._counters.memory[::2] = before  # gradients; messages count from now on
        self._counters.sync()
        fabric.barrier()  # nothing is added before it is filled

    def read(self, out: Array) -> None:
        """Copy this rank's replica to `out`, with all that has arrived."""
        started = self._fabric.now()
        counters, models, rank = self._counters, self._models, self._rank
        counters.fetch(rank, slice(0, self._arrived.size), self._arrived.reshape(-1))
        counters.flush(rank)
        models.fetch(rank, self._whole, out=out)
        models.flush(rank)
        self._included, received = map(int, self._arrived.sum(axis=0))
        messages, self._received = received - self._received, received
        self._ledger.traffic.received(messages * out.nbytes, messages)
        self._ledger.delivered = self._delivered
        self._ledger.training.update += self._fabric.now() - started

    def add(self, movement: Array) -> None:
        """Add the `movement` for one gradient to this rank's replica, at once.

        The others get it in a sum, from `spread`. The ledger notes how many gradients
        the model had that was read last, at which this one was taken.
        """
        started = self._fabric.now()
        self._models.accumulate(movement, self._rank, self._whole)
        self._models.flush(self._rank)
        self._counters.accumulate(OWN, self._rank, self._mine)
        self._counters.flush(self._rank)
        self._sum += movement
        self.unsent += 1
        self._ledger.included = self._included
        self._ledger.training.update += self._fabric.now() - started

    def spread(self) -> None:
        """Start to add the sum of all movements since the last time to the others.

        The sum is sent during the next gradients. While the last one is in flight
        this does nothing: on a slow network sums grow, but no rank waits.
        """
        self._overlapped.check()
        if not self._overlapped.running:
            self._overlapped.begin(partial(self._send, self._lend()))

    def _lend(self) -> int:
        """Lend the sum to the fabric; return the number of gradients in it."""
        self._sum, self._lent = self._lent, self._sum
        gradients, self.unsent = self.unsent, 0
        return gradients

    def _send(self, gradients: int, account: Spans) -> None:
        """Add what was lent to every other replica, then count it there."""
        started = self._fabric.now()
        models, counters, traffic = self._models, self._counters, self._ledger.traffic
        self._message[0] = gradients
        for rank in self._others:
            models.accumulate(self._lent, rank, self._whole)
        for rank in self._others:
            models.flush(rank)
            counters.accumulate(self._message, rank, self._mine)
            traffic.sent(self._lent.nbytes)
            self._ledger.exchanges[rank] += 1
        for rank in self._others:
            counters.flush(rank)
        self._lent.fill(0.0)
        self._delivered += gradients
        account.transfer += self._fabric.now() - started

    def close(self) -> None:
        """Send the last sum, wait until all have, hand the model back, free."""
        self._overlapped.join()
        if self.unsent:
            self._send(self._lend(), self._ledger.training)
        self._overlapped.close()
        self._fabric.barrier()
        self._models.sync()
        self._counters.sync()
        copy(self._models.local, self._x)
        self._arrived.reshape(-1)[:] = self._counters.memory
        self._models.free()
        self._counters.free()
