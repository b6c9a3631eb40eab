"""Feature maps of a batch of images in memory, and room for what lies between layers.

Channels come first, then images, rows and columns, so that what is done to a channel is
done to one long vector. Rows end with `pad` zeros and images with `pad` rows of zeros;
what is left of a row is then the end of the row before it, also zeros. So the
neighbor of every pixel in one direction is at one distance in memory, across the edge
of the image, too, and a convolution's input for one tap is the same memory shifted.
"""

from dataclasses import dataclass
from math import prod
from types import ModuleType

from numpy.lib.stride_tricks import as_strided
from numpy.typing import DTypeLike

from dsgd_bench.arrays import Array, Host
from dsgd_bench.arrays import maps as kernels
from dsgd_bench.arrays.maps import Place


@dataclass(frozen=True)
class Shape:
    """What one image is after some layer, and the zeros at its edges.

    Attributes
    ----------
    channels, height, width : int
        Maps of one image, and their size in pixels.
    pad : int
        Columns and rows of zeros between rows and images: half the size of the
        largest convolution that reads it, rounded down.
    """

    channels: int
    height: int
    width: int
    pad: int = 1

    @property
    def row(self) -> int:
        """Elements from one row to the next."""
        return self.width + self.pad

    @property
    def image(self) -> int:
        """Elements from one image to the next, in one channel."""
        return (self.height + self.pad) * self.row

    @property
    def pixels(self) -> int:
        """Pixels of one channel of one image."""
        return self.height * self.width


class Maps(kernels.Maps):
    """Feature maps of `count` images, all zero.

    Parameters
    ----------
    shape : Shape
        What one image is.
    count : int
        Images.
    device : Host
        Where it is to lie.
    dtype : dtype
        Element type.

    Attributes
    ----------
    flat : array of shape (channels, count * shape.image)
        Everything, the zeros at the edges included; contiguous.
    pixels : array of shape (channels, count, height, width)
        The pixels alone, a view.
    """

    def __init__(
        self, shape: Shape, count: int, device: Host, dtype: DTypeLike
    ) -> None:
        self.shape, self.count = shape, count
        self.length = count * shape.image
        # A tap reaches so far beyond the first and the last pixel.
        self._margin = -(-shape.pad * (shape.row + 1) // 16) * 16
        size = shape.channels * self.length
        self._whole: Array = device.xp.zeros(size + 2 * self._margin, dtype)
        self._windows: dict[int, Array] = {}
        self.flat = self.shifted(0)
        self.place = Place(
            self.length, shape.image, shape.row, shape.height, shape.width
        )
        spaced = self.flat.reshape(
            shape.channels, count, shape.height + shape.pad, shape.row
        )
        self._below = spaced[:, :, shape.height :]
        self._beside = spaced[:, :, :, shape.width :]
        self.pixels = spaced[:, :, : shape.height, : shape.width]

    @property
    def nbytes(self) -> int:
        """Bytes of memory, the zeros at the edges included."""
        return self._whole.nbytes

    def shifted(self, distance: int) -> Array:
        """Return what lies `distance` elements after each element, shaped as `flat`.

        At the edges of a channel that may be anything, but for pixels of the image and
        their neighbors at most `pad` pixels away it is what is there.
        """
        start = self._margin + distance
        whole = self._whole[start : start + self.shape.channels * self.length]
        return whole.reshape(self.shape.channels, self.length)

    def windows(self, size: int) -> Array:
        """Return the neighborhood of each element of the host, as a view for reading.

        Its shape is (size, size, channels, count * shape.image); see `shifted`.
        """
        if size not in self._windows:
            reach = size // 2 * (self.shape.row + 1)
            item = self._whole.itemsize
            self._windows[size] = as_strided(
                self._whole[self._margin - reach :],
                (size, size, self.shape.channels, self.length),
                (self.shape.row * item, item, self.length * item, item),
                writeable=False,
            )
        return self._windows[size]

    def neighbors(self, dy: int, dx: int, stride: int) -> Array:
        """Return the pixel at (`dy`, `dx`) from every `stride`-th one, as a view.

        Its shape is (channels, count, height / stride, width / stride), rounded up.
        """
        shape = self.shape
        spaced = self.shifted(dy * shape.row + dx).reshape(
            shape.channels, self.count, shape.height + shape.pad, shape.row
        )
        return spaced[:, :, : shape.height : stride, : shape.width : stride]

    def clear_edges(self, channels: slice) -> None:
        """Set what lies between the rows and images of some channels to zero."""
        self._below[channels] = 0
        self._beside[channels] = 0


class Room:
    """One block of memory that layers take turns to use, as large as the largest asks.

    Parameters
    ----------
    device : Host
        Where it is to lie.
    dtype : dtype
        Element type.
    """

    def __init__(self, device: Host, dtype: DTypeLike) -> None:
        self._xp: ModuleType = device.xp
        self._memory: Array = self._xp.empty(0, dtype)

    @property
    def nbytes(self) -> int:
        """Bytes reserved so far."""
        return self._memory.nbytes

    def reserve(self, *shapes: tuple[int, ...]) -> None:
        """Make sure that arrays of these shapes fit together; before the first use."""
        size = sum(map(prod, shapes))
        if size > self._memory.size:
            self._memory = self._xp.empty(size, self._memory.dtype)

    def take(self, *shapes: tuple[int, ...], start: int = 0) -> list[Array]:
        """Return an array of each shape, side by side, with anything in them.

        Threads that work at the same time take theirs from different elements on.
        """
        arrays = []
        for shape in shapes:
            end = start + prod(shape)
            arrays.append(self._memory[start:end].reshape(shape))
            start = end
        return arrays
