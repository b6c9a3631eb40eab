"""Medians with honest intervals: no normality assumed, no interval from too few runs.

Sources: T. Hoefler, R. Belli, "Scientific benchmarking of parallel computing systems",
SC 2015, rules 4 to 8; J.-Y. Le Boudec, *Performance Evaluation of Computer and
Communication Systems*, 2010, chapter 2 (order statistics, bootstrap).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

CONFIDENCE = 0.95
MIN_RUNS = 6
"""Fewest values whose smallest and largest enclose the median with 95 % confidence."""
RESAMPLES = 10_000
BOOTSTRAP_SEED = 20_151_115


@dataclass(frozen=True)
class Estimate:
    """A median (or a ratio of medians) and how far it can be trusted.

    Attributes
    ----------
    value : float
        The median.
    low, high : float
        Bounds of the confidence interval; of the range seen where `confidence` is None.
    count : int
        Values it stands on (for a ratio: the smaller of the two counts).
    confidence : float or None
        Level of the interval, 0.95; None where there are too few values for one.
    """

    value: float
    low: float
    high: float
    count: int
    confidence: float | None


def median(values: Sequence[float]) -> float:
    """Return the median of at least one value.

    Raises
    ------
    ValueError
        Without any value.
    """
    return quantile(values, 0.5)


def quantile(values: Sequence[float], fraction: float) -> float:
    """Return the quantile at `fraction` in [0, 1], linear between order statistics.

    Raises
    ------
    ValueError
        Without any value.
    """
    if not len(values):
        raise ValueError("a quantile needs at least one value; none was given")
    with np.errstate(invalid="ignore"):  # between two infinities there is no number
        return float(np.quantile(np.asarray(values, dtype=np.float64), fraction))


def median_ranks(
    count: int, *, confidence: float = CONFIDENCE
) -> tuple[int, int] | None:
    """Return the ranks (from 1) of the sorted values that enclose the median.

    The widest j with 1 - 2 sum_{i<j} C(n, i) / 2^n >= confidence gives the ranks
    (j, n + 1 - j), exact for any continuous distribution; None where even j = 1 is not
    enough, at 95 % below 6 values.
    """
    outside, found = 0, 0
    for j in range(1, count // 2 + 1):
        outside += comb(count, j - 1)
        if 1.0 - 2.0 * outside / 2**count < confidence:
            break
        found = j
    return (found, count + 1 - found) if found else None


def median_interval(
    values: Sequence[float], *, confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """Return the order-statistics confidence interval of the median, or None."""
    ranks = median_ranks(len(values), confidence=confidence)
    if ranks is None:
        return None
    ordered = sorted(values)
    return float(ordered[ranks[0] - 1]), float(ordered[ranks[1] - 1])


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return the median with its interval, or with the range below `MIN_RUNS` values.

    None where there is no value at all.
    """
    if not len(values):
        return None
    interval = median_interval(values)
    low, high = interval if interval else (float(min(values)), float(max(values)))
    level = CONFIDENCE if interval else None
    return Estimate(median(values), low, high, len(values), level)


def ratio_of_medians(
    numerator: Sequence[float],
    denominator: Sequence[float],
    *,
    resamples: int = RESAMPLES,
    seed: int = BOOTSTRAP_SEED,
) -> Estimate | None:
    """Return median(numerator) / median(denominator) with a percentile bootstrap.

    Runs are resampled within each side on their own. Below `MIN_RUNS` runs on either
    side there is no interval: the bounds are then the extreme ratios of single runs.
    None where a side is empty or the denominator's median is zero.

    Parameters
    ----------
    numerator, denominator : sequence of float
        One value per run, of the same unit.
    resamples : int
        Bootstrap samples.
    seed : int
        Seed of the resampling: the same runs always give the same interval.
    """
    count = min(len(numerator), len(denominator))
    if not count or median(denominator) == 0.0 or min(denominator) <= 0.0:
        return None
    value = median(numerator) / median(denominator)
    if count < MIN_RUNS:
        low = min(numerator) / max(denominator)
        high = max(numerator) / min(denominator)
        return Estimate(value, low, high, count, None)
    stream = np.random.default_rng(seed)
    ratios = _resampled_medians(numerator, resamples, stream) / _resampled_medians(
        denominator, resamples, stream
    )
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(ratios, [tail, 1.0 - tail])
    return Estimate(value, float(low), float(high), count, CONFIDENCE)


def _resampled_medians(
    values: Sequence[float], resamples: int, stream: np.random.Generator
) -> np.ndarray:
    """Return the medians, shape (resamples,), of samples drawn with replacement."""
    pool = np.asarray(values, dtype=np.float64)
    drawn = stream.integers(0, pool.size, size=(resamples, pool.size))
    return np.asarray(np.median(pool[drawn], axis=1))
