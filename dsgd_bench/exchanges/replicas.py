"""Every rank's model in a window: read it, average two of them, apply a gradient.

Written once over `base.Window`, for MPI and for virtual time, and one-sided: the
partner's processor takes no part. `Replicas` averages atomically at both ends. There is
a lock word per rank, taken by compare-and-swap; both replicas hold the same average
afterwards, and torn reads are impossible. A rank that cannot have both locks keeps
none, so no rank waits for one that only waits itself. Of the ranks that try, one
succeeds: locks are taken in ascending rank order, so a rank that fails at a second lock
which no exchange holds fails because of a rank that is further up.

`lock_free.DifferenceReplicas` does without locks, `accelerated.AcceleratedReplicas`
averages a momentum copy as well, `wait_free.HandoverReplicas` has two threads per rank.
"""

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from dsgd_bench.arrays import Array, Scratch, average, blocks, copy
from dsgd_bench.arrays.updates import average_both
from dsgd_bench.errors import FabricError
from dsgd_bench.exchanges.overlapped import Overlapped
from dsgd_bench.exchanges.resumable import State
from dsgd_bench.fabric.base import BACK_OFF_SECONDS, Fabric, Resource, check_vector
from dsgd_bench.fabric.columns import Spans

LOCK, HISTORY = 0, 1  # words at every rank
STEP = 1 << 32
"""A history counts changes of a replica, and in steps of this its owner's gradients.

In one word, so that a rank that counts an averaging learns the age of the model."""

AHEAD = 4
"""Blocks of another node that are asked for before the first one is here, so that a
link is never idle for a round trip; each has a scratch of its own. On one node a single
block, which stays in the cache, is quicker."""

Update = Callable[[Array, Array], None]
"""``update(x, g)`` moves the model `x` by the gradient `g`, in place."""


class SharedModels(Resource):
    """What all variants have: the windows, the accounts, the staleness of a read.

    Parameters are those of `Replicas`. A variant says in `HISTORIES` which of its words
    count changes, and in `VECTORS` how many vectors of a model's size it keeps.
    """

    WORDS = 2
    HISTORIES: tuple[int, ...] = (HISTORY,)
    VECTORS = 1  # of a model's size in the window; the first is the model

    def __init__(
        self, fabric: Fabric, x: Array, update: Update, state: State | None = None
    ) -> None:
        state = state or State()
        check_vector(x)
        self._fabric = fabric
        self._ledger = fabric.ledger
        self._rank = fabric.rank
        self._x = x
        self._update = update
        self._models = fabric.vectors(self.VECTORS * x.size, x)
        self._words = fabric.words(self.WORDS)
        # the replica, where exchanges find it and where gradients and copies lie
        self._own = self._models.memory[: x.size]
        self._model = self._models.local[: x.size]
        for start in range(0, self.VECTORS * x.size, x.size):
            copy(x, self._models.local[start : start + x.size])
        self._scratch = Scratch(self._own)
        for word in self.HISTORIES:
            self._words.memory[word] = state.step * STEP
        self._fill(state)
        self._models.sync()
        self._words.sync()
        # views of every block, scratch and own, so that an exchange makes none
        parts = blocks(self._own)
        most = min(AHEAD, len(parts))
        scratch = [self._scratch, *(Scratch(self._own) for _ in range(most - 1))]
        self._blocks = {
            ahead: [
                (part, scratch[number % min(ahead, most)][part], self._own[part])
                for number, part in enumerate(parts)
            ]
            for ahead in (1, AHEAD)
        }
        self._changes_read = 0
        self._steps = state.step  # own gradients in the own replica
        self._overlapped = Overlapped(fabric)
        fabric.barrier()  # no replica is read before it is filled

    def _fill(self, state: State) -> None:
        """Fill what the windows hold besides the model."""

    def average_with(self, neighbor: int | None) -> None:
        """Average this rank's replica with a neighbor's, if there is one."""
        if neighbor is not None:
            self._average(neighbor, self._ledger.training)

    def averaging(self, neighbor: int | None) -> AbstractContextManager[None]:
        """Average on a thread of its own while the ``with`` block runs."""
        if neighbor is None:
            return nullcontext()
        ledger, now = self._ledger, self._fabric.now
        waited = ledger.overlapped.waiting

        def book(started: float) -> None:
            exposed = now() - started
            # at most as long as the exchange waited for locks; the rest was transfer
            waiting = min(exposed, ledger.overlapped.waiting - waited)
            ledger.training.waiting += waiting
            ledger.training.transfer += exposed - waiting

        return self._overlapped.during(partial(self._average, neighbor), book)

    def _average(self, neighbor: int, account: Spans) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Wait for the last exchange with this rank, hand the model back, free."""
        self._overlapped.close()
        self._fabric.barrier()
        self._models.sync()
        self._words.sync()
        self._settle()
        copy(self._model, self._x)
        self._blocks.clear()  # no view may outlive the memory
        del self._own, self._model
        self._models.free()
        self._words.free()

    def _settle(self) -> None:
        """Do what is left to do when no rank averages any more; collective."""

    def _note_age(self, history: int) -> None:
        """Note the age of a model of that history in own steps; none if it is ahead."""
        self._ledger.averaged(max(0, self._steps - history // STEP))


class Replicas(SharedModels):
    """Replicas that are averaged atomically at both ends, under lock words.

    Parameters
    ----------
    fabric : Fabric
        This rank's fabric.
    x : array of shape (dim,)
        Initial model; holds the final one after `close`.
    update : callable
        How a gradient moves the model: ``update(x, g)``, in place.
    state : State, optional
        Of this rank, if it may be stopped and go on.
    """

    def read(self, out: Array) -> None:
        """Copy this rank's replica to `out`, whole even if averaged meanwhile."""
        with self._holding(self._ledger.training, self._rank), self._ledger.updating:
            copy(self._model, out)
            self._changes_read = self._words.memory.item(HISTORY) % STEP

    def apply(self, g: Array, out: Array) -> None:
        """Move this rank's replica by `g`, and read it to `out`, in one go.

        What the ledger notes as staleness is how often the replica changed since it was
        read last: since the model that `g` was taken at.
        """
        with self._holding(self._ledger.training, self._rank), self._ledger.updating:
            history = self._words.memory.item(HISTORY)
            self._update(self._model, g)
            self._words.memory[HISTORY] = history + STEP + 1
            copy(self._model, out)
        changes = history % STEP
        self._steps += 1
        self._ledger.changes = changes - self._changes_read
        self._changes_read = changes + 1

    def _average(self, neighbor: int, account: Spans) -> None:
        """x_i, x_j <- (x_i + x_j) / 2, by this rank, at both ends.

        The last transfer is flushed before a lock is released.
        """
        models, words, now = self._models, self._words, self._fabric.now
        with self._holding(account, self._rank, neighbor):
            started = now()
            words.memory[HISTORY] += 1
            history = words.add(1, neighbor, HISTORY)
            theirs = models.within_reach(neighbor)
            arithmetic = 0.0
            if theirs is None:
                arithmetic = self._average_blocks(neighbor)
            else:
                average_both(theirs[: self._own.size], self._own)
            models.flush(neighbor)
            account.update += arithmetic
            account.transfer += now() - started - arithmetic
        self._ledger.exchanged(models.memory.nbytes, neighbor)
        self._note_age(history)

    def _average_blocks(self, neighbor: int) -> float:
        """Average in blocks that fit the cache; return the seconds of arithmetic.

        A block is averaged while it is in the cache, and its put runs under the gets of
        the next ones.
        """
        models, now = self._models, self._fabric.now
        arithmetic = 0.0
        ahead = 1 if neighbor in self._fabric.near else AHEAD
        pieces = self._blocks[ahead]
        coming = deque(
            models.getting(neighbor, part, theirs) for part, theirs, _ in pieces[:ahead]
        )
        for number, (part, theirs, ours) in enumerate(pieces, ahead):
            coming.popleft()()  # this block is here
            arithmetic -= now()
            average(theirs, ours)
            arithmetic += now()
            models.put(ours, neighbor, part)
            for later, same, _ in pieces[number : number + 1]:
                coming.append(models.getting(neighbor, later, same))
        return arithmetic

    def _holding(self, account: Spans, *ranks: int) -> "_Holding":
        """Hold the lock words of `ranks`; the time until they are held is waiting."""
        return _Holding(self, account, ranks)


