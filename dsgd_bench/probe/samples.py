"""What was asked of the probe, and how one operation is timed over all sizes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.errors import ConfigError
from dsgd_bench.probe import fit
from dsgd_bench.spec.machine_profile import Measured

ITEM = 4
"""Bytes of an element: models are float32."""

LIMIT = 0.2
"""Seconds that one size of one operation may take; large ones are timed less often."""

FEWEST = 5
"""But so often at least."""

TRIES = 3
"""Calls by the quickest of which the number of those that count is chosen."""

SMALL = 1024
"""Bytes up to which the time that starting takes is an operation's overhead."""

Sample: TypeAlias = tuple[float, float]
"""Seconds until the starting call has returned, and until all is done."""


@dataclass(frozen=True)
class ProbeOptions:
    """What ``dsgd-bench probe`` was asked.

    Attributes
    ----------
    sizes : tuple of int
        Bytes, two at least.
    iterations, warm_up : int
        Samples that count, where they are quick, and that come before.
    percentiles : tuple of float
        Printed beside the median.
    full : bool
        Whether minimum, maximum and number of samples are printed.
    output : Path
        Where the profile goes.

    Raises
    ------
    ConfigError
        For sizes through which there is no line.
    """

    sizes: tuple[int, ...]
    iterations: int
    warm_up: int
    percentiles: tuple[float, ...]
    full: bool
    output: Path

    def __post_init__(self) -> None:
        if len(self.lengths) < 2:
            raise ConfigError(
                f"-m asks for {len(self.lengths)} size of whole float32 numbers: ask "
                "for two at least, as MIN:MAX, to tell latency from bandwidth"
            )

    @property
    def lengths(self) -> tuple[int, ...]:
        """Elements of the vectors that have these sizes."""
        return tuple(dict.fromkeys(max(1, size // ITEM) for size in self.sizes))


@dataclass(frozen=True)
class Series:
    """One operation over all sizes.

    Attributes
    ----------
    sizes : tuple of int
        Bytes.
    samples : list of array of shape (count, 2)
        A `Sample` per row, for every size.
    """

    sizes: tuple[int, ...]
    samples: list[NDArray[np.float64]]

    def measured(self) -> Measured:
        """Return what goes into the profile."""
        whole = [samples[:, 1] for samples in self.samples]
        medians, p10, p90 = (
            tuple(float(np.quantile(times, fraction)) for times in whole)
            for fraction in (0.5, 0.1, 0.9)
        )
        starts = [
            float(np.median(samples[:, 0]))
            for size, samples in zip(self.sizes, self.samples, strict=True)
            if size <= max(SMALL, self.sizes[0])
        ]
        line = fit.line(self.sizes, medians)
        return Measured(
            self.sizes,
            medians,
            p10,
            p90,
            samples=tuple(map(len, self.samples)),
            seconds=line.seconds,
            rate=line.rate,
            overhead=float(np.median(starts)),
            residual_median=line.residual_median,
            residual_max=line.residual_max,
        )


def by_length(
    lengths: Sequence[int], time: Callable[[int], NDArray[np.float64]]
) -> Series:
    """Return the series of an operation that takes `time` of so many elements."""
    return Series(tuple(n * ITEM for n in lengths), [time(n) for n in lengths])


def sampled(
    once: Callable[[], Sample],
    options: ProbeOptions,
    agree: Callable[[int], int] = int,
) -> NDArray[np.float64]:
    """Call `once` until there are enough samples; return them, shape (count, 2).

    Parameters
    ----------
    once : callable
        Does it once and returns what it took.
    options : ProbeOptions
        How often.
    agree : callable, optional
        Turns this rank's count into that of all ranks that take part.
    """
    quickest = min(once()[1] for _ in range(TRIES))
    affordable = max(FEWEST, round(LIMIT / quickest))
    count = agree(min(options.iterations, affordable))
    for _ in range(options.warm_up if count > FEWEST else 0):  # else the tries suffice
        once()
    return np.array([once() for _ in range(count)])
