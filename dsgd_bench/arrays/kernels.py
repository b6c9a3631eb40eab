"""How the kernels of `kernels.cu` are launched: grids, types, order of arguments.

This file knows no CuPy. It is given the compiled functions, so that tests can hand it
the same kernels compiled for the host.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dsgd_bench.arrays.vectors import Array, Rule

Launch: TypeAlias = Callable[[tuple[int, ...], tuple[int, ...], tuple[Any, ...]], None]
"""Takes grid, block and arguments, like `cupy.RawKernel`."""

TYPES = {"f": "float", "d": "double"}
"""NumPy's character of each type of vectors: its name in C."""

UNITS = {16: "uint4", 8: "unsigned long long", 4: "unsigned int", 1: "unsigned char"}
"""Bytes that are gathered at a time: name in C."""

ON_VECTORS = (
    "axpy",
    "average",
    "average_both",
    "descend",
    "update",
    "debias",
    "accumulate",
    "compensate",
    "compensate_adaptively",
    "add_bias",
    "bias_relu",
    "bias_backward",
    "bias_relu_backward",
    "cross_entropy",
)
"""Kernels that there are for every type."""

THREADS = 256
PACK = 16
"""Threads of a block; bytes that a thread moves at a time."""

WARP = 32
MOST_THREADS = 1024
MOST_BLOCKS = 1 << 20
MOST_BLOCKS_Y = 65_535
"""Limits of a launch, the first of `MOST_BLOCKS` our own: blocks go on in strides."""

ROWS_PER_TURN = 16
"""Rows that a thread adds up before it pays to add in several parts."""

PARTS = 256
"""Blocks that share a sum over rows."""

ONE_BLOCK = 256
"""Rows, of 32 classes each, up to which one block does the loss and its mean: a second
launch would take longer."""


OPTIONS = ("-std=c++17", "--fmad=false")
"""For the compiler: `kernels.cu` says why."""


def expressions() -> Iterator[str]:
    """Yield the names of all kernels as C++ writes them."""
    for name in ON_VECTORS:
        yield from (f"{name}<{kind}>" for kind in TYPES.values())
    yield from (f"gather<{unit}>" for unit in UNITS.values())
    yield from ("to_bfloat16", "mean_loss")


