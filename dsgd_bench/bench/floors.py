"""The least time that memory and arithmetic allow: measured copies and products.

A floor is what this device did best, here and now: bytes per second, read and written,
of the fastest copy of a large vector, and operations per second of the fastest product
of two large matrices. Nothing is taken from a data sheet. The best of several tries
counts, as in STREAM (J. McCalpin, 1995): other programs only ever slow a try down.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.arrays import HOST, Array, Host
from dsgd_bench.arrays.blas import PRECISIONS
from dsgd_bench.arrays.layers import matmul
from dsgd_bench.bench.flags import MIB
from dsgd_bench.errors import ConfigError
from dsgd_bench.fabric.ledger import monotonic

COPIED = {"cpu": 128 * MIB, "cuda": 512 * MIB}
"""Bytes of the vector that is copied: far more than any cache holds."""

ORDER = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the matrices: products of this size keep every core busy."""

TRIES = 7
"""Stretches that are timed; the best one counts."""

STRETCH = 0.05
"""Seconds that one stretch lasts at least, so that starting and finishing it is
nothing: about 10 us on a GPU."""


@dataclass(frozen=True)
class Floor:
    """What one device does best, and the least time that work can take there.

    Attributes
    ----------
    bandwidth : float
        Bytes read and written per second.
    rate : float
        Operations per second, an addition or a multiplication each.
    """

    bandwidth: float
    rate: float

    def seconds(self, *, nbytes: float, operations: float) -> float:
        """Return the least time of such work: its arithmetic and its copying overlap.

        Parameters
        ----------
        nbytes : float
            Bytes that must be read or written.
        operations : float
            Additions and multiplications.
        """
        return max(nbytes / self.bandwidth, operations / self.rate)


def copy_bandwidth(
    device: Host = HOST, *, nbytes: int | None = None, threads: int = 1
) -> float:
    """Return bytes read and written per second by the fastest copy of a vector.

    Parameters
    ----------
    device : Host
        Where the vector lies.
    nbytes : int, optional
        Its size; `COPIED` if nothing is said.
    threads : int
        Threads of the host that copy a part each; a GPU takes no notice.
    """
    length = (nbytes or COPIED[device.kind]) // 4
    # Filled, not only allocated: pages that were never written do not exist yet.
    x = device.xp.full(length, 1, np.float32)
    out = device.xp.full(length, 0, np.float32)
    if device.kind == "cpu" and threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            seconds = fastest(device, partial(_copy_parts, pool, threads, x, out))
    else:
        seconds = fastest(device, partial(device.xp.copyto, out, x))
    if device.kind == "cuda":  # the driver's copy and a kernel's: either may be ahead
        kernel = partial(device.xp.multiply, x, np.float32(1), out=out)
        seconds = min(seconds, fastest(device, kernel))
    return float(2 * x.nbytes / seconds)


def _copy_parts(pool: ThreadPoolExecutor, threads: int, x: Array, out: Array) -> None:
    """Copy `x` to `out`, a part in every thread: NumPy lets go of Python's lock."""
    sources, targets = np.array_split(x, threads), np.array_split(out, threads)
    list(pool.map(np.copyto, targets, sources))


def matmul_rate(
    device: Host = HOST,
    dtype: str = "float32",
    precision: str = "float32",
    *,
    order: int | None = None,
    multiply: Callable[..., Any] | None = None,
) -> float:
    """Return operations per second of the fastest product of two square matrices.

    A product of order n counts as ``2 n**3`` operations. It runs on as many threads as
    this process may use.

    Parameters
    ----------
    device : Host
        Where the matrices lie.
    dtype : str
        Their element type, as `device.xp` knows it.
    precision : str
        How a GPU multiplies float32; see `dsgd_bench.arrays.layers.matmul`.
    order : int, optional
        Rows and columns; `ORDER` if nothing is said, for bfloat16 twice that, so that
        rounding to it takes no time to speak of.
    multiply : callable, optional
        ``multiply(a, b, out)``; that of our layers if nothing is said.

    Raises
    ------
    ConfigError
        For an unknown precision, or one that the device or the type does not have.
    """
    if precision not in PRECISIONS:
        raise ConfigError(
            f"the precision of products is {precision!r}; use one of: "
            f"{', '.join(PRECISIONS)}"
        )
    if precision != "float32" and (device.kind != "cuda" or dtype != "float32"):
        raise ConfigError(
            f"products of {dtype} on the device {device.kind} have no precision "
            f"{precision}; it is for float32 on a GPU"
        )
    n = order or ORDER[device.kind] * (2 if precision == "bfloat16" else 1)
    stream = np.random.default_rng(0)
    a, b = (device.put(_matrix(stream, n, dtype)) for _ in range(2))
    c = device.xp.empty_like(a)
    multiply = multiply or partial(matmul, precision=precision)
    return 2 * n**3 / fastest(device, partial(multiply, a, b, c))


def _matrix(stream: np.random.Generator, n: int, dtype: str) -> NDArray[Any]:
    return (stream.random((n, n), np.float32) - np.float32(0.5)).astype(dtype)


def fastest(device: Host, work: Callable[[], object]) -> float:
    """Return the least seconds per call of `work`, over `TRIES` stretches of calls.

    Calls of one stretch are started one after the other and finished together, so a
    GPU is never idle between them.
    """
    _stretch(device, work, 1)  # warms up
    calls = 1
    while (seconds := _stretch(device, work, calls)) < STRETCH:
        calls = max(2 * calls, int(calls * STRETCH / max(seconds, 1e-9)))
    tries = [_stretch(device, work, calls) for _ in range(TRIES - 1)]
    return min(seconds, *tries) / calls


def _stretch(device: Host, work: Callable[[], object], calls: int) -> float:
    """Return the seconds of so many calls, from start to completion."""
    device.finish()
    started = monotonic()
    for _ in range(calls):
        work()
    device.finish()
    return monotonic() - started
