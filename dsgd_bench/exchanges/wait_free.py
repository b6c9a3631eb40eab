"""Replicas for two threads per worker: computing never waits for the network.

The wait-free form of AD-PSGD (arXiv:1710.06952, Appendix, Algorithms 2 to 4). The
training thread pulls a copy of the model and hands gradients over; the communication
thread applies them and averages. Between the two lie an accumulator and three copies
of the model, exchanged by swapping references, so neither ever waits for more than a
pass over memory.
"""

from collections.abc import Callable
from threading import Lock
from types import TracebackType

import numpy as np

from dsgd_bench.arrays import Array, copy, finish
from dsgd_bench.exchanges.replicas import HISTORY, STEP, Replicas, Update
from dsgd_bench.exchanges.resumable import State
from dsgd_bench.fabric.base import Fabric, ends_well
from dsgd_bench.fabric.columns import Spans


class HandoverReplicas(Replicas):
    """`Replicas` whose gradients go through an accumulator.

    Parameters
    ----------
    fabric, x, update, state
        As for `Replicas`; `update` runs on the communication thread, with the sum of
        the gradients handed over since the last time, and books nothing itself.
    repair : callable
        ``repair(y, g)`` moves the pulled copy `y` by a gradient that was handed over
        but is not in it yet, in place.
    """

    def __init__(
        self,
        fabric: Fabric,
        x: Array,
        update: Update,
        repair: Update,
        state: State | None = None,
    ) -> None:
        super().__init__(fabric, x, update, state)
        self._earlier = self._steps
        self._repair = repair
        self._mutex = Lock()  # held for a swap, or one pass over memory; never for MPI
        self._sum, self._taken = np.zeros_like(x), np.zeros_like(x)
        self._front, self._middle, self._back = x.copy(), x.copy(), x.copy()
        self._fresh = False
        self._handed = 0  # gradients handed over so far
        self._included = 0  # of these, in the middle copy
        self._last: Array | None = None
        self._middle_changes = self._handed_changes = 0

    def pull(self) -> Array:
        """Return the newest copy of this rank's replica; the caller's until next time.

        The gradient handed over last is added to it if the communication thread has
        not applied it yet.
        """
        self._overlapped.check()
        fabric, account = self._fabric, self._ledger.training
        started = fabric.now()
        with self._mutex:
            account.waiting += fabric.now() - started
            late = self._last is not None
            if self._fresh:
                self._front, self._middle = self._middle, self._front
                self._fresh = False
                self._changes_read = self._middle_changes
                late = self._included < self._handed
        if late and self._last is not None:
            with self._ledger.updating:
                self._repair(self._front, self._last)
        self._last = None
        return self._front

    def hand_over(self, g: Array) -> None:
        """Add `g` to the accumulator; it must stay as it is until the next `pull`."""
        started = self._fabric.now()
        with self._mutex:
            self._ledger.training.waiting += self._fabric.now() - started
            with self._ledger.updating:
                self._sum += g
                finish(g)  # the other thread may take it as soon as it has the mutex
                self._handed += 1
                self._handed_changes = self._changes_read
        self._last = g

    def take_over(self) -> None:
        """x_i <- x_i - lr G, G <- 0, and publish a copy of x_i for the next `pull`.

        G is taken once the replica is held, which may take long: a copy that lacked
        what was handed over meanwhile would throw the training thread back.
        """
        account = self._ledger.overlapped
        with self._holding(account, self._rank):
            started = self._fabric.now()
            with self._mutex:
                self._sum, self._taken = self._taken, self._sum
                included, changes_read = self._handed, self._handed_changes
            history = self._words.memory.item(HISTORY)
            changes = history % STEP
            if included > self._included:
                self._update(self._model, self._taken)
                self._taken.fill(0.0)
                fresh = included - self._included
                self._words.memory[HISTORY] = history + fresh * STEP + 1
                self._steps = self._earlier + included
                self._ledger.changes = changes - changes_read
                changes += 1
            copy(self._model, self._back)
            account.update += self._fabric.now() - started
        with self._mutex:
            self._middle, self._back = self._back, self._middle
            self._included, self._middle_changes = included, changes
            self._fresh = True

    def average_overlapped(self, neighbor: int | None) -> None:
        """Average with a neighbor, if there is one, on the communication thread."""
        if neighbor is not None:
            self._average(neighbor, self._ledger.overlapped)

    def overlapped(self, communicate: Callable[[], None]) -> "_Communication":
        """Call `communicate` again and again on its own thread in a ``with`` block."""
        return _Communication(self, communicate)


class _Communication:
    """The communication thread: lives as long as the block, then drains."""

    def __init__(self, replicas: HandoverReplicas, work: Callable[[], None]) -> None:
        self._replicas = replicas
        self._work = work
        self._ended = False

    def __enter__(self) -> None:
        self._replicas._overlapped.begin(self._loop)

    def _loop(self, _account: Spans) -> None:
        while not self._ended:
            self._work()  # books on the same account by itself

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended = True
        if ends_well(self._replicas._fabric, kind):
            self._replicas._overlapped.join()
            self._replicas.take_over()
