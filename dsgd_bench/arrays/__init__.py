"""Vectors on the host or on a GPU: in-place operations, and the way between the two.

Nothing of a model's size is ever allocated. On the host, an operation that needs an
intermediate result goes through the vector in blocks that stay in the cache; on a GPU
it is one kernel. Either way memory is read and written once however many terms there
are. `dsgd_bench.arrays.cuda`, the only door to CuPy, is loaded when a GPU is asked for.

What a kernel writes is complete only once `finish` was called, or another function here
that says so: MPI, other threads and other processes must not look before.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.arrays.vectors import (
    BLOCK_BYTES,
    HOST,
    Array,
    Host,
    Rule,
    Scratch,
    blocks,
    on_gpu,
)

if TYPE_CHECKING:
    from dsgd_bench.arrays.kernels import Kernels

__all__ = [
    "BLOCK_BYTES",
    "HOST",
    "Array",
    "Host",
    "Rule",
    "Scratch",
    "average",
    "axpy",
    "blocks",
    "copy",
    "device",
    "finish",
    "gpu",
    "host",
    "load",
    "on_gpu",
]


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
