"""What all networks on labeled data have in common: batches, loss, evaluation.

Formula   f(x) = mean over samples of -log softmax(scores)[label] + (c / 2) ||x||^2

A network is built once for every batch size, with all memory that it needs. On a GPU
everything from the samples' numbers to the loss is recorded once and then started as a
whole (`dsgd_bench.arrays.recording`), since starting kernel after kernel would take
longer than most of them run.
"""

from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray

from dsgd_bench import arrays, rng
from dsgd_bench.arrays import HOST, Array, Host, Scratch, axpy
from dsgd_bench.arrays.layers import gather, on_maps
from dsgd_bench.arrays.recording import Recorder
from dsgd_bench.problems.base import Judgment, Ready, at_least, dtype_of
from dsgd_bench.problems.data import Data
from dsgd_bench.problems.layers.network import Builder, Network, Unit

SMALL = 512
"""Samples of a batch that is made to see what it takes."""

CHUNK = 4096
"""Samples evaluated at a time, which bounds the memory that evaluation needs."""


class Batch:
    """A network for one batch size, and the numbers of the samples that it reads."""

    def __init__(self, network: Network, builder: Builder) -> None:
        self.network, self.builder = network, builder
        xp = builder.device.xp
        self.indices: NDArray[np.int64] = xp.zeros(builder.count, np.int64)


@dataclass(frozen=True)
class Setup:
    """What every network is told besides its layers and data.

    Attributes
    ----------
    regularization : float
        The factor c.
    seed : int
        Seed of the first model.
    dtype : str
        ``"float32"`` or ``"float64"``.
    device : Host
        Where to compute.
    recorded : bool
        Whether a GPU's kernels are recorded.

    Raises
    ------
    ConfigError
        For what cannot be.
    """

    regularization: float
    seed: int
    dtype: str
    device: Host
    recorded: bool

    def __post_init__(self) -> None:
        at_least(0, regularization=self.regularization)


