"""Logistic regression: two classes, a linear model, convex.

Formula   f(x) = mean over samples of log(1 + exp(-y (a . w + b))) + (c/2) ||x||^2
Model     x = (w, b), one flat vector of features + 1 elements
Data      inputs a; labels y = -1 for the first of two classes, +1 for the second
Start     x = 0, where f = log 2
Optimum   not known in closed form; strongly convex for c > 0, so it is the only one.
          With L = c + (largest eigenvalue of the mean of (a, 1)(a, 1)^T) / 4, no
          curvature is above L and gradient descent is stable for lr < 2 / L
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dsgd_bench import arrays
from dsgd_bench.arrays import HOST, Array, Host, Scratch, axpy, host
from dsgd_bench.arrays.layers import gather
from dsgd_bench.errors import ConfigError
from dsgd_bench.problems.base import Judgment, Ready, at_least, dtype_of
from dsgd_bench.problems.data import Data, Size, load
from dsgd_bench.problems.mlp import CHUNK
from dsgd_bench.spec.ranges import Count, NotNegative


@dataclass(frozen=True)
class _Workspace:
    """Buffers for one batch size: its samples, and a number for each of them."""

    indices: NDArray[np.int64]
    inputs: Array
    signs: Array
    margins: Array
    losses: Array


class Logistic:
    """Logistic regression between two classes; see `Problem` for the methods.

    Parameters
    ----------
    file : str
        A file in LIBSVM format, with two classes; a sixth of it is held out.
    data : str
        Without a file: ``"digits"``, even against odd ones, or ``"generated"``; see
        `dsgd_bench.problems.data`.
    regularization : float
        The factor c of the squared norm of the model, bias included.
    samples, features : int
        Size of generated data.
    seed : int
        Seed of generated data; the first model is zero for every seed.
    dtype : str
        ``"float32"`` or ``"float64"``.
    device : Host
        Where to compute; models are evaluated on the host.

    Raises
    ------
    ConfigError
        For settings that cannot be, and where data are missing or broken.
    """

    def __init__(  # noqa: PLR0913 (every setting is an argument)
        self,
        *,
        file: str = "",
        data: str = "digits",
        regularization: NotNegative = 1e-4,
        samples: Count = Size.samples,
        features: Count = Size.features,
        seed: int = 0,
        dtype: str = "float32",
        device: Host = HOST,
    ) -> None:
        at_least(0, regularization=regularization)
        if data not in ("digits", "generated"):
            raise ConfigError(
                f"problem setting data is {data!r} for logistic; use one of: digits, "
                "generated; or name a file with two classes; or use the problem softmax"
            )
        self.dtype = dtype_of(dtype)
        classes = 2 if data == "generated" else Size.classes
        size = Size(samples, features, classes)
        found = load(data, size, seed=seed, dtype=self.dtype, file=file)
        self._data = _two_classes(found, file)
        self._signs: Array = (2 * self._data.labels - 1).astype(self.dtype)
        self.samples, features = self._data.inputs.shape
        self.data_bytes = self._data.nbytes + self._signs.nbytes
        self.labels: NDArray[np.int64] | None = self._data.labels
        self.optimum: float | None = None
        self.dimension = features + 1
        self._regularization = regularization
        self._device = device
        self._there = self._data.inputs, self._signs
        if device.kind != "cpu":
            self._there = device.put(self._data.inputs), device.put(self._signs)
        self._scratch = Scratch(device.xp.empty(self.dimension, self.dtype))
        self._workspaces: dict[int, _Workspace] = {}

    def initial(self) -> Array:
        """Return the first model, zero, as a new array."""
        return self._device.put(np.zeros(self.dimension, self.dtype))

    # exp(-margin) of a sample that is far on its side is zero, and should be.
    @np.errstate(over="ignore", invalid="ignore", under="ignore")
    def gradient(
        self,
        x: Array,
        indices: NDArray[np.intp],
        out: Array,
        ready: Ready | None = None,
    ) -> float:
        """Write the mean gradient over `indices` into `out`; return the mean loss."""
        work = self._workspace(len(indices))
        arrays.load(np.asarray(indices, np.int64), work.indices)
        gather(self._there[0], work.indices, work.inputs)
        gather(self._there[1], work.indices, work.signs)
        z = work.margins
        np.matmul(work.inputs, x[:-1], out=z)
        z += x[-1]
        z *= work.signs
        np.negative(z, out=work.losses)
        np.logaddexp(0, work.losses, out=work.losses)
        loss = float(work.losses.mean(dtype=np.float64))
        # df/dscore = -y sigmoid(-z), and log sigmoid(-z) = -log(1 + exp(z))
        np.logaddexp(0, z, out=z)
        np.negative(z, out=z)
        np.exp(z, out=z)
        z *= work.signs
        z /= -len(z)
        np.matmul(z, work.inputs, out=out[:-1])
        out[-1] = z.sum()
        if self._regularization > 0:
            axpy(self._regularization, x, out, self._scratch)  # out <- out + c x
        if ready is not None:
            ready(slice(0, self.dimension))
        return loss + self._penalty(x)

    @np.errstate(over="ignore", invalid="ignore", under="ignore")
    def evaluate(self, x: Array) -> Judgment:
        """Evaluate a model by all training samples and by the held-out ones."""
        data, x = self._data, host(x)
        loss, correct = 0.0, 0
        for part, scores in _scores(x, data.inputs):
            margins = self._signs[part] * scores
            loss += float(np.logaddexp(0, -margins).sum(dtype=np.float64))
        for part, scores in _scores(x, data.held_inputs):
            correct += int(np.sum((scores > 0) == data.held_labels[part]))
        return Judgment(
            loss=loss / self.samples + self._penalty(x),
            accuracy=correct / len(data.held_labels),
        )

    def _penalty(self, x: Array) -> float:
        return 0.5 * self._regularization * float(np.dot(x, x))

    def _workspace(self, batch: int) -> _Workspace:
        if batch not in self._workspaces:
            xp = self._device.xp
            self._workspaces[batch] = _Workspace(
                xp.zeros(batch, np.int64),
                xp.empty((batch, self.dimension - 1), self.dtype),
                *(xp.empty(batch, self.dtype) for _ in range(3)),
            )
        return self._workspaces[batch]


def _scores(x: Array, inputs: Array) -> Iterator[tuple[slice, Array]]:
    """Yield positions and scores of `CHUNK` samples at a time."""
    for start in range(0, len(inputs), CHUNK):
        part = slice(start, start + CHUNK)
        yield part, inputs[part] @ x[:-1] + x[-1]


def _two_classes(data: Data, file: str) -> Data:
    """Return data with labels 0 and 1; without a file, of parity where more exist."""
    if data.classes == 2:
        return data
    if file:
        raise ConfigError(
            f"{file} has {data.classes} classes and the problem logistic separates "
            "two; use softmax, which reads the same file"
        )
    return replace(
        data, labels=data.labels % 2, held_labels=data.held_labels % 2, classes=2
    )
