"""What a problem is: data and a model, seen as loss and gradient of one flat vector."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.arrays import Array
from dsgd_bench.errors import ConfigError

DTYPES = ("float32", "float64")
"""Names of the element types that a model may have."""

LARGEST = 2 * 2**30
"""Bytes of generated data, which every rank holds whole."""

Ready = Callable[[slice], None]
"""Called with each part of a gradient once it is final, the end of the model first."""


@dataclass(frozen=True)
class Judgment:
    """How good a model is.

    Attributes
    ----------
    loss : float
        Mean loss over all training samples, regularization included; infinite or NaN
        for a model that has diverged.
    accuracy : float
        Share of the held-out samples that are classified correctly, in [0, 1]; NaN
        where the problem has no classes.
    """

    loss: float
    accuracy: float


class Problem(Protocol):
    """Loss and gradient of one flat model; a pure function of its settings and seed.

    Model and gradient lie where the problem was told to compute, on the host or on a
    GPU, and so do its data; the numbers of samples come from the host. Random numbers
    are drawn on the host: they are the same wherever it computes.

    Attributes
    ----------
    dimension : int
        Elements of the model.
    dtype : numpy.dtype
        Element type of model and gradient.
    samples : int
        Training samples of the whole data set: one epoch.
    labels : NDArray[numpy.int64] or None
        Class of each training sample, shape (samples,); None without classes.
    data_bytes : int
        Size of the data, which every rank holds whole.
    optimum : float or None
        Lowest training loss, where it is known.
    """

    dimension: int
    dtype: np.dtype[Any]
    samples: int
    data_bytes: int
    labels: NDArray[np.int64] | None
    optimum: float | None

    def initial(self) -> Array:
        """Return the first model as a new array: the same on every rank."""

    def gradient(
        self,
        x: Array,
        indices: NDArray[np.intp],
        out: Array,
        ready: Ready | None = None,
    ) -> float:
        """Write the mean gradient over some training samples into `out`.

        Nothing of the model's size is allocated, nor, after the first call with a
        batch size, anything of the batch's. A diverged model gives infinities or NaN
        and no warning. On return everything is complete, on a GPU, too.

        Parameters
        ----------
        x : Array
            Model, shape (dimension,); read only.
        indices : NDArray[numpy.intp]
            Training samples, each in ``range(samples)``; repetitions count. The range
            is the caller's promise and not checked.
        out : Array
            Receives the gradient, shape (dimension,).
        ready : callable, optional
            Called with every part of the gradient, disjoint slices of `out` from its
            end to its start, as soon as it will not change any more; on a GPU the
            kernels that write it were started before, on this thread's stream. A
            problem whose gradient comes all at once calls it once.

        Returns
        -------
        float
            Mean loss over those samples.
        """

    def evaluate(self, x: Array) -> Judgment:
        """Evaluate a model; called while no clock runs, so it may allocate."""


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the element type called `name`; raise `ConfigError` for unknown ones."""
    if name not in DTYPES:
        raise ConfigError(f"problem.dtype is {name!r}; use one of: {', '.join(DTYPES)}")
    return np.dtype(name)


def fits(nbytes: int, **settings: int) -> None:
    """Raise `ConfigError` if generated data of these settings take too many bytes."""
    if nbytes > LARGEST:
        said = ", ".join(f"{name} = {value}" for name, value in settings.items())
        raise ConfigError(
            f"problem settings {said} ask for data of {nbytes / 2**30:.3g} GiB on "
            f"every rank, and the limit is {LARGEST / 2**30:.3g} GiB: lower one of them"
        )


def at_least(least: float, **settings: float) -> None:
    """Raise `ConfigError` for the first setting that is below `least`, or NaN."""
    for name, value in settings.items():
        if not value >= least:
            raise ConfigError(
                f"problem setting {name} is {value!r}; it must be at least {least}"
            )
