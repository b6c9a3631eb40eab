"""What `bench` and `probe` compare with: averaging by hand, windows made otherwise.

The pairwise averaging has no accounts, no spans, no retries, no checks, two ranks: what
one would write for just this one exchange, in its best form. Everything that
can be made before is: views, targets, buffers. The waiting side of a lock spins, as it
has a core of its own.
"""

import time
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI

from dsgd_bench.arrays import Array
from dsgd_bench.fabric.mpi.communicator import Communicator

POLL_SECONDS = 1e-3
"""Between two polls of a rank that idles."""


@dataclass(frozen=True)
class Block:
    """Part of the model that is averaged at a time, as NumPy and as MPI see it."""

    ours: Array
    theirs: Array
    put: tuple[Array, MPI.Datatype]
    got: tuple[Array, MPI.Datatype]
    target: tuple[int, int, MPI.Datatype]


class BarePair:
    """Two replicas, one per rank, in a window of ``MPI_Win_allocate``.

    Parameters
    ----------
    comm : MPI.Intracomm
        Two ranks; collective.
    x : array of shape (dim,)
        Initial model of this rank.

    Attributes
    ----------
    memory : array of shape (dim,)
        This rank's replica.
    """

    def __init__(self, comm: MPI.Intracomm, x: Array) -> None:
        self._rank, self._neighbor = comm.rank, 1 - comm.rank
        self._type = MPI.Datatype.fromcode(x.dtype.char)
        self._models = MPI.Win.Allocate(x.nbytes, x.itemsize, comm=comm)
        self._locks = MPI.Win.Allocate(8, 8, comm=comm)
        self.memory = np.asarray(self._models.tomemory()).view(x.dtype)
        self.memory[:] = x
        np.asarray(self._locks.tomemory())[:] = 0
        self._scratch = np.empty_like(x)
        word = MPI.Datatype.fromcode("l")
        self._found = np.zeros(1, np.int64)
        self._free = (np.zeros(1, np.int64), 1, word)
        self._mine = (np.full(1, self._rank + 1, np.int64), 1, word)
        self._answer = (self._found, 1, word)
        comm.Barrier()
        self._models.Lock_all(MPI.MODE_NOCHECK)
        self._locks.Lock_all(MPI.MODE_NOCHECK)
        comm.Barrier()

    def blocks(self, nbytes: int) -> list[Block]:
        """Cut the model into blocks of at most `nbytes`, for `average`."""
        size, kind = self.memory.size, self._type
        length = max(1, nbytes // self.memory.itemsize)
        found = []
        for start in range(0, size, length):
            ours = self.memory[start : start + length]
            theirs = self._scratch[: ours.size]
            place = (start, ours.size, kind)
            found.append(Block(ours, theirs, (ours, kind), (theirs, kind), place))
        return found

    def average(self, blocks: list[Block]) -> None:
        """x_0, x_1 <- (x_0 + x_1) / 2, moved by this rank, atomic at both ends."""
        models, neighbor = self._models, self._neighbor
        self._lock(0)
        self._lock(1)
        models.Sync()
        for block in blocks:
            ours, theirs = block.ours, block.theirs
            models.Get(block.got, neighbor, block.target)
            models.Flush(neighbor)
            np.add(theirs, ours, out=ours)
            np.multiply(ours, 0.5, out=ours)
            models.Put(block.put, neighbor, block.target)
        models.Flush(neighbor)
        models.Sync()
        self._unlock(1)
        self._unlock(0)

    def step(self, blocks: list[Block], g: Array, out: Array, lr: float) -> None:
        """Average; then x <- x - lr g under the lock, and copy it."""
        self.average(blocks)
        self._lock(self._rank)
        self._models.Sync()
        np.multiply(g, lr, out=self._scratch)
        np.subtract(self.memory, self._scratch, out=self.memory)
        out[:] = self.memory
        self._models.Sync()
        self._unlock(self._rank)

    def _lock(self, rank: int) -> None:
        locks, words = self._locks, (self._mine, self._free, self._answer)
        locks.Compare_and_swap(*words, rank)
        locks.Flush(rank)
        while self._found[0]:
            locks.Compare_and_swap(*words, rank)
            locks.Flush(rank)

    def _unlock(self, rank: int) -> None:
        self._locks.Compare_and_swap(self._free, self._mine, self._answer, rank)
        self._locks.Flush(rank)

    def close(self) -> None:
        """Free the windows; collective."""
        self._models.Unlock_all()
        self._locks.Unlock_all()
        self.memory = np.zeros(0, self.memory.dtype)  # no view may outlive the memory
        self._models.Free()
        self._locks.Free()


def created(fabric: Communicator, nbytes: int, unit: int) -> MPI.Win:
    """Make a window over memory of our own, by ``MPI_Win_create``; collective.

    Libraries cannot map such memory into other ranks, so a target that computes keeps
    them waiting even on the same node. Only the probe uses it, to show the difference.
    """
    memory = np.zeros(nbytes, np.uint8)  # the window keeps it
    return MPI.Win.Create(memory, unit, comm=fabric.comm)


def idle(comm: MPI.Intracomm) -> None:
    """Wait for the other ranks almost asleep: no core, no memory traffic; collective.

    The library is still entered every `POLL_SECONDS`, so a target keeps answering.
    """
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(POLL_SECONDS)
