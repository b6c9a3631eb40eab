"""Pooling: fewer pixels than before, or one per map."""

from typing import Literal, get_args

import numpy as np

from dsgd_bench.arrays import Array, on_gpu
from dsgd_bench.arrays.layers import on_maps
from dsgd_bench.errors import ConfigError
from dsgd_bench.problems.layers.maps import Maps, Room

Kind = Literal["max", "average"]
"""What is made of four pixels."""


def check_kind(kind: str) -> None:
    """Raise `ConfigError` for an unknown kind of pooling."""
    if kind not in get_args(Kind):
        raise ConfigError(
            f"problem setting pooling is {kind!r}; use one of: "
            f"{', '.join(get_args(Kind))}"
        )


class Pooling:
    """Pooling of 2 x 2 pixels, then bias and ReLU; see `Unit` for the methods.

    Formula: ``out = max(0, P(values) + b)`` with P the largest or the mean of four
    pixels that no other four share. For the largest this is what pooling behind the
    ReLU would be, at a quarter of the work. Of equal pixels the first counts as the
    largest, row by row.

    Parameters
    ----------
    values : Maps
        What it reads, edges not included. Used up: on the way back it receives its
        gradient, with zeros at the edges.
    out : Maps
        What it writes, of half the height and width, rounded down; zeros at the edges.
    error : Maps
        The gradient of `out`; used up.
    part : slice
        Where the bias lies in the model.
    room : Room
        Memory for one quarter of `values`.
    kind : str
        ``"max"`` or ``"average"``.
    """

    def __init__(
        self,
        values: Maps,
        out: Maps,
        error: Maps,
        part: slice,
        room: Room,
        *,
        kind: Kind = "max",
    ) -> None:
        self.part = part
        self._values, self._out, self._error, self._room = values, out, error, room
        self._kind = kind
        height, width = 2 * out.shape.height, 2 * out.shape.width
        self._quarters = [
            values.pixels[:, :, y:height:2, x:width:2] for y in (0, 1) for x in (0, 1)
        ]
        if not on_gpu(values.flat):
            room.reserve(*self._rooms())

    def _rooms(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self._out.pixels.shape, self._out.pixels.shape

    def initialize(self, x: Array, random: np.random.Generator) -> None:  # noqa: ARG002
        """Set the bias to 0."""
        x[self.part].fill(0.0)

    def forward(self, x: Array) -> None:
        """Compute the output."""
        if on_gpu(x):
            average = self._kind == "average"
            on_maps().pool(self._values, self._out, x[self.part], average=average)
            return
        first, *others = self._quarters
        out = self._out.pixels
        together = np.maximum if self._kind == "max" else np.add
        together(first, others[0], out=out)
        for quarter in others[1:]:
            together(out, quarter, out=out)
        if self._kind == "average":
            out *= 0.25
        out += x[self.part][:, None, None, None]
        np.maximum(out, 0, out=out)

    def backward(self, x: Array, g: Array) -> None:  # noqa: ARG002
        """Compute the gradient of the bias and of what was read from the output's."""
        if on_gpu(g):
            self._backward_on_gpu(g)
            return
        d, out = self._error.pixels, self._out.pixels
        left, hit = self._room.take(*self._rooms())
        np.greater(out, 0, out=hit)
        np.multiply(d, hit, out=left)
        np.add.reduce(left, axis=(1, 2, 3), out=g[self.part])
        if self._kind == "average":
            left *= 0.25
            for quarter in self._quarters:
                quarter[...] = left
            self._clear()
            return
        largest = self._largest(out)
        for quarter in self._quarters:
            np.equal(quarter, largest, out=hit)
            np.multiply(left, hit, out=quarter)
            left -= quarter
        self._clear()

    def _backward_on_gpu(self, g: Array) -> None:
        on_maps().pool_back(
            self._values,
            self._out,
            self._error,
            g[self.part],
            average=self._kind == "average",
        )
        self._clear()

    def _largest(self, out: Array) -> Array:
        """Compute the largest of each four pixels again, exactly, into `out`."""
        first, *others = self._quarters
        np.maximum(first, others[0], out=out)
        for quarter in others[1:]:
            np.maximum(out, quarter, out=out)
        return out

    def _clear(self) -> None:
        """Leave zeros where no pixel was pooled: at the edges, and behind odd sizes."""
        self._values.clear_edges(slice(None))
        out, pixels = self._out.shape, self._values.pixels
        for rest in (pixels[:, :, 2 * out.height :], pixels[:, :, :, 2 * out.width :]):
            if rest.size:
                rest[...] = 0


class Flattening:
    """Maps as one row per image, channel by channel; see `Unit` for the methods.

    Parameters
    ----------
    values, error : Maps
        What it reads, and the gradient of it.
    rows, row_errors : array of shape (images, channels * height * width)
        What it writes, and the gradient of it.
    """

    part = slice(0, 0)

    def __init__(
        self, values: Maps, error: Maps, rows: Array, row_errors: Array
    ) -> None:
        shape = values.shape
        images = (values.count, shape.channels, shape.height, shape.width)
        self._values, self._error = values.pixels, error.pixels
        self._rows = rows.reshape(images).transpose(1, 0, 2, 3)
        self._row_errors = row_errors.reshape(images).transpose(1, 0, 2, 3)

    def initialize(self, x: Array, random: np.random.Generator) -> None:
        """Do nothing: it has no weights."""

    def forward(self, x: Array) -> None:  # noqa: ARG002
        """Copy the pixels."""
        self._rows[...] = self._values

    def backward(self, x: Array, g: Array) -> None:  # noqa: ARG002
        """Copy their gradient back."""
        self._error[...] = self._row_errors


class GlobalAverage:
    """The mean of every map, one row per image; see `Unit` for the methods.

    Parameters
    ----------
    values : Maps
        What it reads, with zeros at the edges.
    error : Maps
        Receives its gradient, the same for every pixel; at the edges nothing.
    rows, row_errors : array of shape (images, channels)
        What it writes, and the gradient of it; that is used up.
    """

    part = slice(0, 0)

    def __init__(
        self, values: Maps, error: Maps, rows: Array, row_errors: Array
    ) -> None:
        shape = values.shape
        self._maps = values
        self._values = values.flat.reshape(shape.channels, values.count, shape.image)
        self._error = error.pixels
        self._rows, self._row_errors = rows, row_errors
        self._pixels = shape.pixels

    def initialize(self, x: Array, random: np.random.Generator) -> None:
        """Do nothing: it has no weights."""

    def forward(self, x: Array) -> None:  # noqa: ARG002
        """Compute the means."""
        if on_gpu(self._rows):
            on_maps().map_means(self._maps, self._rows)
            return
        np.add.reduce(self._values, axis=2, out=self._rows.T)
        self._rows *= 1 / self._pixels

    def backward(self, x: Array, g: Array) -> None:  # noqa: ARG002
        """Spread their gradient over the pixels."""
        self._row_errors *= 1 / self._pixels
        self._error[...] = self._row_errors.T[:, :, None, None]
