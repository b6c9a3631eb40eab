"""A network of fully connected layers on labeled data.

Formula   h_0 = input;  h_k = max(0, h_{k-1} W_k + b_k);  scores = h_{L-1} W_L + b_L
          f(x) = mean over samples of -log softmax(scores)[label] + (c / 2) ||x||^2
Model     x = (W_1, b_1, ..., W_L, b_L), one flat vector; W_k has shape (in, out)
Start     W_k normal with variance 2 / in, b_k = 0 (K. He et al., "Delving deep into
          rectifiers", ICCV 2015, section 2.2)
Optimum   unknown; the loss is not convex
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsgd_bench import streams
from dsgd_bench.arrays import Array, Scratch, axpy
from dsgd_bench.problems.base import Judgment, at_least, dtype_of
from dsgd_bench.problems.catalog import FOLDER
from dsgd_bench.problems.data import Size, load

CHUNK = 4096
"""Samples judged at a time, which bounds the memory that judging needs."""


@dataclass(frozen=True)
class _Workspace:
    """Buffers for one batch size: what every layer puts out, and what flows back."""

    labels: NDArray[np.int64]
    values: list[Array]
    errors: list[Array]


class MLP:
    """Classification by a multilayer perceptron; see `Problem` for the methods.

    Parameters
    ----------
    data : str
        ``"digits"``, ``"generated"``, ``"mnist"``, ``"fashion-mnist"`` or
        ``"cifar-10"``; see `dsgd_bench.problems.data`.
    folder : str
        Where published data lie; see `dsgd_bench.problems.catalog`.
    file : str
        A file in LIBSVM format, instead of `data`.
    hidden : tuple of int
        Widths of the hidden layers, first to last; empty for none.
    regularization : float
        The factor c of the squared norm of the model, biases included.
    samples, features, classes : int
        Size of generated data.
    seed : int
        Seed of the first model and of generated data.
    dtype : str
        ``"float32"`` or ``"float64"``.

    Raises
    ------
    ConfigError
        For settings that cannot be, and where data are missing or broken.
    """

    def __init__(  # noqa: PLR0913 (every setting is an argument)
        self,
        *,
        data: str = "digits",
        folder: str = FOLDER,
        file: str = "",
        hidden: tuple[int, ...] = (64,),
        regularization: float = 1e-4,
        samples: int = Size.samples,
        features: int = Size.features,
        classes: int = Size.classes,
        seed: int = 0,
        dtype: str = "float32",
    ) -> None:
        at_least(0, regularization=regularization)
        for width in hidden:
            at_least(1, hidden=width)
        self.dtype = dtype_of(dtype)
        size = Size(samples, features, classes)
        self._data = load(
            data, size, seed=seed, dtype=self.dtype, folder=folder, file=file
        )
        self.samples = len(self._data.inputs)
        self.data_bytes = self._data.nbytes
        self.labels: NDArray[np.int64] | None = self._data.labels
        self.optimum: float | None = None
        self._widths = [self._data.inputs.shape[1], *hidden, self._data.classes]
        pairs = zip(self._widths[:-1], self._widths[1:], strict=True)
        self.dimension = sum(n * m + m for n, m in pairs)
        self._seed = seed
        self._regularization = regularization
        self._scratch = Scratch(np.empty(self.dimension, self.dtype))
        self._workspaces: dict[int, _Workspace] = {}

    def initial(self) -> Array:
        """Return the first model as a new array: the same on every rank."""
        x: Array = np.zeros(self.dimension, self.dtype)
        random = streams.generator(self._seed, "initial")
        for W, _ in self._layers(x):
            W[...] = random.normal(0.0, np.sqrt(2 / len(W)), W.shape)
        return x

    @np.errstate(over="ignore", invalid="ignore")
    def gradient(self, x: Array, indices: NDArray[np.intp], out: Array) -> float:
        """Write the mean gradient over `indices` into `out`; return the mean loss."""
        work = self._workspace(len(indices))
        # Any mode but "raise" lets take write to its destination without a copy.
        np.take(self._data.inputs, indices, 0, out=work.values[0], mode="clip")
        np.take(self._data.labels, indices, 0, out=work.labels, mode="clip")
        layers = self._layers(x)
        _forward(layers, work.values)
        loss = cross_entropy(work.values[-1], work.labels)
        _backward(layers, work, self._layers(out))
        if self._regularization > 0:
            axpy(self._regularization, x, out, self._scratch)  # out <- out + c x
        return loss + self._penalty(x)

    @np.errstate(over="ignore", invalid="ignore")
    def evaluate(self, x: Array) -> Judgment:
        """Judge a model by all training samples and by the held-out ones."""
        data = self._data
        loss, _ = self._totals(x, data.inputs, data.labels)
        _, correct = self._totals(x, data.held_inputs, data.held_labels)
        return Judgment(
            loss=loss / self.samples + self._penalty(x),
            accuracy=correct / len(data.held_labels),
        )

    def _totals(
        self, x: Array, inputs: Array, labels: NDArray[np.int64]
    ) -> tuple[float, int]:
        """Return summed loss without the penalty, and the number of correct guesses."""
        loss, correct = 0.0, 0
        for start in range(0, len(inputs), CHUNK):
            some, right = inputs[start : start + CHUNK], labels[start : start + CHUNK]
            values = [some, *self._buffers(len(some), self._widths[1:])]
            _forward(self._layers(x), values)
            correct += int(np.sum(values[-1].argmax(axis=1) == right))
            loss += cross_entropy(values[-1], right) * len(some)
        return loss, correct

    def _penalty(self, x: Array) -> float:
        return 0.5 * self._regularization * float(np.dot(x, x))

    def _layers(self, x: Array) -> list[tuple[Array, Array]]:
        """Return the weights and the bias of every layer as views into `x`."""
        layers = []
        start = 0
        for n, m in zip(self._widths[:-1], self._widths[1:], strict=True):
            end = start + n * m
            layers.append((x[start:end].reshape(n, m), x[end : end + m]))
            start = end + m
        return layers

    def _workspace(self, batch: int) -> _Workspace:
        if batch not in self._workspaces:
            self._workspaces[batch] = _Workspace(
                labels=np.empty(batch, np.int64),
                values=self._buffers(batch, self._widths),
                errors=self._buffers(batch, self._widths[:-1]),
            )
        return self._workspaces[batch]

    def _buffers(self, rows: int, widths: list[int]) -> list[Array]:
        return [np.empty((rows, width), self.dtype) for width in widths]


def _forward(layers: list[tuple[Array, Array]], values: list[Array]) -> None:
    """Fill ``values[1:]`` with what every layer makes of ``values[0]``."""
    for k, (W, b) in enumerate(layers):
        h = values[k + 1]
        np.matmul(values[k], W, out=h)
        h += b
        if k + 1 < len(layers):
            np.maximum(h, 0, out=h)


def _backward(
    layers: list[tuple[Array, Array]],
    work: _Workspace,
    gradients: list[tuple[Array, Array]],
) -> None:
    """Fill `gradients`, given df/dscores in ``work.values[-1]``; uses up the values."""
    error = work.values[-1]
    for k in reversed(range(len(layers))):
        dW, db = gradients[k]
        h = work.values[k]
        np.matmul(h.T, error, out=dW)
        np.add.reduce(error, axis=0, out=db)
        if k > 0:
            np.matmul(error, layers[k][0].T, out=work.errors[k])
            error = work.errors[k]
            # The slope of max(0, z) is sign(h), because h is never negative.
            error *= np.sign(h, out=h)


def cross_entropy(scores: Array, labels: NDArray[np.int64]) -> float:
    """Return the mean of -log softmax(scores)[label]; `scores` becomes its gradient.

    Parameters
    ----------
    scores : Array
        Shape (batch, classes). On return: (softmax(scores) - onehot(labels)) / batch.
    labels : NDArray[numpy.int64]
        Class of each row, shape (batch,).
    """
    rows = np.arange(len(labels))
    # Softmax ignores a common shift; with the largest score at 0, exp cannot overflow.
    scores -= scores.max(axis=1, keepdims=True)
    right = scores[rows, labels]
    np.exp(scores, out=scores)
    total = scores.sum(axis=1, keepdims=True)
    loss = np.mean(np.log(total[:, 0]) - right, dtype=np.float64)
    scores /= total
    scores[rows, labels] -= 1
    scores /= len(labels)
    return float(loss)
