"""A network bound to its memory: layers in order, and what they work on."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.arrays import Array, Host
from dsgd_bench.arrays.layers import cross_entropy
from dsgd_bench.problems.layers.maps import Maps, Room, Shape


class Unit(Protocol):
    """One layer, bound to the memory that it reads and writes.

    Nothing is allocated by `forward` and `backward`.

    Attributes
    ----------
    part : slice
        Where its weights lie in the model; empty without any.
    """

    part: slice

    def initialize(self, x: Array, random: np.random.Generator) -> None:
        """Write the first weights into a model on the host."""

    def forward(self, x: Array) -> None:
        """Compute the output with the weights in the model `x`."""

    def backward(self, x: Array, g: Array) -> None:
        """Write the gradient of the weights into `g`; compute the input's, if any."""


class Builder:
    """Deals out memory and places in the model while a network is built.

    Parameters
    ----------
    count : int
        Samples of a batch.
    device : Host
        Where memory is to lie.
    dtype : numpy.dtype
        Element type.
    precision : str
        How a GPU multiplies; see `dsgd_bench.arrays.layers.matmul`.

    Attributes
    ----------
    dimension : int
        Elements of the model so far.
    room : Room
        Memory that the layers share.
    """

    def __init__(
        self,
        count: int,
        device: Host,
        dtype: np.dtype[Any],
        precision: str = "float32",
    ) -> None:
        self.count, self.device, self.dtype = count, device, dtype
        self.precision = precision
        self.dimension = 0
        self._dealt = 0
        self.room = Room(device, dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of memory dealt out so far, the room included."""
        return self._dealt + self.room.nbytes

    def part(self, size: int) -> slice:
        """Return the place of the next `size` weights in the model."""
        start, self.dimension = self.dimension, self.dimension + size
        return slice(start, self.dimension)

    def maps(self, shape: Shape) -> Maps:
        """Make maps for the batch."""
        maps = Maps(shape, self.count, self.device, self.dtype)
        self._dealt += maps.nbytes
        return maps

    def rows(self, width: int) -> Array:
        """Make one row for each sample."""
        rows: Array = self.device.xp.empty((self.count, width), self.dtype)
        self._dealt += rows.nbytes
        return rows


class Network:
    """A classifier for batches of one size.

    Parameters
    ----------
    builder : Builder
        What made its memory.
    units : list of Unit
        The layers, first to last.
    inputs : array of shape (images, features), or Maps
        What the first layer reads.
    scores : array of shape (images, classes)
        What the last layer writes, and then their gradient.

    Attributes
    ----------
    labels : NDArray[numpy.int64]
        Class of each sample, in the same memory.
    loss : NDArray[numpy.float64]
        The mean loss of the batch, then each sample's; in the same memory.
    """

    def __init__(
        self,
        builder: Builder,
        units: list[Unit],
        inputs: Array | Maps,
        scores: Array,
    ) -> None:
        self.units, self.inputs, self.scores = units, inputs, scores
        self.dimension = builder.dimension
        xp, count = builder.device.xp, builder.count
        self.labels: NDArray[np.int64] = xp.zeros(count, np.int64)
        self.loss: NDArray[np.float64] = xp.zeros(count + 1, np.float64)

    def initialize(self, x: Array, random: np.random.Generator) -> None:
        """Write the first model into `x`, which lies on the host."""
        for unit in self.units:
            unit.initialize(x, random)

    def forward(self, x: Array) -> None:
        """Compute the scores of the inputs."""
        for unit in self.units:
            unit.forward(x)

    def judge(self) -> None:
        """Compute the loss of the scores, and their gradient in their place."""
        cross_entropy(self.scores, self.labels, self.loss)

    def backward(self, x: Array, g: Array) -> None:
        """Compute the gradient, last layer first."""
        for unit in reversed(self.units):
            unit.backward(x, g)
