"""How the kernels of `layers.cu` are launched: what networks on pictures do on a GPU.

Like `kernels.py` this file knows no CuPy; it is given the compiled functions. On the
host, NumPy does the same in `dsgd_bench.problems.layers`.

Maps are arrays of shape (channels, elements) with room before and behind; `Place` says
how images, rows and pixels lie in them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.arrays.kernels import TYPES, Kernels, Launch
from dsgd_bench.arrays.vectors import Array

THREADS = 256
"""Threads of a block, but for convolutions."""

CONVOLVING = 128
MAPS_TOGETHER = 16
TILE = 16
GROUPS = 4
"""As in `layers.cu`: threads of a convolution, and what they share."""

MANY = 1 << 16
"""Elements of a channel from which a thread computes two of them at a time."""

SLICE = 4096
MOST_SLICES = 128
"""Elements of a channel that one block reduces; blocks that share a channel at most."""

WEIGHING_BLOCKS = 264
"""Blocks that should share the gradient of the weights: two for each part of a large
GPU."""

SIZES = (1, 3, 5)
"""Heights and widths of convolutions that there are kernels for."""

ON_MAPS = (
    *(f"convolve<{{}}, {columns}>" for columns in (1, 2)),
    *(f"weigh<{{}}, {size}>" for size in SIZES),
    "fill_columns<{}>",
    "take_statistics<{}>",
    "normalize<{}>",
    "take_sums<{}>",
    "normalize_back<{}>",
    "pool<{}>",
    "pool_back<{}>",
    "channel_sums<{}>",
    "map_means<{}>",
    "place_pictures<{}>",
    "square_sums<{}>",
)
"""Kernels that there are for every type."""

OPTIONS = ("-std=c++17",)
"""For the compiler."""


def expressions() -> Iterator[str]:
    """Yield the names of all kernels as C++ writes them."""
    for name in ON_MAPS:
        yield from (name.format(kind) for kind in TYPES.values())
    yield "add_penalty"


@dataclass(frozen=True)
class Place:
    """How images lie in a channel.

    Attributes
    ----------
    length : int
        Elements of a channel.
    image, row : int
        Elements from one image, and from one row, to the next.
    height, width : int
        Rows and columns of pixels; what is left is zero.
    """

    length: int
    image: int
    row: int
    height: int
    width: int

    @property
    def all(self) -> tuple[int, ...]:
        """All of it, in the order in which kernels take it."""
        return self.length, self.image, self.row, self.height, self.width

    @property
    def spacing(self) -> tuple[int, ...]:
        """What is needed to read."""
        return self.length, self.image, self.row

    @property
    def pixels(self) -> int:
        """Pixels of a channel."""
        return self.length // self.image * self.height * self.width


@dataclass(frozen=True)
class Taps:
    """How a convolution reads: its size, and which pixels it is taken at."""

    size: int
    stride: int = 1


class MapKernels:
    """Launches the kernels; nothing is complete on return, and nothing is checked.

    Parameters
    ----------
    function : callable
        Returns the kernel of a C++ name.
    kernels : Kernels
        Sum over rows, and keep memory for intermediate sums.
    """

    def __init__(self, function: Callable[[str], Launch], kernels: Kernels) -> None:
        self._function, self._kernels = function, kernels
        self._functions: dict[str, Launch] = {}

    def compile_all(self) -> None:
        """Compile all kernels now, before a clock starts."""
        for expression in expressions():
            self._get(expression)

    def _get(self, expression: str) -> Launch:
        if expression not in self._functions:
            self._functions[expression] = self._function(expression)
        return self._functions[expression]

    def _of(self, name: str, x: Array) -> Launch:
        return self._get(name.format(TYPES[x.dtype.char]))

    # --- convolutions

    def convolve(
        self, W: Array, source: "Maps", target: "Maps", taps: Taps, adds: bool
    ) -> None:
        """Compute the output of a convolution; W has shape (out, taps, in)."""
        _, _, inputs = W.shape
        strides = taps.size**2 * inputs, 1
        self._convolve(W, source, target, taps.size, (taps.stride, 1, 1), strides, adds)

    def convolve_back(
        self, W: Array, error: "Maps", back: "Maps", taps: Taps, adds: bool
    ) -> None:
        """Compute or add the gradient of its input."""
        _, _, outputs = W.shape
        strides = 1, taps.size**2 * outputs
        self._convolve(W, error, back, taps.size, (1, taps.stride, -1), strides, adds)

    def _convolve(  # noqa: PLR0913, PLR0917 (what the kernel takes)
        self,
        W: Array,
        source: "Maps",
        target: "Maps",
        size: int,
        how: tuple[int, int, int],
        strides: tuple[int, int],
        adds: bool,
    ) -> None:
        inputs, outputs = len(source.flat), len(target.flat)
        columns = 2 if target.place.length >= MANY else 1
        grid = (
            -(-target.place.length // (CONVOLVING * columns)),
            -(-outputs // MAPS_TOGETHER),
        )
        sizes = (size, inputs, outputs, *source.place.spacing, *target.place.all)
        arguments = (*sizes, *how, *strides, int(adds), W, source.flat, target.flat)
        self._of(f"convolve<{{}}, {columns}>", W)(grid, (CONVOLVING,), arguments)

    def weigh(self, source: "Maps", error: "Maps", taps: Taps, dW: Array) -> None:
        """Compute the gradient of its weights, shape (out, taps, in)."""
        outputs, _, inputs = dW.shape
        place = error.place
        tiles = -(-outputs // TILE) * -(-inputs // TILE)
        pieces = -(-place.length // 32)
        parts = max(1, min(pieces // 4, WEIGHING_BLOCKS // tiles))
        rows = parts * GROUPS
        size = rows * dW.size
        kept = self._kernels.scratch(f"weights {dW.dtype.char}", size, dW.dtype)
        sizes = (inputs, outputs, *source.place.spacing, *place.all, taps.stride)
        arguments = (*sizes, source.flat, error.flat, kept)
        grid = (tiles, parts)
        self._of(f"weigh<{{}}, {taps.size}>", dW)(grid, (THREADS,), arguments)
        partial = kept[:size].reshape(rows, dW.size)
        self._kernels.bias_backward(partial, dW.reshape(dW.size))

    def fill_columns(self, maps: "Maps", size: int, columns: Array) -> None:
        """Write the neighborhood of every element: (taps * channels, elements)."""
        channels, length = maps.flat.shape
        grid = (-(-length // THREADS), size**2 * channels)
        arguments = (size, channels, length, maps.place.row, maps.flat, columns)
        self._of("fill_columns<{}>", columns)(grid, (THREADS,), arguments)

    # --- batch normalization

    def _slices(self, maps: "Maps") -> tuple[int, int]:
        slices = min(MOST_SLICES, -(-maps.place.length // SLICE))
        return slices, len(maps.flat)

    def _parts(self, maps: "Maps", numbers: int) -> Array:
        slices, channels = self._slices(maps)
        char = maps.flat.dtype.char
        size = slices * channels * numbers
        return self._kernels.scratch(f"statistics {char}", size, maps.flat.dtype)

    def normalize(  # noqa: PLR0913 (what the kernel takes)
        self,
        values: "Maps",
        out: "Maps",
        weights: tuple[Array, Array],
        statistics: tuple[Array, Array],
        *,
        eps: float,
        learned: bool,
        shortcut: tuple["Maps", int] | None,
    ) -> None:
        """Compute batch normalization, shortcut and ReLU; the statistics if learned."""
        grid, place = self._slices(values), values.place
        parts = self._parts(values, 3)
        if learned:
            arguments = (*place.all, values.flat, parts)
            self._of("take_statistics<{}>", parts)(grid, (THREADS,), arguments)
        before, stride = shortcut or (values, 0)
        given = (len(before.flat), *before.place.spacing)
        sizes = (*place.all, int(learned), stride, *given, float(eps))
        arrays = (values.flat, parts, *weights, before.flat, *statistics, out.flat)
        self._of("normalize<{}>", parts)(grid, (THREADS,), (*sizes, *arrays))

    def normalize_back(  # noqa: PLR0913 (what the kernel takes)
        self,
        values: "Maps",
        out: "Maps",
        error: "Maps",
        statistics: tuple[Array, Array],
        gamma: Array,
        gradients: tuple[Array, Array],
        *,
        eps: float,
    ) -> None:
        """Compute the gradients of gamma and beta, of the shortcut and the input."""
        grid, place = self._slices(values), values.place
        parts = self._parts(values, 2)
        maps = values.flat, out.flat, error.flat
        mean, variance = statistics
        arguments = (place.length, *maps, mean, parts)
        self._of("take_sums<{}>", parts)(grid, (THREADS,), arguments)
        sizes = (*place.all, place.pixels, float(eps))
        arrays = (*maps, mean, variance, parts, gamma, *gradients)
        self._of("normalize_back<{}>", parts)(grid, (THREADS,), (*sizes, *arrays))

    # --- pooling

    def pool(self, values: "Maps", out: "Maps", b: Array, *, average: bool) -> None:
        """Compute pooling of 2 x 2, bias and ReLU."""
        sizes = (int(average), *values.place.spacing, *out.place.all)
        self._of("pool<{}>", b)(
            _everywhere(out), (THREADS,), (*sizes, values.flat, b, out.flat)
        )

    def pool_back(
        self, values: "Maps", out: "Maps", error: "Maps", db: Array, *, average: bool
    ) -> None:
        """Compute the gradient of the bias, and of `values` in its place."""
        sizes = (int(average), *values.place.spacing, *out.place.all)
        arrays = (values.flat, out.flat, error.flat)
        self._of("pool_back<{}>", db)(_everywhere(out), (THREADS,), (*sizes, *arrays))
        arguments = (out.place.length, error.flat, db)
        self._of("channel_sums<{}>", db)((len(db),), (THREADS,), arguments)

    def map_means(self, maps: "Maps", rows: Array) -> None:
        """Compute the mean of every map, one row per image."""
        place, (count, channels) = maps.place, rows.shape
        pixels = place.height * place.width
        sizes = (count, channels, place.length, place.image, pixels)
        # a map of this kind is small: one warp
        self._of("map_means<{}>", rows)(
            (count, channels), (32,), (*sizes, maps.flat, rows)
        )

    # --- pictures and penalty

    def place_pictures(
        self, rows: Array, moves: NDArray[np.int64], maps: "Maps"
    ) -> None:
        """Copy pictures to maps, moved and mirrored."""
        sizes = (len(rows), len(maps.flat), *maps.place.all)
        arguments = (*sizes, rows, moves, maps.flat)
        self._of("place_pictures<{}>", rows)(_everywhere(maps), (THREADS,), arguments)

    def penalize(self, c: float, x: Array, loss: NDArray[np.float64]) -> None:
        """Add ``c / 2 ||x||^2`` to the loss."""
        blocks = max(1, min(THREADS, x.size // (4 * THREADS)))
        parts = self._kernels.scratch("squares", THREADS, np.float64)
        self._of("square_sums<{}>", x)((blocks,), (THREADS,), (x.size, x, parts))
        arguments = (blocks, 0.5 * float(c), parts, loss)
        self._get("add_penalty")((1,), (THREADS,), arguments)


class Maps:
    """What kernels need to know of some maps: see `problems.layers.Maps`."""

    flat: Array
    place: Place


def _everywhere(maps: Maps) -> tuple[int, int]:
    """Return a grid with a thread for each element of some maps."""
    return -(-maps.place.length // THREADS), len(maps.flat)