class Classifier:
    """A network on labeled data; see `Problem` for the methods.

    Parameters
    ----------
    data : Data
        Training and held-out samples, on the host.
    setup : Setup
        The rest.

    Raises
    ------
    ConfigError
        For settings that cannot be.
    """

    chunk = CHUNK

    def __init__(self, data: Data, setup: Setup) -> None:
        self.dtype = dtype_of(setup.dtype)
        device = setup.device
        self._data, self._device, self._precision = data, device, device.precision
        self._inputs, self._labels = _there(data.inputs, data.labels, device)
        self.samples = len(data.inputs)
        self.data_bytes = data.nbytes
        self.labels: NDArray[np.int64] | None = data.labels
        self.optimum: float | None = None
        self._seed = setup.seed
        self._regularization = setup.regularization
        self._first = self._batch(1, HOST).network  # on the host, where it is drawn
        self.dimension = self._first.dimension
        self._scratch = Scratch(device.xp.empty(self.dimension, self.dtype))
        self._batches: dict[int, Batch] = {}
        self._record = Recorder(device, enabled=setup.recorded)

    def build(self, builder: Builder) -> Network:
        """Build the network for one batch size."""
        raise NotImplementedError

    def work_bytes(self, count: int) -> int:
        """Return the bytes of what lies between the layers for one batch size.

        Large ones are not made for that, but reckoned from one of `SMALL`.
        """
        if count > SMALL:
            return self.work_bytes(SMALL) * count // SMALL
        return self._batch(count, HOST).builder.nbytes

    def initial(self) -> Array:
        """Return the first model as a new array: the same on every rank."""
        x: Array = np.zeros(self.dimension, self.dtype)
        self._first.initialize(x, rng.generator(self._seed, "initial"))
        return self._device.put(x)

    @np.errstate(over="ignore", invalid="ignore")
    def gradient(
        self,
        x: Array,
        indices: NDArray[np.intp],
        out: Array,
        ready: Ready | None = None,
    ) -> float:
        """Write the mean gradient over `indices` into `out`; return the mean loss."""
        count = len(indices)
        if count not in self._batches:
            self._batches[count] = self._batch(count)
        batch = self._batches[count]
        self._load(batch, indices)
        if ready is None:
            self._record(count, x, out, partial(self._gradient, batch, x, out))
        else:
            self._gradient_in_parts(batch, x, out, ready)
        return float(batch.network.loss[0]) + self._penalty_on_host(x)

    def _gradient(self, batch: Batch, x: Array, out: Array) -> None:
        """Compute loss and gradient of a batch that is there."""
        self._begin(batch, x)
        network = batch.network
        network.backward(x, out)
        self._regularize(x, out, network, slice(0, self.dimension))

    def _gradient_in_parts(
        self, batch: Batch, x: Array, out: Array, ready: Ready
    ) -> None:
        """Do the same, layer by layer, each recorded by itself."""
        network, count = batch.network, len(batch.indices)
        self._record((count, "forward"), x, out, partial(self._begin, batch, x))
        for number, unit in enumerate(reversed(network.units)):
            work = partial(self._backward, network, unit, x, out)
            self._record((count, number), x, out, work)
            if unit.part.stop > unit.part.start:
                arrays.finish(out)  # so that the wait is computing, and the part final
                ready(unit.part)

    def _begin(self, batch: Batch, x: Array) -> None:
        """Compute the loss, and the gradient of the scores."""
        self._fetch(batch)
        batch.network.forward(x)
        batch.network.judge()

    def _backward(self, network: Network, unit: Unit, x: Array, out: Array) -> None:
        """Compute the gradient of one layer's weights, to the end."""
        unit.backward(x, out)
        if unit.part.stop > unit.part.start:
            self._regularize(x, out, network, unit.part)

    def _regularize(self, x: Array, out: Array, network: Network, part: slice) -> None:
        """Add the penalty's gradient to a part; on a GPU, its value to the loss."""
        c = self._regularization
        if c > 0:
            axpy(c, x[part], out[part], self._scratch)  # out <- out + c x
            if arrays.on_gpu(x):
                on_maps().penalize(c, x[part], network.loss)

    def _penalty_on_host(self, x: Array) -> float:
        return 0.0 if arrays.on_gpu(x) else self._penalty(x)

    def _penalty(self, x: Array) -> float:
        c = self._regularization
        return 0.5 * c * float(np.dot(x, x)) if c > 0 else 0.0

    def _batch(self, count: int, device: Host | None = None) -> Batch:
        builder = Builder(count, device or self._device, self.dtype, self._precision)
        return Batch(self.build(builder), builder)

    def _load(self, batch: Batch, indices: NDArray[np.intp]) -> None:
        """Bring the numbers of the samples to where the network is."""
        arrays.load(np.asarray(indices, np.int64), batch.indices)

    def _fetch(self, batch: Batch) -> None:
        """Fill the network's inputs and labels."""
        inputs = cast(Array, batch.network.inputs)
        gather(self._inputs, batch.indices, inputs)
        gather(self._labels, batch.indices, batch.network.labels)

    @np.errstate(over="ignore", invalid="ignore")
    def evaluate(self, x: Array) -> Judgment:
        """Evaluate a model by all training samples and by the held-out ones."""
        data = self._data
        held = _there(data.held_inputs, data.held_labels, self._device)
        batches = self._batches_for(x)
        loss, _ = self._totals(x, (self._inputs, self._labels), batches)
        _, correct = self._totals(x, held, batches)
        return Judgment(
            loss=loss / self.samples + self._penalty(x),
            accuracy=correct / len(data.held_labels),
        )

    def _totals(
        self,
        x: Array,
        samples: tuple[Array, NDArray[np.int64]],
        batches: dict[int, Batch],
    ) -> tuple[float, int]:
        """Return summed loss without the penalty, and the number of correct guesses."""
        inputs, labels = samples
        loss, correct = 0.0, 0
        for start in range(0, len(inputs), self.chunk):
            some, right = (
                inputs[start : start + self.chunk],
                labels[start:][: self.chunk],
            )
            count = len(some)
            if count not in batches:
                batches[count] = self._batch(count)
                self._prepare(batches[count].network)
            network = batches[count].network
            self._enter(network, some)
            network.labels[...] = right
            network.forward(x)
            correct += int((network.scores.argmax(axis=1) == right).sum())
            network.judge()
            loss += float(network.loss[0]) * count
        return loss, correct

    def _batches_for(self, x: Array) -> dict[int, Batch]:  # noqa: ARG002
        """Begin to evaluate a model: return networks for it, by batch size."""
        return {}

    def _prepare(self, network: Network) -> None:
        """Get another network ready for the model that is evaluated."""

    def _enter(self, network: Network, rows: Array) -> None:
        """Let a network read some samples."""
        cast(Array, network.inputs)[...] = rows


def _there(
    inputs: Array, labels: NDArray[np.int64], device: Host
) -> tuple[Array, NDArray[np.int64]]:
    """Return samples where they are computed with; on the host as they are."""
    if device.kind == "cpu":
        return inputs, labels
    return device.put(inputs), device.put(labels)
