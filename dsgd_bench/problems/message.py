"""No problem at all: a model of a given size, for runs that measure communication.

The gradient is zero and costs nothing. So that even that much memory is left untouched,
`gradient` does not write its output: callers hand in a buffer of zeros.
"""

# ruff: noqa: ARG002 (every problem takes the same arguments; this one needs none)

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.arrays import HOST, Array, Host
from dsgd_bench.problems.base import Judgment, Ready, at_least, dtype_of
from dsgd_bench.spec.ranges import Count, Many


class Message:
    """A model that is only sent around; see `Problem` for the methods.

    Parameters
    ----------
    dimension : int
        Elements of the model.
    samples : int
        Samples that count as one epoch; there is no data.
    seed : int
        Not used: the first model is zero for every seed.
    dtype : str
        ``"float32"`` or ``"float64"``.
    device : Host
        Where the model lies.

    Raises
    ------
    ConfigError
        For settings that cannot be.
    """

    def __init__(
        self,
        *,
        dimension: Count = 1_000_000,
        samples: Many = 65_536,
        seed: int = 0,
        dtype: str = "float32",
        device: Host = HOST,
    ) -> None:
        at_least(1, dimension=dimension, samples=samples)
        self.dimension = dimension
        self.dtype = dtype_of(dtype)
        self.samples = samples
        self.data_bytes = 0
        self.labels: NDArray[np.int64] | None = None
        self.optimum: float | None = None
        self._device = device

    def initial(self) -> Array:
        """Return the first model, zero, as a new array."""
        return self._device.put(np.zeros(self.dimension, self.dtype))

    def gradient(
        self,
        x: Array,
        indices: NDArray[np.intp],
        out: Array,
        ready: Ready | None = None,
    ) -> float:
        """Leave `out`, which the caller made of zeros, alone; return the loss, zero."""
        if ready is not None:
            ready(slice(0, self.dimension))
        return 0.0

    def evaluate(self, x: Array) -> Judgment:
        """Return a loss of zero; there is no accuracy."""
        return Judgment(loss=0.0, accuracy=float("nan"))
