"""Windows of the measured fabric: plain memory on one node, requests between nodes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from dsgd_bench.errors import FabricError
from dsgd_bench.fabric.mpi.communicator import Communicator

LONG = 32 * 1024
"""Bytes from which on a transfer to another node gets a request of its own."""


class MpiWindow:
    """`base.Window` on ``MPI_Win_allocate``, one ``Lock_all`` epoch, ``Flush``."""

    def __init__(self, fabric: Communicator, length: int, dtype: np.dtype[Any]) -> None:
        self._fabric = fabric
        self._win = self._made(length * dtype.itemsize, dtype.itemsize)
        if self._win.model != MPI.WIN_UNIFIED:
            raise FabricError(
                "this MPI library separates private from public window memory "
                "(MPI_WIN_SEPARATE): one-sided averaging needs MPI_WIN_UNIFIED"
            )
        self.memory: NDArray[Any] = np.asarray(self._win.tomemory()).view(dtype)
        self.memory[:] = 0
        self.local = self.memory
        self._type = MPI.Datatype.fromcode(dtype.char)
        self._value = np.zeros(1, dtype)
        self._result = np.zeros(1, dtype)
        # Where a call takes a microsecond, a Python frame around it counts, and so
        # does mpi4py's search for a buffer's type.
        self.flush: Callable[[int], None] = self._win.Flush
        self._begun: dict[int, list[MPI.Request]] = {}
        if len(fabric.near) < fabric.size:
            self.flush = self._flush_far
        self.sync: Callable[[], None] = self._win.Sync
        self._answer = (self._result, 1, self._type)
        self._words: dict[int, tuple[NDArray[Any], int, MPI.Datatype]] = {}
        fabric.barrier()
        self._win.Lock_all(MPI.MODE_NOCHECK)

    def _made(self, nbytes: int, unit: int) -> MPI.Win:
        """Make it of memory that the library chooses: ranks of the node reach that."""
        return MPI.Win.Allocate(nbytes, unit, comm=self._fabric.comm)

    def within_reach(self, rank: int) -> None:
        """Return None: another rank's vector is reached through the library only."""

    def get(self, rank: int, part: slice, out: NDArray[Any]) -> None:
        self._win.Get((out, self._type), rank, self._target(part))

    def getting(self, rank: int, part: slice, out: NDArray[Any]) -> Callable[[], None]:
        if rank in self._fabric.near:  # done at once, and without a request
            self.get(rank, part, out)
            return partial(self.flush, rank)
        request = self._win.Rget((out, self._type), rank, self._target(part))
        return partial(self._fabric.wait, request)

    def put(self, values: NDArray[Any], rank: int, part: slice) -> None:
        target = self._target(part)
        if self._is_long(values, rank):
            self._note(rank, self._win.Rput((values, self._type), rank, target))
        else:
            self._win.Put((values, self._type), rank, target)

    def _target(self, part: slice) -> tuple[int, int, MPI.Datatype]:
        return (part.start, part.stop - part.start, self._type)

    def fetch(self, rank: int, part: slice, out: NDArray[Any]) -> None:
        # MPI ignores the origin buffer of MPI_NO_OP, mpi4py wants one all the same
        self._win.Get_accumulate(out, out, rank, self._target(part), MPI.NO_OP)

    def accumulate(self, values: NDArray[Any], rank: int, part: slice) -> None:
        target = self._target(part)
        if self._is_long(values, rank):
            request = self._win.Raccumulate((values, self._type), rank, target, MPI.SUM)
            self._note(rank, request)
        else:
            self._win.Accumulate((values, self._type), rank, target, MPI.SUM)

    def _is_long(self, values: NDArray[Any], rank: int) -> bool:
        """Tell whether a transfer to `rank` takes so long that it is waited for apart.

        Inside a flush the library keeps other threads of this rank waiting, and over a
        network that is as long as the transfer.
        """
        return values.nbytes >= LONG and rank not in self._fabric.near

    def _note(self, rank: int, request: MPI.Request) -> None:
        self._begun.setdefault(rank, []).append(request)

    def _flush_far(self, rank: int) -> None:
        """Complete all operations on `rank`, the long ones politely."""
        for request in self._begun.pop(rank, ()):
            self._fabric.wait(request)
        self._win.Flush(rank)

    def add(self, value: int, rank: int, index: int) -> int:
        self._value[0] = value
        self._win.Fetch_and_op(self._value, self._result, rank, index, MPI.SUM)
        self._win.Flush(rank)
        return int(self._result.item())

    def read(self, rank: int, index: int) -> int:
        self._win.Fetch_and_op(self._value, self._result, rank, index, MPI.NO_OP)
        self._win.Flush(rank)
        return int(self._result.item())

    def compare_and_swap(self, old: int, new: int, rank: int, index: int) -> int:
        word = self._word
        self._win.Compare_and_swap(word(new), word(old), self._answer, rank, index)
        self.flush(rank)
        return self._result.item()  # type: ignore[no-any-return]

    def _word(self, value: int) -> tuple[NDArray[Any], int, MPI.Datatype]:
        """Return `value` as a buffer; lock words take few values, which are kept."""
        if value not in self._words:
            buffer = np.full(1, value, self.memory.dtype)
            self._words[value] = (buffer, 1, self._type)
        return self._words[value]

    def rest(self, rank: int, index: int, seen: int, seconds: float) -> None:
        del rank, index, seen  # it takes another try to know more
        self._fabric.pause(seconds)

    def free(self) -> None:
        self._win.Unlock_all()
        win, self._win = self._win, MPI.WIN_NULL
        # no view may outlive the memory
        self.memory = self.local = np.zeros(0, self.memory.dtype)
        win.Free()
