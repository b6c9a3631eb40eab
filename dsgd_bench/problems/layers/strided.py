"""Convolution at every second pixel, or every third: fewer output pixels than input.

For formula and weights see `dsgd_bench.problems.layers.convolution`.
"""

import numpy as np

from dsgd_bench.arrays import Array, on_gpu
from dsgd_bench.arrays.layers import matmul
from dsgd_bench.arrays.maps import Taps, on_maps
from dsgd_bench.problems.layers.maps import Maps, Room


class StridedConvolution:
    """A convolution at every `stride`-th pixel; see `Unit` for the methods.

    The arguments are those of `Convolution`, but `target` is of ``1 / stride`` the
    height and width of `source`, rounded up, and what `back` holds is always added to.
    A GPU multiplies in the type of the model, whatever the precision.
    """

    def __init__(  # noqa: PLR0913 (it is bound to its memory)
        self,
        source: Maps,
        target: Maps,
        part: slice,
        room: Room,
        *,
        stride: int,
        size: int = 3,
        back: Maps | None = None,
        precision: str = "float32",
    ) -> None:
        self.part = part
        self._source, self._target, self._room = source, target, room
        self._back, self._precision = back, precision
        self._size, self._stride = size, stride
        reach = range(-(size // 2), size // 2 + 1)
        self._taps = [(dy, dx) for dy in reach for dx in reach]
        self._c_in, self._c_out = source.shape.channels, target.shape.channels
        self._pixels = target.count * target.shape.pixels
        self._how, self._on_gpu = Taps(size, stride), on_gpu(source.flat)
        if not self._on_gpu:
            room.reserve(*self._rooms())

    def _rooms(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of all columns, and of the output without its edges."""
        columns = (self._size**2 * self._c_in, self._pixels)
        return columns, (self._c_out, self._pixels)

    def initialize(self, x: Array, random: np.random.Generator) -> None:
        """Draw the first weights."""
        w = x[self.part]
        w[:] = random.normal(0.0, np.sqrt(2 * self._c_out / w.size), w.shape)

    def forward(self, x: Array) -> None:
        """Compute the output."""
        if self._on_gpu:
            weights = x[self.part].reshape(self._c_out, -1, self._c_in)
            on_maps().convolve(weights, self._source, self._target, self._how, False)
            return
        columns, values = self._room.take(*self._rooms())
        self._fill(columns)
        W = x[self.part].reshape(self._c_out, -1)
        matmul(W, columns, values, self._precision)
        self._target.pixels[...] = values.reshape(self._target.pixels.shape)

    def backward(self, x: Array, g: Array) -> None:
        """Compute the gradient of the weights, and add that of the input."""
        if self._on_gpu:
            self._backward_on_gpu(x, g)
            return
        columns, values = self._room.take(*self._rooms())
        self._fill(columns)
        values.reshape(self._target.pixels.shape)[...] = self._target.pixels
        dW = g[self.part].reshape(self._c_out, -1)
        matmul(values, columns.T, dW, self._precision)
        if self._back is None:
            return
        W = x[self.part].reshape(self._c_out, -1)
        matmul(W.T, values, columns, self._precision)
        each = columns.reshape(len(self._taps), self._c_in, *self._shape)
        for (dy, dx), part in zip(self._taps, each, strict=True):
            neighbors = self._back.neighbors(dy, dx, self._stride)
            neighbors += part

    def _backward_on_gpu(self, x: Array, g: Array) -> None:
        shape = self._c_out, -1, self._c_in
        W, dW = x[self.part].reshape(shape), g[self.part].reshape(shape)
        on_maps().weigh(self._source, self._target, self._how, dW)
        if self._back is not None:
            on_maps().convolve_back(W, self._target, self._back, self._how, True)

    @property
    def _shape(self) -> tuple[int, ...]:
        """Images, height and width of the output."""
        return self._target.pixels.shape[1:]

    def _fill(self, columns: Array) -> None:
        each = columns.reshape(len(self._taps), self._c_in, *self._shape)
        for (dy, dx), part in zip(self._taps, each, strict=True):
            part[...] = self._source.neighbors(dy, dx, self._stride)
