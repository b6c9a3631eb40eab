"""Vectors on the host or on a GPU: in-place operations, and the way between the two.

Nothing of a model's size is ever allocated. On the host, an operation that needs an
intermediate result goes through the vector in blocks that stay in the cache; on a GPU
it is one kernel. Either way memory is read and written once however many terms there
are. `dsgd_bench.arrays.cuda`, the only door to CuPy, is loaded when a GPU is asked for.

What a kernel writes is complete only once `finish` was called, or another function here
that says so: MPI, other threads and other processes must not look before.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from dsgd_bench.arrays.kernels import Kernels

Array = NDArray[np.floating[Any]]
"""A model, gradient or buffer: one flat, contiguous vector, of NumPy or of CuPy."""

BLOCK_BYTES = 128 * 1024
"""Bytes of one vector that are worked on at a time; several of them fit the L2 cache.

Measured for the average of two models of 100 MiB: two to three times as fast as whole
vectors."""


def on_gpu(x: NDArray[Any]) -> bool:
    """Tell whether `x` lies on a GPU."""
    return not isinstance(x, np.ndarray)


def blocks(x: NDArray[Any]) -> Sequence[slice]:
    """Return slices that cover `x`: of at most `BLOCK_BYTES`, on a GPU a single one."""
    step = BLOCK_BYTES // x.itemsize
    if x.size <= step or on_gpu(x):  # a loop would cost more than the arithmetic
        return (slice(0, x.size),)
    return [slice(start, min(start + step, x.size)) for start in range(0, x.size, step)]


class Scratch:
    """One block of memory for intermediate results, made before the clock starts.

    On a GPU, where the operations here need none, it is made when first asked for.
    """

    def __init__(self, like: Array) -> None:
        size = blocks(like)[0].stop  # no other is larger
        self._like, self._size = like[:0], size
        self._block: Array | None = None
        if not on_gpu(like):
            self._block = np.empty_like(like, shape=size)

    def __getitem__(self, part: slice) -> Array:
        if self._block is None:
            self._block = np.empty_like(self._like, shape=self._size)
        return self._block[: part.stop - part.start]


class Host:
    """Host memory, and NumPy to work on it.

    Attributes
    ----------
    kind : str
        ``"cpu"`` or ``"cuda"``.
    xp : module
        ``numpy`` or ``cupy``.
    precision : str
        How matrices are multiplied, see `dsgd_bench.arrays.layers.matmul`.
    """

    kind = "cpu"
    xp: ModuleType = np
    precision = "float32"

    def describe(self) -> dict[str, Any]:
        """Return what provenance wants to know."""
        return {}

    @property
    def place(self) -> str:
        """Which of its host's it is; two ranks with the same one share it."""
        return self.kind

    def divide(self, ranks: int, share: float) -> None:
        """Take a part of the memory, if `ranks` of them have `share` of it together."""

    def guard(self, rank: int) -> AbstractContextManager[None]:  # noqa: ARG002
        """Say in one sentence what `rank` lacks, if its memory does not suffice."""
        return nullcontext()

    def put(self, values: ArrayLike) -> NDArray[Any]:
        """Return a copy of host `values` in this memory."""
        return np.array(values)

    def use(self) -> None:
        """Make this thread compute here."""

    def finish(self) -> None:
        """Wait until all that this thread has started here is done."""


HOST = Host()


def device(
    kind: str,
    local_rank: int = 0,
    precision: str = "float32",
) -> Host:
    """Return the memory to compute in: ``"cpu"``, or ``"cuda"``, a GPU of this host.

    Parameters
    ----------
    kind : str
        As above.
    local_rank : int
        Number of this rank on its host: ranks are dealt to the GPUs in turn.
    precision : str
        How a GPU multiplies matrices of float32: ``"float32"``, ``"tf32"`` or
        ``"bfloat16"``.

    Raises
    ------
    ConfigError
        If there is no such GPU, CuPy is missing, or driver and CuPy do not fit.
    """
    if kind == "cpu":
        return HOST
    from dsgd_bench.arrays import cuda

    return cuda.Gpu(local_rank, precision)


def finish(x: NDArray[Any]) -> None:
    """Wait until all that this thread has started on the device of `x` is done."""
    if on_gpu(x):
        from dsgd_bench.arrays import cuda

        cuda.finish()


def host(x: NDArray[Any]) -> NDArray[Any]:
    """Return `x` itself if it lies on the host, else a copy there, complete."""
    return x.get() if on_gpu(x) else x  # type: ignore[attr-defined]


def copy(values: NDArray[Any], out: NDArray[Any]) -> None:
    """Copy `values` to `out`, whatever memory they lie in; complete on return.

    Both are contiguous and of one type and size. `values` and `out` on a GPU are of
    this process, or mapped into it.
    """
    if not on_gpu(values) and not on_gpu(out):
        np.copyto(out, values)
        return
    from dsgd_bench.arrays import cuda

    cuda.copy(values, out)


def load(values: NDArray[Any], out: NDArray[Any]) -> None:
    """Start to copy host `values` to `out`, in order with this thread's kernels.

    `values` may change as soon as this returns.
    """
    if not on_gpu(out):
        np.copyto(out, values)
        return
    from dsgd_bench.arrays import cuda

    cuda.load(values, out)


@cache
def gpu() -> "Kernels":
    """Return the kernels of this process's GPU, compiled when one is first called."""
    from dsgd_bench.arrays import cuda

    return cuda.kernels()


def axpy(a: float, x: Array, y: Array, scratch: Scratch) -> None:
    """Compute ``y <- y + a x`` in place."""
    if on_gpu(y):
        gpu().axpy(a, x, y)
        return
    for part in blocks(y):
        ax = scratch[part]
        np.multiply(x[part], a, out=ax)
        moved = y[part]
        moved += ax


def average(x: Array, y: Array) -> None:
    """Compute ``y <- (x + y) / 2`` in place."""
    if on_gpu(y):
        gpu().average(x, y)
        return
    np.add(x, y, out=y)
    y *= 0.5
