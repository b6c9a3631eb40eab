"""What networks on pictures have in common, besides what all classifiers have."""

from typing import cast

import numpy as np
from numpy.typing import NDArray

from dsgd_bench import arrays
from dsgd_bench.arrays import Array, Host
from dsgd_bench.arrays.layers import gather, on_maps
from dsgd_bench.problems import pictures
from dsgd_bench.problems.base import Judgment, Ready, dtype_of
from dsgd_bench.problems.classifier import Batch, Classifier, Setup
from dsgd_bench.problems.data import Size
from dsgd_bench.problems.layers import Builder, Maps, Network, Normalization, team

JUDGED = 128
"""Pictures evaluated at a time."""

STATISTICS = 16
"""Batches of training pictures from which statistics are taken before evaluation."""


class Pictures(Batch):
    """A network for one batch size, its pictures as flat rows, and how they move."""

    def __init__(self, network: Network, builder: Builder, features: int) -> None:
        super().__init__(network, builder)
        xp, moves = builder.device.xp, (3, builder.count)
        self.rows = builder.rows(features)
        self.drawn: NDArray[np.int64] = np.zeros(moves, np.int64)
        self.moves: NDArray[np.int64] = xp.zeros(moves, np.int64)

    @property
    def inputs(self) -> Maps:
        """What the first layer reads."""
        return cast(Maps, self.network.inputs)


class Convolutional(Classifier):
    """A network on pictures; see `Problem` for the methods.

    Parameters
    ----------
    data : str
        One of `pictures.SHAPES`.
    folder : str
        Where published data lie.
    size : Size
        Samples and classes of generated data.
    augmentation : bool
        Whether every picture of a batch is moved and mirrored at random; judged are
        the pictures as they are.
    setup : Setup
        The rest.

    Raises
    ------
    ConfigError
        For settings that cannot be, and where data are missing or broken.
    """

    chunk = JUDGED

    def __init__(
        self, data: str, folder: str, size: Size, augmentation: bool, setup: Setup
    ) -> None:
        found, self._shape = pictures.load(
            data, size, seed=setup.seed, dtype=dtype_of(setup.dtype), folder=folder
        )
        self._classes = found.classes
        self._augmented = augmentation
        self._statistics: list[tuple[Array, Array]] = []
        super().__init__(found, setup)

    def gradient(
        self,
        x: Array,
        indices: NDArray[np.intp],
        out: Array,
        ready: Ready | None = None,
    ) -> float:
        """Write the mean gradient over `indices` into `out`; return the mean loss."""
        with team().alone():
            return super().gradient(x, indices, out, ready)

    def evaluate(self, x: Array) -> Judgment:
        """Evaluate a model by all training samples and by the held-out ones."""
        with team().alone():
            return super().evaluate(x)

    def _batch(self, count: int, device: Host | None = None) -> Pictures:
        builder = Builder(count, device or self._device, self.dtype, self._precision)
        return Pictures(self.build(builder), builder, self._data.inputs.shape[1])

    def _load(self, batch: Batch, indices: NDArray[np.intp]) -> None:
        super()._load(batch, indices)
        if self._augmented:
            batch = cast(Pictures, batch)
            pictures.draw_moves(self._seed, indices, batch.drawn)
            arrays.load(batch.drawn, batch.moves)

    def _fetch(self, batch: Batch) -> None:
        batch = cast(Pictures, batch)
        gather(self._inputs, batch.indices, batch.rows)
        gather(self._labels, batch.indices, batch.network.labels)
        if not self._augmented:
            pictures.place(batch.rows, batch.inputs.pixels)
        elif arrays.on_gpu(batch.rows):
            on_maps().place_pictures(batch.rows, batch.moves, batch.inputs)
        else:
            pictures.place(batch.rows, batch.inputs.pixels, batch.moves)

    def _enter(self, network: Network, rows: Array) -> None:
        pictures.place(rows, cast(Maps, network.inputs).pixels)

    def _batches_for(self, x: Array) -> dict[int, Batch]:
        """Take the statistics of batch normalization from training data, at `x`.

        The mean is that of the batches' means; the variance that of all their pictures
        together, as if they were one batch.
        """
        count = min(self.chunk, self.samples)
        batch = self._batch(count)
        layers = _normalizations(batch.network)
        self._statistics = [
            (np.zeros_like(layer.mean), np.zeros_like(layer.mean)) for layer in layers
        ]
        starts = range(0, min(STATISTICS * count, self.samples - count + 1), count)
        for start in starts if layers else ():
            self._enter(batch.network, self._inputs[start : start + count])
            batch.network.forward(x)
            for layer, (mean, square) in zip(layers, self._statistics, strict=True):
                np.add(mean, layer.mean, out=mean)
                np.add(square, layer.variance + layer.mean**2, out=square)
        for mean, square in self._statistics:
            np.divide(mean, len(starts), out=mean)
            np.divide(square, len(starts), out=square)
            np.subtract(square, mean**2, out=square)
        self._prepare(batch.network)
        return {count: batch}

    def _prepare(self, network: Network) -> None:
        """Let a network use those statistics."""
        layers = _normalizations(network)
        for layer, (mean, variance) in zip(layers, self._statistics, strict=True):
            layer.mean[...] = mean
            layer.variance[...] = variance
            layer.learned = False


def _normalizations(network: Network) -> list[Normalization]:
    return [unit for unit in network.units if isinstance(unit, Normalization)]
