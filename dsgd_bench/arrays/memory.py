"""Memory that a GPU shares: with MPI, through pinned pages; with others' GPUs, by IPC.

The other half of the door to CuPy. Addresses here are unified ones, so a copy between
any two of them is one call.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import cupy
import cupyx
import numpy as np
from cupy.cuda import runtime
from numpy.typing import DTypeLike, NDArray

from dsgd_bench.arrays.cuda import start_copy
from dsgd_bench.arrays.kernels import address

CHUNK_BYTES = 4 * 2**20
"""Bytes that are copied, and sent, at a time: long enough to reach the full rate of
either, short enough that copying the next chunk hides behind sending this one."""

PORTABLE_AND_MAPPED = 1 | 2
LAZY_PEER_ACCESS = 1

Handle = bytes
"""What another process opens a vector by."""


def chunks(x: NDArray[Any]) -> Sequence[slice]:
    """Return slices of at most `CHUNK_BYTES` that cover `x`, the same on every rank."""
    step = CHUNK_BYTES // x.itemsize
    return [slice(start, min(start + step, x.size)) for start in range(0, x.size, step)]


def pinned(like: NDArray[Any]) -> NDArray[Any]:
    """Return a host vector of the size and type of `like` that never leaves memory."""
    return cupyx.empty_pinned(like.size, like.dtype)  # type: ignore[no-any-return]


def arriving(values: NDArray[Any], out: NDArray[Any]) -> Iterator[slice]:
    """Copy `values` from the GPU to pinned `out`; yield every chunk once it is there.

    All copies are started at once, so the next chunks come while the caller works.
    """
    stream = cupy.cuda.get_current_stream()
    events = []
    for part in chunks(values):
        start_copy(values[part], out[part])
        events.append((part, stream.record(cupy.cuda.Event(disable_timing=True))))
    for part, event in events:
        event.synchronize()
        yield part


class Mapped:
    """Host memory that a GPU computes on in place, through the bus.

    Parameters
    ----------
    memory : NDArray
        Contiguous; registered with the driver until `close`.

    Attributes
    ----------
    view : array
        The same memory, as CuPy sees it.
    """

    def __init__(self, memory: NDArray[Any]) -> None:
        self._address = address(memory)
        runtime.hostRegister(self._address, memory.nbytes, PORTABLE_AND_MAPPED)
        self.view = _view(self._address, memory.size, memory.dtype, memory)

    def close(self) -> None:
        """Give the registration back; the memory must still be there."""
        runtime.hostUnregister(self._address)
        del self.view


class Shared:
    """A vector on this GPU that other processes of this host can open.

    Parameters
    ----------
    length : int
        Elements, zeros at first.
    dtype : dtype
        Of its elements.

    Attributes
    ----------
    vector : array
        The vector. It has an allocation of its own, as IPC shares whole allocations.
    handle : bytes
        What `opened` takes.
    """

    def __init__(self, length: int, dtype: DTypeLike) -> None:
        dtype = np.dtype(dtype)
        self._address = runtime.malloc(max(1, length) * dtype.itemsize)
        self.vector = _view(self._address, length, dtype)
        self.vector[...] = 0
        cupy.cuda.get_current_stream().synchronize()
        self.handle: Handle = runtime.ipcGetMemHandle(self._address)

    def close(self) -> None:
        """Free the memory, once no process has it open any more."""
        del self.vector
        runtime.free(self._address)


class Opened:
    """Another process's `Shared` vector; parameters as it has them.

    Attributes
    ----------
    vector : array
        The vector, in the other's memory.
    """

    def __init__(self, handle: Handle, length: int, dtype: DTypeLike) -> None:
        self._address = runtime.ipcOpenMemHandle(handle, LAZY_PEER_ACCESS)
        self.vector = _view(self._address, length, np.dtype(dtype))

    def close(self) -> None:
        """Let go of the other's memory."""
        del self.vector
        runtime.ipcCloseMemHandle(self._address)


def _view(
    where: int, length: int, dtype: np.dtype[Any], owner: object = None
) -> NDArray[Any]:
    """Return the vector at an address that CuPy did not allocate."""
    memory = cupy.cuda.UnownedMemory(where, max(1, length) * dtype.itemsize, owner)
    pointer = cupy.cuda.MemoryPointer(memory, 0)
    return cupy.ndarray(length, dtype, pointer)  # type: ignore[no-any-return]
