"""Convolution: every output pixel is a weighted sum over a neighborhood.

Formula   Y[o, p] = sum over taps t and channels c of W[o, t, c] X[c, stride p + t]
Taps      size x size around the pixel; pixels beyond the edge count as zero
Weights   W has shape (channels out, taps, channels in), taps row by row
Start     normal with variance 2 / (taps * channels in)

Everything is a product of matrices with the *columns* of some maps, shape (taps *
channels, pixels): the neighborhood of each pixel (K. Chellapilla, S. Puri and
P. Simard, "High performance convolutional neural networks for document processing",
2006). On the host the columns of a few images are made at a time, so that they stay in
the cache, and each thread has images of its own. On the way back the columns of the
output's gradient D serve twice,

    dX = flipped W * columns(D)        dW = flipped (columns(D) * X^T)

"flipped" being the taps in reverse order. Where every second pixel is computed, or dX
is not wanted, the columns of X are made again instead: dW = D * columns(X)^T, and

    dX = sum over taps of (W^T * D), each put back where the tap took it from
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from dsgd_bench.arrays import Array, on_gpu
from dsgd_bench.arrays.layers import matmul, on_maps
from dsgd_bench.arrays.maps import Taps
from dsgd_bench.problems.layers.maps import Maps, Room
from dsgd_bench.problems.layers.team import team

PIECE_BYTES = 512 * 1024
"""Bytes of columns that are made at a time on the host: they fit the L2 cache."""


class Convolution:
    """A convolution without bias between two maps; see `Unit` for the methods.

    Reads zeros at the edges of `source`, whose pad is at least half its size; leaves
    anything at those of `target`, but wants zeros there on the way back.

    Parameters
    ----------
    source, target : Maps
        What it reads, and what it writes; spaced alike.
    part : slice
        Where its weights lie in the model.
    room : Room
        Memory for columns.
    size : int
        Height and width of the neighborhood, odd.
    back : Maps, optional
        Receives the gradient of `source`, and is like it; nothing where it is not
        used. At the edges it is left with anything.
    adds : bool
        Whether the gradient is added to what `back` holds.
    precision : str
        How a GPU multiplies; see `dsgd_bench.arrays.layers.matmul`.
    """

    def __init__(  # noqa: PLR0913 (it is bound to its memory)
        self,
        source: Maps,
        target: Maps,
        part: slice,
        room: Room,
        *,
        size: int = 3,
        back: Maps | None = None,
        adds: bool = False,
        precision: str = "float32",
    ) -> None:
        self.part = part
        self._source, self._target, self._room = source, target, room
        self._back, self._adds, self._precision = back, adds, precision
        self._size = size
        self._c_in, self._c_out = source.shape.channels, target.shape.channels
        taps, like = size * size, source.flat
        self._shape = (self._c_out, taps, self._c_in)
        self._how, self._on_gpu = Taps(size), on_gpu(like)
        self._flipped: Array = np.empty_like(like, shape=self._shape[::-1])
        rows = taps * (self._c_out if back else self._c_in)
        columns = self._c_in if back else self._c_out
        self._reserve()
        shape = len(self._shares), rows, columns
        self._products: Array = np.empty_like(like, shape=shape)
        self._sums: Array = np.zeros_like(self._products)

    def _reserve(self) -> None:
        """Choose how much is done at a time and by whom, and make sure of the room."""
        image, count = self._source.shape.image, self._source.count
        most = max(self._c_in, self._c_out if self._back else 0)
        rows = self._size**2 * most
        together = count
        if not self._on_gpu:
            nbytes = rows * image * self._source.flat.itemsize
            together = min(max(1, PIECE_BYTES // nbytes), count)
        pieces = [
            slice(first * image, min(first + together, count) * image)
            for first in range(0, count, together)
        ]
        self._shares = [pieces] if self._on_gpu else team().deal(pieces)
        self._elements = (rows + self._c_in) * together * image  # for one thread
        if not self._on_gpu or self._precision != "float32":  # else: no columns
            self._room.reserve((len(self._shares), self._elements))

    @property
    def fan_in(self) -> int:
        """Values that one output value is made of."""
        return self._size**2 * self._c_in

    def initialize(self, x: Array, random: np.random.Generator) -> None:
        """Draw the first weights."""
        w = x[self.part]
        w[:] = random.normal(0.0, np.sqrt(2 / self.fan_in), w.shape)

    def forward(self, x: Array) -> None:
        """Compute the output."""
        W = x[self.part].reshape(self._c_out, -1)
        if self._on_gpu and self._precision == "float32":
            W = W.reshape(self._shape)
            on_maps().convolve(W, self._source, self._target, self._how, False)
            return
        team().share(partial(self._forward, W), self._shares)

    def _forward(self, W: Array, thread: int, pieces: Sequence[slice]) -> None:
        for piece in pieces:
            columns = self._columns(self._source, piece, thread)
            matmul(W, columns, self._target.flat[:, piece], self._precision)

    def backward(self, x: Array, g: Array) -> None:
        """Compute the gradient of the weights and of the input from the output's."""
        W, dW = x[self.part].reshape(self._shape), g[self.part].reshape(self._shape)
        if self._on_gpu:
            self._backward_on_gpu(W, dW)
            return
        if self._back is None:
            team().share(self._backward_weights, self._shares)
            total = self._total().reshape(-1, self._c_in, self._c_out)
            dW[...] = total.transpose(2, 0, 1)
            return
        team().share(partial(self._backward, self._flip(W)), self._shares)
        total = self._total().reshape(-1, self._c_out, self._c_in)
        dW[...] = total[::-1].transpose(1, 0, 2)

    def _backward(self, flipped: Array, thread: int, pieces: Sequence[slice]) -> None:
        for number, piece in enumerate(pieces):
            columns = self._columns(self._target, piece, thread)
            self._multiply(columns, self._source.flat[:, piece].T, number, thread)
            self._put_back(flipped, columns, piece, thread)

    def _backward_weights(self, thread: int, pieces: Sequence[slice]) -> None:
        """Compute the gradient of the weights alone."""
        for number, piece in enumerate(pieces):
            columns = self._columns(self._source, piece, thread)
            self._multiply(columns, self._target.flat[:, piece].T, number, thread)

    def _backward_on_gpu(self, W: Array, dW: Array) -> None:
        """Do the same on a GPU; sums of the weights' gradient are always in float32."""
        on_maps().weigh(self._source, self._target, self._how, dW)
        if self._back is None:
            return
        if self._precision == "float32":
            on_maps().convolve_back(W, self._target, self._back, self._how, self._adds)
            return
        everything = slice(0, self._source.length)
        columns = self._columns(self._target, everything, 0)
        self._put_back(self._flip(W), columns, everything, 0)

    def _flip(self, W: Array) -> Array:
        """Return the weights as the way back takes them."""
        self._flipped[...] = W[:, ::-1].transpose(2, 1, 0)
        return self._flipped.reshape(self._c_in, -1)

    def _multiply(
        self, columns: Array, values: Array, number: int, thread: int
    ) -> None:
        """Add ``columns * values`` to a thread's sum; its first piece has number 0."""
        total, product = self._sums[thread], self._products[thread]
        if number == 0:
            matmul(columns, values, total, self._precision)
            return
        matmul(columns, values, product, self._precision)
        total += product

    def _total(self) -> Array:
        """Return the sum over all threads."""
        total: Array = self._sums[0]
        for other in self._sums[1:]:
            total += other
        return total

    def _put_back(
        self, flipped: Array, columns: Array, piece: slice, thread: int
    ) -> None:
        """Write or add ``flipped * columns``, the gradient of the input."""
        back = self._back.flat[:, piece]  # type: ignore[union-attr]
        if not self._adds:
            matmul(flipped, columns, back, self._precision)
            return
        shapes = columns.shape, back.shape
        _, product = self._room.take(*shapes, start=thread * self._elements)
        matmul(flipped, columns, product, self._precision)
        back += product

    def _columns(self, maps: Maps, piece: slice, thread: int) -> Array:
        """Return the columns of a piece of some maps, in a thread's room."""
        channels, n = maps.shape.channels, piece.stop - piece.start
        size = self._size
        shape = size, size, channels, n
        (columns,) = self._room.take(shape, start=thread * self._elements)
        if self._on_gpu:
            on_maps().fill_columns(maps, size, columns)
        else:
            np.copyto(columns, maps.windows(size)[..., piece])
        return columns.reshape(-1, n)
