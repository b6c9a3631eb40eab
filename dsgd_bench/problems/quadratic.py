"""A quadratic bowl around every sample: the optimum is known exactly.

Formula   f(x) = mean over samples s of 1/2 sum_d h_d (x_d - c_sd)^2
               = f* + 1/2 sum_d h_d (x_d - m_d)^2,  m = mean of the centers c_s
Model     x, shape (dimension,); h_d falls evenly on a log scale from 1 to
          1 / conditioning, so plain gradient descent is stable for lr < 2
Start     x = 0; m is normal with variance 1 in every coordinate
Optimum   f* = 1/2 sum_d h_d var(c_d), at x = m; `spread` is the standard deviation of
          the centers around m, so spread = 0 makes every gradient exact
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsgd_bench import rng
from dsgd_bench.arrays import HOST, Array, Host, host, load
from dsgd_bench.arrays.layers import gather
from dsgd_bench.problems.base import Judgment, Ready, at_least, dtype_of, fits
from dsgd_bench.spec.ranges import Count, NotNegative, Ratio


@dataclass(frozen=True)
class _Workspace:
    """Room for one batch of centers, and the weights of a mean over it."""

    indices: NDArray[np.int64]
    offsets: Array
    mean: Array


class Quadratic:
    """Least squares around random centers; see `Problem` for the methods.

    Parameters
    ----------
    dimension : int
        Elements of the model.
    samples : int
        Centers; they take ``samples * dimension`` elements of memory on every rank.
    conditioning : float
        Largest curvature divided by the smallest, at least 1.
    spread : float
        Standard deviation of the centers around their mean.
    seed : int
        Seed of the centers; the first model is zero for every seed.
    dtype : str
        ``"float32"`` or ``"float64"``.
    device : Host
        Where to compute.

    Raises
    ------
    ConfigError
        For settings that cannot be.
    """

    def __init__(  # noqa: PLR0913 (every setting is an argument)
        self,
        *,
        dimension: Count = 100,
        samples: Count = 1000,
        conditioning: Ratio = 10.0,
        spread: NotNegative = 1.0,
        seed: int = 0,
        dtype: str = "float32",
        device: Host = HOST,
    ) -> None:
        at_least(1, dimension=dimension, samples=samples, conditioning=conditioning)
        at_least(0, spread=spread)
        self.dimension = dimension
        self.dtype = dtype_of(dtype)
        nbytes = samples * dimension * self.dtype.itemsize
        fits(nbytes, dimension=dimension, samples=samples)
        self.samples = samples
        self.labels: NDArray[np.int64] | None = None
        random = rng.generator(seed, "data")
        middle = random.standard_normal(dimension).astype(self.dtype)
        self._centers = random.standard_normal((samples, dimension), self.dtype.type)
        self.data_bytes = self._centers.nbytes
        self._centers *= spread
        self._centers += middle
        h = np.geomspace(1.0, 1.0 / conditioning, dimension)
        self._h: Array = h.astype(self.dtype)
        self._mean: NDArray[np.float64] = self._centers.mean(axis=0, dtype=np.float64)
        variance = self._centers.var(axis=0, dtype=np.float64)
        self._lowest = 0.5 * float(self._h @ variance)
        self.optimum: float | None = self._lowest
        self._device = device
        if device.kind != "cpu":
            self._centers, self._h = device.put(self._centers), device.put(self._h)
        self._workspaces: dict[int, _Workspace] = {}

    def solution(self) -> NDArray[np.float64]:
        """Return the model of lowest loss, shape (dimension,), in double precision."""
        return self._mean.copy()

    def initial(self) -> Array:
        """Return the first model, zero, as a new array."""
        return self._device.put(np.zeros(self.dimension, self.dtype))

    @np.errstate(over="ignore", invalid="ignore")
    def gradient(
        self,
        x: Array,
        indices: NDArray[np.intp],
        out: Array,
        ready: Ready | None = None,
    ) -> float:
        """Write the mean gradient over `indices` into `out`; return the mean loss."""
        work = self._workspace(len(indices))
        if self._device.kind != "cpu":
            load(np.asarray(indices, np.int64), work.indices)
            indices = work.indices
        offsets, mean = work.offsets, work.mean
        gather(self._centers, indices, offsets)
        np.subtract(x, offsets, out=offsets)
        np.matmul(mean, offsets, out=out)
        out *= self._h
        if ready is not None:
            ready(slice(0, self.dimension))
        np.square(offsets, out=offsets)
        return 0.5 * float(mean @ (offsets @ self._h))

    @np.errstate(over="ignore", invalid="ignore")
    def evaluate(self, x: Array) -> Judgment:
        """Evaluate a model by the formula: exact, and never below the optimum."""
        h = host(self._h)
        excess = 0.5 * float(h @ np.square(host(x) - self._mean))
        return Judgment(loss=self._lowest + excess, accuracy=float("nan"))

    def _workspace(self, batch: int) -> "_Workspace":
        if batch not in self._workspaces:
            xp = self._device.xp
            self._workspaces[batch] = _Workspace(
                indices=xp.zeros(batch, np.int64),
                offsets=xp.empty((batch, self.dimension), self.dtype),
                mean=xp.full(batch, 1 / batch, self.dtype),
            )
        return self._workspaces[batch]
