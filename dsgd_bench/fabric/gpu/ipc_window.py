"""A window in the memory of GPUs: neighbors on one host reach it by CUDA IPC.

Transfers are copies by the GPU, and sums are atomic per element; the target's process
takes no part. Words such as locks and versions stay in windows of MPI.
"""

from collections.abc import Callable
from typing import Any

from numpy.typing import DTypeLike, NDArray

from dsgd_bench.arrays import Scratch, cuda, memory
from dsgd_bench.arrays.updates import accumulate
from dsgd_bench.fabric.base import Fabric


class PeerWindow:
    """`base.VectorWindow` in GPU memory.

    Operations go through the stream of the calling thread, which `flush` and `sync`
    finish: only then may other threads or ranks look.

    Parameters
    ----------
    fabric : Fabric
        All of its ranks are on one host.
    length : int
        Elements per rank, zeros at first.
    dtype : dtype
        ``float32`` or ``float64``.
    """

    def __init__(self, fabric: Fabric, length: int, dtype: DTypeLike) -> None:
        self._fabric = fabric
        self._own = memory.Shared(length, dtype)
        handles = fabric.gather((self._own.handle, length))
        self._opened = {
            rank: memory.Opened(handle, theirs, dtype)
            for rank, (handle, theirs) in enumerate(handles)
            if rank != fabric.rank
        }
        self.memory: NDArray[Any] = self._own.vector
        self.local: NDArray[Any] = self._own.vector
        self._scratch = Scratch(self.memory)

    def within_reach(self, rank: int) -> NDArray[Any] | None:
        """Return the vector of `rank`, where it lies: kernels may work on it."""
        return self._vector(rank)

    def get(self, rank: int, part: slice, out: NDArray[Any]) -> None:
        cuda.start_copy(self._vector(rank)[part], out)

    def getting(self, rank: int, part: slice, out: NDArray[Any]) -> Callable[[], None]:
        self.get(rank, part, out)
        return cuda.finish

    def put(self, values: NDArray[Any], rank: int, part: slice) -> None:
        cuda.start_copy(values, self._vector(rank)[part])

    def fetch(self, rank: int, part: slice, out: NDArray[Any]) -> None:
        self.get(rank, part, out)

    def accumulate(self, values: NDArray[Any], rank: int, part: slice) -> None:
        accumulate(1.0, values, self._vector(rank)[part], self._scratch)

    def _vector(self, rank: int) -> NDArray[Any]:
        return self.memory if rank == self._fabric.rank else self._opened[rank].vector

    def flush(self, rank: int) -> None:  # noqa: ARG002 (the stream is one for all)
        cuda.finish()

    def sync(self) -> None:
        cuda.finish()

    def free(self) -> None:
        """Let go of the others' memory, then free one's own; collective."""
        cuda.finish()
        self._fabric.barrier()
        for opened in self._opened.values():
            opened.close()
        self._fabric.barrier()
        self.memory = self.local = self.memory[:0].copy()
        self._own.close()
