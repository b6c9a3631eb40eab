"""Replicas that are averaged without locks: half differences, added at both ends.

A variant of `replicas.Replicas`. An averaging adds half the difference of two models to
the one and subtracts it from the other, by accumulate; reads are fetches. Only sums
meet fetches, so the sum over all replicas is conserved under every interleaving. A read
that mixes two versions is detected, repeated and counted.
"""

import numpy as np

from dsgd_bench.arrays import Array, Scratch, blocks
from dsgd_bench.exchanges.replicas import STEP, SharedModels, Update
from dsgd_bench.exchanges.resumable import State
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.columns import Spans

BEGUN, ENDED = 0, 1  # words at every rank: histories, both of them

READ_TRIES = 3
"""Reads of a replica before a mixed one is taken as it is, and counted."""


class DifferenceReplicas(SharedModels):
    """Replicas that exchange half differences without any lock.

    Parameters are those of `Replicas`. Where two averagings overlap the result is not
    an exact pair average, so an algorithm on top of this one has a name of its own. A
    rank that is in several at once moves by the sum of their half differences: two
    ranks that choose each other swap models, and the hub of a star can be driven away
    from its leaves, further each time.
    """

    HISTORIES = (BEGUN, ENDED)

    def __init__(
        self, fabric: Fabric, x: Array, update: Update, state: State | None = None
    ) -> None:
        self._before = np.empty_like(x)
        self._after = np.empty_like(x)
        super().__init__(fabric, x, update, state)
        self._difference = Scratch(self._own)

    def read(self, out: Array) -> None:
        """Copy this rank's replica to `out`, again if it was changed meanwhile."""
        with self._ledger.updating:
            for _ in range(READ_TRIES):
                ended = self._words.read(self._rank, ENDED)
                quiet = self._words.read(self._rank, BEGUN) == ended
                self._fetch_own(out)
                if quiet and self._words.read(self._rank, BEGUN) == ended:
                    break
                self._ledger.counts["mixed_reads"] += 1
            self._changes_read = ended % STEP

    def apply(self, g: Array, out: Array) -> None:
        """Add this rank's movement for `g` to its replica as one sum; read to `out`."""
        whole = slice(0, self._after.size)
        with self._ledger.updating:
            self._fetch_own(self._before)
            self._after[:] = self._before
            self._update(self._after, g)
            np.subtract(self._after, self._before, out=self._after)
            changes = self._words.read(self._rank, ENDED) % STEP
            self._ledger.changes = changes - self._changes_read
            self._words.add(STEP + 1, self._rank, BEGUN)
            self._models.accumulate(self._after, self._rank, whole)
            self._models.flush(self._rank)
            self._words.add(STEP + 1, self._rank, ENDED)
            self._steps += 1
        self.read(out)

    def _average(self, neighbor: int, account: Spans) -> None:
        """x_i <- x_i + d, x_j <- x_j - d with d = (x_j - x_i) / 2, per element."""
        models, now = self._models, self._fabric.now
        started = now()
        arithmetic = 0.0
        pair = (self._rank, neighbor)
        words, history = self._words, 0
        for rank in pair:
            history = words.add(1, rank, BEGUN)
        for part in blocks(self._own):
            half, ours = self._difference[part], self._scratch[part]
            models.fetch(neighbor, part, out=half)
            models.fetch(self._rank, part, out=ours)
            models.flush(neighbor)
            models.flush(self._rank)
            arithmetic -= now()
            half -= ours
            half *= 0.5
            arithmetic += now()
            models.accumulate(half, self._rank, part)
            models.flush(self._rank)
            np.negative(half, out=half)
            models.accumulate(half, neighbor, part)
            models.flush(neighbor)
        for rank in pair:
            words.add(1, rank, ENDED)
        account.update += arithmetic
        account.transfer += now() - started - arithmetic
        self._ledger.exchanged(models.memory.nbytes, neighbor)
        self._note_age(history)

    def _fetch_own(self, out: Array) -> None:
        self._models.fetch(self._rank, slice(0, out.size), out=out)
        self._models.flush(self._rank)