class _Holding:
    """Lock words in hand. A class, since a generator costs microseconds more.

    A rank that holds its own word owns its model and its history as plain memory:
    others change them under this lock only, and flush before they release it.
    """

    __slots__ = ("_account", "_ranks", "_replicas")

    def __init__(self, replicas: Replicas, account: Spans, ranks: tuple[int, ...]):
        self._replicas, self._account = replicas, account
        self._ranks = sorted(ranks)

    def __enter__(self) -> Spans:
        r, tries = self._replicas, 0
        started = r._fabric.now()
        while (taken := self._take()) is not None:
            rank, by = taken
            r._words.rest(
                rank, LOCK, by, BACK_OFF_SECONDS[min(tries, len(BACK_OFF_SECONDS) - 1)]
            )
            tries += 1
        r._models.sync()
        r._words.sync()
        self._account.waiting += r._fabric.now() - started
        r._ledger.counts["lock_retries"] += tries
        return self._account

    def _take(self) -> tuple[int, int] | None:
        """Take all locks, or none; return None, or which one is taken and by whom."""
        r = self._replicas
        swap, mine = r._words.compare_and_swap, r._rank + 1
        for number, rank in enumerate(self._ranks):
            if by := swap(0, mine, rank, LOCK):
                for held in self._ranks[:number]:
                    swap(mine, 0, held, LOCK)
                return rank, by
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            return  # a failed rank ends the run; no rank shall find half a model
        r = self._replicas
        swap, mine = r._words.compare_and_swap, r._rank + 1
        started = r._fabric.now()
        r._models.sync()
        r._words.sync()
        for rank in reversed(self._ranks):
            held = swap(mine, 0, rank, LOCK)
            if held != mine:
                raise FabricError(
                    f"rank {r._rank} released the replica of rank {rank} but rank "
                    f"{held - 1} held it: two algorithms share one window"
                )
        self._account.transfer += r._fabric.now() - started
