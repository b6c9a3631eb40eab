"""Windows of the measured fabric: plain memory on one node, requests between nodes."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from dsgd_bench.errors import FabricError
from dsgd_bench.fabric.mpi.communicator import Communicator

LONG = 32 * 1024
"""Bytes from which on a transfer to another node gets a request of its own."""


Making: TypeAlias = Callable[[Communicator, int, int], MPI.Win]
"""Makes a window of so many bytes per rank, in units of so many; collective."""


def allocated(fabric: Communicator, nbytes: int, unit: int) -> MPI.Win:
    """Make a window of memory that the library chooses: ranks of the node reach it."""
    return MPI.Win.Allocate(nbytes, unit, comm=fabric.comm)


class MpiWindow:
    """`base.Window` in one ``Lock_all`` epoch, completed by ``Flush``.

    Parameters
    ----------
    fabric : Communicator
        This rank; collective over all of them.
    length : int
        Elements per rank, zeros at first.
    dtype : dtype
        Of the elements.
    making : callable
        How the window is made, by default of memory that the library allocates.

    Raises
    ------
    FabricError
        If the library keeps two copies of a window's memory.
    """

    def __init__(
        self,
        fabric: Communicator,
        length: int,
        dtype: np.dtype[Any],
        making: Making = allocated,
    ) -> None:
        self._fabric = fabric
        self._win = making(fabric, length * dtype.itemsize, dtype.itemsize)
        if self._win.model != MPI.WIN_UNIFIED:
            raise FabricError(
                "this MPI library separates private from public window memory "
                "(MPI_WIN_SEPARATE): one-sided averaging needs MPI_WIN_UNIFIED"
            )
        self.memory: NDArray[Any] = np.asarray(self._win.tomemory()).view(dtype)
        self.memory[:] = 0
        self._type = MPI.Datatype.fromcode(dtype.char)
        # Where a call takes a microsecond, a Python frame around it counts, and so
        # does mpi4py's search for a buffer's type.
        self.flush: Callable[[int], None] = self._win.Flush
        self._begun: dict[int, list[MPI.Request]] = {}
        if len(fabric.near) < fabric.size:
            self.flush = self._flush_far
        self.sync: Callable[[], None] = self._win.Sync
        fabric.barrier()
        self._win.Lock_all(MPI.MODE_NOCHECK)

    def get(self, rank: int, part: slice, out: NDArray[Any]) -> None:
        self._win.Get((out, self._type), rank, self._target(part))

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
        """Complete all operations on `rank`; wait for long ones as for messages."""
        for request in self._begun.pop(rank, ()):
            self._fabric.wait(request)
        self._win.Flush(rank)

    def free(self) -> None:
        self._win.Unlock_all()
        win, self._win = self._win, MPI.WIN_NULL
        self.memory = np.zeros(0, self.memory.dtype)  # no view may outlive the memory
        win.Free()


class MpiVectorWindow(MpiWindow):
    """`base.VectorWindow` on the host, parameters as for `MpiWindow`."""

    @property
    def local(self) -> NDArray[Any]:
        return self.memory

    def within_reach(self, rank: int) -> None:
        """Return None: another rank's vector is reached through the library only."""

    def getting(self, rank: int, part: slice, out: NDArray[Any]) -> Callable[[], None]:
        if rank in self._fabric.near:  # done at once, and without a request
            self.get(rank, part, out)
            return partial(self.flush, rank)
        request = self._win.Rget((out, self._type), rank, self._target(part))
        return partial(self._fabric.wait, request)


class MpiWordWindow(MpiWindow):
    """`base.WordWindow`, parameters as for `MpiWindow`."""

    def __init__(
        self, fabric: Communicator, count: int, making: Making = allocated
    ) -> None:
        super().__init__(fabric, count, np.dtype(np.int64), making)
        self._value, self._result = np.zeros(1, np.int64), np.zeros(1, np.int64)
        self._answer = (self._result, 1, self._type)
        self._buffers: dict[int, tuple[NDArray[Any], int, MPI.Datatype]] = {}

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
        buffer = self._buffer
        self._win.Compare_and_swap(buffer(new), buffer(old), self._answer, rank, index)
        self.flush(rank)
        return self._result.item()

    def _buffer(self, value: int) -> tuple[NDArray[Any], int, MPI.Datatype]:
        """Return `value` as a buffer; lock words take few values, which are kept."""
        if value not in self._buffers:
            self._buffers[value] = (np.full(1, value, np.int64), 1, self._type)
        return self._buffers[value]

    def rest(self, rank: int, index: int, seen: int, seconds: float) -> None:
        del rank, index, seen  # it takes another try to know more
        self._fabric.pause(seconds)