class Kernels:
    """Launches the kernels; what they do is described where they are called.

    Nothing is complete on return, and nothing is checked: arguments are contiguous and
    fit each other.

    Parameters
    ----------
    function : callable
        Returns the kernel of a C++ name.
    empty : callable
        ``empty(size, dtype)`` returns a new vector.
    """

    def __init__(
        self,
        function: Callable[[str], Launch],
        empty: Callable[[int, DTypeLike], NDArray[Any]],
    ) -> None:
        self._function, self._empty = function, empty
        self._functions: dict[str, Launch] = {}
        self._by_type: dict[tuple[str, str], Launch] = {}
        self._own = threading.local()  # as the stream is each thread's own

    def compile_all(self) -> None:
        """Compile all kernels now, before a clock starts."""
        for expression in expressions():
            self._get(expression)

    def _get(self, expression: str) -> Launch:
        if expression not in self._functions:
            self._functions[expression] = self._function(expression)
        return self._functions[expression]

    def _of(self, name: str, x: Array) -> Launch:
        """Return the kernel for vectors like `x`."""
        key = name, x.dtype.char
        found = self._by_type.get(key)
        if found is None:
            found = self._by_type[key] = self._get(f"{name}<{TYPES[key[1]]}>")
        return found

    def _each(self, name: str, x: Array, *arguments: Any) -> None:
        """Launch a kernel on vectors like `x`, with a thread for every pack of it."""
        n = x.size
        if n:
            blocks = min(-(-x.nbytes // (THREADS * PACK)), MOST_BLOCKS)
            self._of(name, x)((blocks,), (THREADS,), (n, *arguments))

    def scratch(self, name: str, size: int, dtype: DTypeLike) -> NDArray[Any]:
        """Return memory of this thread, made anew only where it was too small.

        What was too small is kept, too: recorded work may go on using it.
        """
        kept = self._own.__dict__.setdefault("kept", {})
        outgrown = self._own.__dict__.setdefault("outgrown", [])
        if name not in kept or kept[name].size < size:
            outgrown.append(kept.get(name))
            kept[name] = self._empty(size, dtype)
        return kept[name]  # type: ignore[no-any-return]

    # --- vectors

    def axpy(self, a: float, x: Array, y: Array) -> None:
        """Compute ``y <- y + a x``; see `arrays.axpy`."""
        self._each("axpy", y, float(a), x, y)

    def average(self, x: Array, y: Array) -> None:
        """Compute ``y <- (x + y) / 2``; see `arrays.average`."""
        self._each("average", y, x, y)

    def average_both(self, x: Array, y: Array) -> None:
        """Compute ``x, y <- (x + y) / 2``; see `updates.average_both`."""
        self._each("average_both", x, x, y)

    def descend(self, x: Array, g: Array, lr: float, decay: float) -> None:
        """Compute ``x <- x - lr (g + decay x)``; see `updates.descend`."""
        self._each("descend", x, float(lr), float(decay), x, g)

    def update(self, x: Array, g: Array, u: Array, rule: Rule) -> None:
        """Move `x` by a gradient with momentum; see `updates.update`."""
        self._each("update", x, *_scalars(rule), x, g, u)

    def debias(self, x: Array, w: Array, z: Array) -> None:
        """Compute ``z <- x / w``; see `updates.debias`."""
        self._each("debias", z, x, w, z)

    def accumulate(self, a: float, x: Array, y: Array) -> None:
        """Compute ``y <- y + a x`` atomically; see `updates.accumulate`."""
        self._each("accumulate", y, float(a), x, y)

    def compensate(self, g: Array, x: Array, before: Array, strength: float) -> None:
        """Bring a late gradient up to date; see `updates.compensate`."""
        self._each("compensate", g, float(strength), g, x, before)

    def compensate_adaptively(
        self,
        g: Array,
        x: Array,
        before: Array,
        mean_square: Array,
        rates: tuple[float, float, float],
    ) -> None:
        """Do so at the rate of `updates.compensate_adaptively`."""
        scalars = map(float, rates)
        self._each("compensate_adaptively", g, *scalars, g, x, before, mean_square)

    def to_bfloat16(self, x: Array, out: NDArray[np.uint16]) -> None:
        """Round float32 to bfloat16, kept as 16-bit words."""
        n = x.size
        if n:
            blocks = min(-(-n // THREADS), MOST_BLOCKS)
            self._get("to_bfloat16")((blocks,), (THREADS,), (n, x, out))

    # --- layers

    def gather(
        self, rows: NDArray[Any], indices: NDArray[np.int64], out: NDArray[Any]
    ) -> None:
        """Compute ``out <- rows[indices]``; see `layers.gather`."""
        batch, samples = len(indices), len(rows)
        nbytes = out.nbytes // batch if batch else 0
        if not nbytes:
            return
        unit = next(unit for unit in UNITS if nbytes % unit == 0)
        unit = min(unit, _alignment(rows), _alignment(out))
        width = nbytes // unit
        grid = (
            min(-(-batch * WARP // THREADS), MOST_BLOCKS),
            min(-(-width // (4 * WARP)), MOST_BLOCKS_Y),
        )
        arguments = (batch, width, samples, rows, indices, out)
        self._get(f"gather<{UNITS[unit]}>")(grid, (THREADS,), arguments)

    def add_bias(self, h: Array, b: Array) -> None:
        """Add `b` to every row; see `layers.add_bias`."""
        self._each("add_bias", h, b.size, h, b)

    def bias_relu(self, h: Array, b: Array) -> None:
        """Add `b` to every row, and cut at 0; see `layers.bias_relu`."""
        self._each("bias_relu", h, b.size, h, b)

    def bias_backward(self, error: Array, db: Array) -> None:
        """Sum `error` over its rows into `db`; see `layers.bias_backward`."""
        self._sum("bias_backward", error, db, error)

    def bias_relu_backward(self, error: Array, h: Array, db: Array) -> None:
        """Do so where `h` is positive; see `layers.bias_relu_backward`."""
        self._sum("bias_relu_backward", error, db, error, h)

    def _sum(self, name: str, error: Array, db: Array, *arguments: Array) -> None:
        """Launch a sum over rows, in parts that are summed in turn if rows are many."""
        columns = db.size
        if not columns:
            return
        rows = error.size // columns
        lanes = min(WARP, 1 << (columns - 1).bit_length())
        tiles = -(-columns // lanes)
        share = THREADS // lanes * ROWS_PER_TURN
        parts = max(1, min(rows // share, PARTS // tiles))
        out = db
        if parts > 1:
            out = self.scratch(f"sums {db.dtype.char}", parts * columns, db.dtype)
        sizes = (rows, columns, lanes)
        self._of(name, db)((tiles, parts), (THREADS,), (*sizes, *arguments, out))
        if parts > 1:
            sizes = (parts, columns, lanes)
            final = self._of("bias_backward", db)
            final((tiles,), (THREADS,), (*sizes, out, db))

    def cross_entropy(
        self, scores: Array, labels: NDArray[np.int64], loss: NDArray[np.float64]
    ) -> None:
        """Turn scores into their gradient; see `layers.cross_entropy`."""
        batch, classes = scores.shape
        kernel = self._of("cross_entropy", scores)
        arguments = (batch, classes, scores, labels, loss)
        if batch * -(-classes // WARP) <= ONE_BLOCK:
            threads = min(max(batch, 1) * WARP, MOST_THREADS)
            kernel((1,), (threads,), arguments)
            return
        blocks = min(-(-batch * WARP // THREADS), MOST_BLOCKS)
        kernel((max(blocks, 2),), (THREADS,), arguments)
        self._get("mean_loss")((1,), (MOST_THREADS,), (batch, loss))


def _scalars(rule: Rule) -> tuple[float, float, float, int]:
    lr, momentum, decay, nesterov = rule
    return float(lr), float(momentum), float(decay), int(nesterov)


def address(x: Any) -> int:
    """Return where the first element of `x` lies, on the host or on a GPU."""
    return int(x.ctypes.data if isinstance(x, np.ndarray) else x.data.ptr)


def _alignment(x: NDArray[Any]) -> int:
    """Return the largest of `UNITS` that divides the address of `x`."""
    at = address(x)
    return next(unit for unit in UNITS if at % unit == 0)
