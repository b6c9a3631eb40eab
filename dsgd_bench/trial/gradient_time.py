"""How long gradients are made to take: a time each, a distribution, or a real run's.

Every time is a pure function of (seed, rank, step), so all algorithms of a repeat meet
the same ones. Slowdowns come on top.
"""

import math
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dsgd_bench import rng
from dsgd_bench.errors import TraceError
from dsgd_bench.io import user_text
from dsgd_bench.spec.trial import ComputeSpec
from dsgd_bench.trace import open_trace

Times = NDArray[np.float64]
"""Seconds that the gradients of one rank took, shape (gradients,)."""


class GradientTimes(Protocol):
    """What the gradients of one rank take at least."""

    def seconds(self, step: int) -> float:
        """Return the seconds of the rank's gradient in `step`; 0 asks for nothing."""


class Constant:
    """Always the same."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def seconds(self, step: int) -> float:  # noqa: ARG002 (as `GradientTimes` has it)
        """Return the seconds of every step."""
        return self._seconds


class Drawn:
    """Drawn anew for every step, from a distribution of given mean and variation.

    Lognormal with sigma^2 = ln(1 + v^2) and mu = ln(mean) - sigma^2 / 2, or gamma with
    shape 1 / v^2 and scale mean v^2: both have the standard deviation v mean.
    """

    def __init__(self, spec: ComputeSpec, *, seed: int, rank: int) -> None:
        mean, variance = spec.seconds, spec.variation**2
        sample: rng.Sample
        if spec.distribution == "lognormal":
            sigma = math.sqrt(math.log1p(variance))
            mu = math.log(mean) - sigma**2 / 2
            sample = lambda random, count: random.lognormal(mu, sigma, count)  # noqa: E731
        else:
            shape, scale = 1 / variance, mean * variance
            sample = lambda random, count: random.gamma(shape, scale, count)  # noqa: E731
        self._draws = rng.Draws(seed, "gradient-time", rank, sample)

    def seconds(self, step: int) -> float:
        """Return the seconds of one step."""
        return self._draws[step]


class Resampled:
    """Drawn, with replacement, from times that were measured."""

    def __init__(self, times: Times, *, seed: int, rank: int) -> None:
        self._times = times
        self._draws = rng.Draws(seed, "gradient-time", rank)

    def seconds(self, step: int) -> float:
        """Return the seconds of one step."""
        return self._times.item(int(self._draws[step] * len(self._times)))


class Replayed:
    """Those of a run, step by step; where there are more steps, from the first on.

    Parameters
    ----------
    times : Times
        Seconds, shape (gradients,).
    """

    def __init__(self, times: Times) -> None:
        self._times = times

    def seconds(self, step: int) -> float:
        """Return the seconds of one step."""
        return self._times.item(step % len(self._times))


def of(spec: ComputeSpec, *, seed: int, rank: int) -> GradientTimes:
    """Return the gradient times of one rank.

    Parameters
    ----------
    spec : ComputeSpec
        What a trial says about computing.
    seed, rank : int
        Address of the random numbers.

    Raises
    ------
    TraceError
        If they are to come from a trace that cannot be read, or has none.
    """
    if spec.mode == "resampled":
        measured = _measured(spec.trace)
        return Resampled(measured[rank % len(measured)], seed=seed, rank=rank)
    if spec.distribution == "constant":
        return Constant(spec.seconds)
    return Drawn(spec, seed=seed, rank=rank)


def mean(spec: ComputeSpec) -> float:
    """Return the mean seconds of a gradient; 0 where computing is only measured.

    Raises
    ------
    TraceError
        As `of` does.
    """
    if spec.mode == "resampled":
        return float(np.mean([times.mean() for times in _measured(spec.trace)]))
    return spec.seconds


@lru_cache(maxsize=2)  # thousands of ranks in one process draw from the same ones
def _measured(path: str) -> tuple[Times, ...]:
    """Return what gradients took in a trace, worker by worker; its slowdowns aside."""
    if user_text.is_there(Path(path)) and not Path(path).is_file():
        raise TraceError(
            f"{path} is a folder, a FIFO or a device, from which no gradient times are "
            "drawn: name a trace that dsgd-bench run has written"
        )
    trace = open_trace(path)
    compute, serves = trace["compute"], trace["serves"]
    workers = [row[np.isfinite(row) & (row > 0)] for row in compute[serves == 0]]
    if not workers or min(map(len, workers)) == 0:
        raise TraceError(
            f"{path} has a worker without a gradient that took any time: name the "
            "trace of a run in which all took steps"
        )
    return tuple(workers)
