"""Convolution at every second pixel, or every third: fewer output pixels than input.

For formula and weights see `dsgd_bench.problems.layers.convolution`. On the host each
thread has images of its own.
"""

from functools import partial
from math import prod

import numpy as np

from dsgd_bench.arrays import Array, on_gpu
from dsgd_bench.arrays.layers import matmul, on_maps
from dsgd_bench.arrays.maps import Taps
from dsgd_bench.problems.layers.maps import Maps, Room
from dsgd_bench.problems.layers.team import team


class StridedConvolution:
    """A convolution at every `stride`-th pixel; see `Unit` for the methods.

    The arguments are like those of `Convolution`, but `target` is of ``1 / stride`` the
    height and width of `source`, rounded up, and what `back` holds is always added to.
    A GPU multiplies in the type of the model.
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
    ) -> None:
        self.part = part
        self._source, self._target, self._room = source, target, room
        self._back = back
        self._size, self._stride = size, stride
        reach = range(-(size // 2), size // 2 + 1)
        self._taps = [(dy, dx) for dy in reach for dx in reach]
        self._c_in, self._c_out = source.shape.channels, target.shape.channels
        self._how, self._on_gpu = Taps(size, stride), on_gpu(source.flat)
        if not self._on_gpu:
            self._shares = team().deal(range(target.count))
            room.reserve(*self._shapes(range(target.count)))
            weights = self._c_out, len(self._taps) * self._c_in
            self._sums = np.empty((len(self._shares), *weights), target.flat.dtype)

    def _shapes(self, images: range) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of columns, and of the output without its edges."""
        _, _, height, width = self._target.pixels.shape
        some = len(images), height, width
        return (len(self._taps), self._c_in, *some), (self._c_out, *some)

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
        W = x[self.part].reshape(self._c_out, -1)
        team().share(partial(self._forward, W), self._shares)

    def _forward(self, W: Array, thread: int, images: range) -> None:  # noqa: ARG002
        columns, values = self._columns(images)
        matmul(W, _matrix(columns, W.shape[1]), _matrix(values, len(W)))
        self._target.pixels[:, images.start : images.stop] = values

    def backward(self, x: Array, g: Array) -> None:
        """Compute the gradient of the weights, and add that of the input."""
        if self._on_gpu:
            self._backward_on_gpu(x, g)
            return
        W = x[self.part].reshape(self._c_out, -1)
        team().share(partial(self._backward, W), self._shares)
        np.add.reduce(self._sums, axis=0, out=g[self.part].reshape(W.shape))

    def _backward(self, W: Array, thread: int, images: range) -> None:
        columns, values = self._columns(images)
        values[...] = self._target.pixels[:, images.start : images.stop]
        flat, errors = _matrix(columns, W.shape[1]), _matrix(values, len(W))
        matmul(errors, flat.T, self._sums[thread])
        if self._back is None:
            return
        matmul(W.T, errors, flat)
        for (dy, dx), part in zip(self._taps, columns, strict=True):
            neighbors = self._back.neighbors(dy, dx, self._stride)
            neighbors[:, images.start : images.stop] += part

    def _backward_on_gpu(self, x: Array, g: Array) -> None:
        shape = self._c_out, -1, self._c_in
        W, dW = x[self.part].reshape(shape), g[self.part].reshape(shape)
        on_maps().weigh(self._source, self._target, self._how, dW)
        if self._back is not None:
            on_maps().convolve_back(W, self._target, self._back, self._how, True)

    def _columns(self, images: range) -> list[Array]:
        """Return columns of some images, and room for their output."""
        before, after = self._shapes(range(images.start)), self._shapes(images)
        columns, values = self._room.take(*after, start=sum(map(prod, before)))
        for (dy, dx), part in zip(self._taps, columns, strict=True):
            taken = self._source.neighbors(dy, dx, self._stride)
            part[...] = taken[:, images.start : images.stop]
        return [columns, values]


def _matrix(x: Array, rows: int) -> Array:
    return x.reshape(rows, -1)
