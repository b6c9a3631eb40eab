"""Replicas with a momentum copy that flows into them: what A2CiD2 averages.

The window holds, beside each model x, its copy y; beside the lock word of `Replicas`
lies the time up to which the two have been mixed.

Time is counted in gradients per worker and needs no clock: every worker keeps a tally
of its gradients, and an exchange averages the two tallies as it does the models, so all
of them grow at the mean pace, whichever rank is slow. A tally proposes a time; both
ends of an exchange are mixed up to the latest that either has proposed or been mixed up
to, then they exchange. So all replicas flow through one time at one rate, whatever the
speeds and clocks of the hosts: the sums of x and of y are conserved to rounding.
"""

import math

import numpy as np

from dsgd_bench.arrays import Array, Scratch, average, blocks, copy
from dsgd_bench.exchanges.replicas import HISTORY, Replicas, Update
from dsgd_bench.exchanges.resumable import State
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.columns import Spans

TIME, TALLY = 2, 3  # words beside those of `Replicas`, floating-point numbers both
RECORD = slice(HISTORY, TALLY + 1)

Pair = tuple[Array, Array]
"""A part of a model, and the same part of its copy."""


class AcceleratedReplicas(Replicas):
    """`Replicas` whose averaging moves a momentum copy, too.

    Parameters
    ----------
    fabric, x, update, state
        As for `Replicas`; the copy starts at `x` and moves as `x` does by a gradient.
    kappa : float
        Rate at which a model and its copy are mixed, per gradient; 0 is `Replicas`.
    alpha : float
        Share of the difference by which an exchange moves the copies; models move by
        one half.
    """

    WORDS = 4
    VECTORS = 2

    def __init__(
        self,
        fabric: Fabric,
        x: Array,
        update: Update,
        state: State | None = None,
        *,
        kappa: float,
        alpha: float,
    ) -> None:
        super().__init__(fabric, x, self._move, state)
        self._kappa, self._alpha = kappa, alpha
        self._move_model = update
        self._before = np.empty_like(x)
        self._difference = Scratch(self._own)
        self._ours = self._words.memory.view(float)
        self._record = np.zeros(3, np.int64)
        self._theirs = self._record.view(float)
        own, size, self._pairs = self._models.memory, x.size, []
        parts = blocks(self._own)
        scratch = [
            (Scratch(self._own), Scratch(self._own)) for _ in range(min(2, len(parts)))
        ]
        # every other block has other scratch: a put still runs under the next get
        for number, part in enumerate(parts):
            second = slice(size + part.start, size + part.stop)
            for_x, for_y = scratch[number % len(scratch)]
            pairs = ((own[part], own[second]), (for_x[part], for_y[part]))
            self._pairs.append((part, second, *pairs))

    def _fill(self, state: State) -> None:
        self._copy = state.keep("copy", self._x.copy())
        self._times = state.keep("times", np.zeros(2))
        copy(self._copy, self._models.local[self._x.size :])
        self._words.memory.view(float)[TIME : TALLY + 1] = self._times

    def _move(self, x: Array, g: Array) -> None:
        """Mix up to now, then move model and copy alike by the gradient `g`."""
        ours = self._ours
        ours[TALLY] += 1
        self._mix_own(max(ours.item(TALLY), ours.item(TIME)))
        self._before[:] = x
        self._move_model(x, g)
        own_copy = self._models.local[x.size :]
        own_copy += np.subtract(x, self._before, out=self._before)

    def _mix_own(self, time: float) -> None:
        """Let this rank's model and copy flow until `time`."""
        share = self._share(time - self._ours.item(TIME))
        self._ours[TIME] = time
        if share:
            for part, _, pair, _ in self._pairs:
                mix(pair, share, self._difference[part])

    def _share(self, elapsed: float) -> float:
        """Return c = (1 - exp(-2 kappa elapsed)) / 2."""
        return -0.5 * math.expm1(-2 * self._kappa * elapsed)

    def _average(self, neighbor: int, account: Spans) -> None:
        """Mix both ends up to the same time, then exchange: models and copies."""
        models, words, now = self._models, self._words, self._fabric.now
        record, ours, theirs = self._record, self._ours, self._theirs
        with self._holding(account, self._rank, neighbor):
            started = now()
            arithmetic = 0.0
            words.get(neighbor, RECORD, out=record)
            words.flush(neighbor)
            history = record.item(0)
            our_time, our_tally = ours[TIME:].tolist()
            their_time, their_tally = theirs[1:].tolist()
            tally = (our_tally + their_tally) / 2
            time = max(tally, our_time, their_time)
            our_share = self._share(time - our_time)
            their_share = self._share(time - their_time)
            for part, second, mine, yours in self._pairs:
                models.get(neighbor, part, yours[0])
                models.get(neighbor, second, yours[1])
                models.flush(neighbor)
                arithmetic -= now()
                scratch = self._difference[part]
                mix(mine, our_share, scratch)
                mix(yours, their_share, scratch)
                exchange(mine, yours, self._alpha, scratch)
                arithmetic += now()
                models.put(mine[0], neighbor, part)  # the same at both ends
                models.put(yours[1], neighbor, second)
            models.flush(neighbor)
            words.memory[HISTORY] += 1
            record[0] = history + 1
            ours[TIME:] = theirs[1:] = time, tally
            words.put(record, neighbor, RECORD)
            words.flush(neighbor)
            account.update += arithmetic
            account.transfer += now() - started - arithmetic
        self._ledger.exchanged(self._before.nbytes, neighbor)
        self._ledger.traffic.sent(self._before.nbytes)  # the copy
        self._ledger.traffic.received(self._before.nbytes)
        self._note_age(history)

    def _settle(self) -> None:
        """Mix on all ranks up to one time: only then are the sums what they were."""
        self._mix_own(max(self._fabric.gather(self._ours.item(TIME))))
        copy(self._models.local[self._x.size :], self._copy)
        self._times[:] = self._ours[TIME : TALLY + 1]
        self._pairs.clear()
        del self._ours


def mix(pair: Pair, share: float, scratch: Array) -> None:
    """Move model and copy towards each other by `share` of their difference."""
    if share:
        x, y = pair
        np.subtract(y, x, out=scratch)
        scratch *= share
        x += scratch
        y -= scratch


def exchange(ours: Pair, theirs: Pair, alpha: float, scratch: Array) -> None:
    """Average the models into `ours`; move copies by `alpha` of their difference."""
    np.subtract(ours[0], theirs[0], out=scratch)
    average(theirs[0], ours[0])
    scratch *= alpha
    np.subtract(ours[1], scratch, out=ours[1])
    np.add(theirs[1], scratch, out=theirs[1])
