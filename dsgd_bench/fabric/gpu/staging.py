"""Vectors on a GPU and an MPI library that knows host memory only: pinned staging.

A vector is copied through a pinned buffer of its own, in chunks, so that the copy of
the next chunk hides behind the transfer of this one. Nothing is handed to MPI before it
is complete, and nothing is complete on the GPU before `flush`, `arrive` or `wait`
returns. Buffers are made when a vector is first seen, from CuPy's pool of pinned
memory, which the warm-up has filled.
"""

from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dsgd_bench import arrays
from dsgd_bench.arrays import cuda, memory, on_gpu
from dsgd_bench.arrays.kernels import address
from dsgd_bench.fabric.base import VectorWindow

if TYPE_CHECKING:
    from dsgd_bench.fabric.mpi.fabric import MpiFabric
    from dsgd_bench.fabric.mpi.messages import MpiMessages


Pair = tuple[NDArray[Any], NDArray[Any]]
"""A pinned buffer, and the vector on the GPU that it stands for."""


class Staging:
    """Pinned buffers, one for every vector on the GPU that passes through."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[int, int, str], NDArray[Any]] = {}

    def __getitem__(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return the buffer of `x`, of its size and type."""
        key = address(x), x.nbytes, x.dtype.char
        if key not in self._buffers:
            self._buffers[key] = memory.pinned(x)
        return self._buffers[key]


class StagedMessages:
    """`base.Messages` whose vectors may lie on a GPU; both ends must do the same.

    A vector travels in as many messages as it has chunks. What lies on the host goes
    as it is.
    """

    def __init__(self, fabric: "MpiFabric") -> None:
        self._messages: MpiMessages = fabric.messages()
        self._staging = Staging()
        self._landings: list[Callable[[], None] | None] = []
        self._on_their_way: set[int] = set()

    def send(self, values: NDArray[Any], rank: int) -> None:
        if not on_gpu(values):
            self._messages.send(values, rank)
            return
        host = self._staging[values]
        if host.ctypes.data in self._on_their_way:  # to another rank, and still whole
            for part in memory.chunks(values):
                self._messages.send(host[part], rank)
            return
        self._on_their_way.add(host.ctypes.data)
        for part in memory.arriving(values, host):
            self._messages.send(host[part], rank)

    def receive(self, out: NDArray[Any], rank: int) -> None:
        if not on_gpu(out):
            self._messages.receive(out, rank)
            self._landings.append(None)
            return
        host = self._staging[out]
        for part in memory.chunks(out):
            self._messages.receive(host[part], rank)
            self._landings.append(_landing(host[part], out[part]))

    def arrive(self) -> None:
        landings, self._landings = self._landings, []
        self._messages.arrive(landings)
        if any(landings):
            cuda.finish()

    def wait(self) -> None:
        self.arrive()
        self._messages.wait()
        self._on_their_way.clear()

    def take(self, out: NDArray[Any]) -> tuple[int, int]:
        return self._messages.take(out)

    def close(self) -> None:
        self.wait()
        self._messages.close()


class MappedWindow:
    """`base.VectorWindow` in host memory, whose own part the GPU computes on in place.

    `local` is the window's memory as the GPU sees it. Transfers between ranks stay on
    the host; where a vector on the GPU takes part in one, it is staged.

    Parameters
    ----------
    window : VectorWindow
        Of the fabric below; freed with this one.
    """

    def __init__(self, window: VectorWindow) -> None:
        self._window = window
        self.memory = window.memory
        self._mapped = memory.Mapped(window.memory)
        self.local: NDArray[Any] = self._mapped.view
        self._staging = Staging()
        self._landings: dict[tuple[int, int], list[Pair]] = {}
        self._going: dict[int, set[int]] = {}  # buffer -> ranks that still read it

    def within_reach(self, rank: int) -> NDArray[Any] | None:
        return self._window.within_reach(rank)

    def get(self, rank: int, part: slice, out: NDArray[Any]) -> None:
        self._window.get(rank, part, self._landing_of(out, rank))

    def getting(self, rank: int, part: slice, out: NDArray[Any]) -> Callable[[], None]:
        if not on_gpu(out):
            return self._window.getting(rank, part, out)
        self.get(rank, part, out)
        return partial(self.flush, rank)

    def fetch(self, rank: int, part: slice, out: NDArray[Any]) -> None:
        self._window.fetch(rank, part, self._landing_of(out, rank))

    def put(self, values: NDArray[Any], rank: int, part: slice) -> None:
        self._start(self._window.put, values, rank, part)

    def accumulate(self, values: NDArray[Any], rank: int, part: slice) -> None:
        self._start(self._window.accumulate, values, rank, part)

    def _landing_of(self, out: NDArray[Any], rank: int) -> NDArray[Any]:
        """Return where MPI shall write what goes to `out`; `flush` copies it there."""
        if not on_gpu(out):
            return out
        host = self._staging[out]
        self._landings.setdefault((get_ident(), rank), []).append((host, out))
        return host

    def _start(
        self,
        operation: Callable[[NDArray[Any], int, slice], None],
        values: NDArray[Any],
        rank: int,
        part: slice,
    ) -> None:
        """Start a put or a sum, chunk after chunk where `values` are on the GPU.

        What is on its way to another rank is in its buffer, and still the same.
        """
        if not on_gpu(values):
            operation(values, rank, part)
            return
        host = self._staging[values]
        readers = self._going.setdefault(address(host), set())
        there = memory.chunks(values) if readers else memory.arriving(values, host)
        readers.add(rank)
        for chunk in there:
            target = slice(part.start + chunk.start, part.start + chunk.stop)
            operation(host[chunk], rank, target)

    def flush(self, rank: int) -> None:
        self._window.flush(rank)
        for readers in list(self._going.values()):
            readers.discard(rank)
        for host, out in self._landings.pop((get_ident(), rank), ()):
            arrays.copy(host, out)

    def sync(self) -> None:
        cuda.finish()
        self._window.sync()

    def free(self) -> None:
        cuda.finish()
        del self.local
        self._mapped.close()
        self.memory = np.zeros(0, self.memory.dtype)  # no view may outlive the memory
        self._window.free()


def _landing(host: NDArray[Any], out: NDArray[Any]) -> Callable[[], None]:
    """Return what starts to copy what has arrived in `host` to the GPU."""
    return lambda: cuda.start_copy(host, out)
