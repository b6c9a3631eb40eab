"""Convolution: every output pixel is a weighted sum over a neighborhood.

Formula   Y[o, p] = sum over taps t and channels c of W[o, t, c] X[c, stride p + t]
Taps      size x size around the pixel; pixels beyond the edge count as zero
Weights   W has shape (channels out, taps, channels in), taps row by row
Start     normal with variance 2 / (taps * channels in)

Everything is a product of matrices with the *columns* of some maps, shape (taps *
channels, pixels): the neighborhood of each pixel (K. Chellapilla, S. Puri and
P. Simard, "High performance convolutional neural networks for document processing",
2006). On the host the columns of a few images are made at a time, so that they stay in
the cache. On the way back the columns of the output's gradient D serve twice,

    dX = flipped W * columns(D)        dW = flipped (columns(D) * X^T)

"flipped" being the taps in reverse order. Where every second pixel is computed, or dX
is not wanted, the columns of X are made again instead: dW = D * columns(X)^T, and

    dX = sum over taps of (W^T * D), each put back where the tap took it from
"""

from collections.abc import Iterator

import numpy as np

from dsgd_bench.arrays import Array, on_gpu
from dsgd_bench.arrays.layers import matmul
from dsgd_bench.arrays.maps import Taps, on_maps
from dsgd_bench.problems.layers.maps import Maps, Room

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
        Receives the gradient of `source`, and is like it; nothing where nobody wants
        it. At the edges it is left with anything.
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
        self._product: Array = np.empty_like(like, shape=(rows, columns))
        self._sum: Array = np.zeros_like(self._product)
        self._reserve()

    def _reserve(self) -> None:
        """Choose how much is done at a time, and make sure that there is room."""
        image, count = self._source.shape.image, self._source.count
        most = max(self._c_in, self._c_out if self._back else 0)
        rows = self._size**2 * most
        self._piece = count * image
        if self._on_gpu:
            if self._precision == "float32":
                return  # no columns are made
        else:
            nbytes = rows * image * self._source.flat.itemsize
            self._piece = min(max(1, PIECE_BYTES // nbytes), count) * image
        self._room.reserve((rows, self._piece), (self._c_in, self._piece))

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
        for piece in self._pieces():
            columns = self._columns(self._source, piece)
            matmul(W, columns, self._target.flat[:, piece], self._precision)

    def backward(self, x: Array, g: Array) -> None:
        """Compute the gradient of the weights and of the input from the output's."""
        W, dW = x[self.part].reshape(self._shape), g[self.part].reshape(self._shape)
        if self._on_gpu:
            self._backward_on_gpu(W, dW)
            return
        if self._back is None:
            self._backward_weights(dW)
            return
        flipped = self._flip(W)
        source = self._source.flat
        for number, piece in enumerate(self._pieces()):
            columns = self._columns(self._target, piece)
            self._multiply(columns, source[:, piece].T, number)
            self._put_back(flipped, columns, piece)
        total = self._sum.reshape(-1, self._c_out, self._c_in)
        dW[...] = total[::-1].transpose(1, 0, 2)

    def _backward_on_gpu(self, W: Array, dW: Array) -> None:
        """Do the same on a GPU; sums of the weights' gradient are always in float32."""
        on_maps().weigh(self._source, self._target, self._how, dW)
        if self._back is None:
            return
        if self._precision == "float32":
            on_maps().convolve_back(W, self._target, self._back, self._how, self._adds)
            return
        everything = slice(0, self._source.length)
        columns = self._columns(self._target, everything)
        self._put_back(self._flip(W), columns, everything)

    def _flip(self, W: Array) -> Array:
        """Return the weights as the way back takes them."""
        self._flipped[...] = W[:, ::-1].transpose(2, 1, 0)
        return self._flipped.reshape(self._c_in, -1)

    def _backward_weights(self, dW: Array) -> None:
        """Compute the gradient of the weights alone."""
        for number, piece in enumerate(self._pieces()):
            columns = self._columns(self._source, piece)
            self._multiply(columns, self._target.flat[:, piece].T, number)
        dW[...] = self._sum.reshape(-1, self._c_in, self._c_out).transpose(2, 0, 1)

    def _multiply(self, columns: Array, values: Array, number: int) -> None:
        """Add ``columns * values`` to the sum over pieces, of which the first is 0."""
        if number == 0:
            matmul(columns, values, self._sum, self._precision)
            return
        matmul(columns, values, self._product, self._precision)
        self._sum += self._product

    def _put_back(self, flipped: Array, columns: Array, piece: slice) -> None:
        """Write or add ``flipped * columns``, the gradient of the input."""
        back = self._back.flat[:, piece]  # type: ignore[union-attr]
        if not self._adds:
            matmul(flipped, columns, back, self._precision)
            return
        _, product = self._room.take(columns.shape, back.shape)
        matmul(flipped, columns, product, self._precision)
        back += product

    def _pieces(self) -> Iterator[slice]:
        length = self._source.length
        for start in range(0, length, self._piece):
            yield slice(start, min(start + self._piece, length))

    def _columns(self, maps: Maps, piece: slice) -> Array:
        """Return the columns of a piece of some maps."""
        channels, n = maps.shape.channels, piece.stop - piece.start
        size = self._size
        (columns,) = self._room.take((size, size, channels, n))
        if self._on_gpu:
            on_maps().fill_columns(maps, size, columns)
        else:
            np.copyto(columns, maps.windows(size)[..., piece])
        return columns.reshape(-1, n)
