"""A straight line through times over sizes: what an empty one takes, and the rate.

Sizes and times span many powers of ten, so what counts is the ratio of line and time,
twice as long as bad as half; and single sizes may be far off (protocols and caches
change), so ratios beyond the usual weigh less (P. Huber, "Robust estimation of a
location parameter", Annals of Mathematical Statistics 35, 1964).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROUNDS = 100
"""Steps of Gauss and Newton, weights in turns with the line; it settles long before."""

USUAL = 1.345 * 1.4826
"""Times the median residual: up to there residuals count in full. For normal noise
the line is then 95 % as sure as that of least squares."""

LONGEST_STEP = 0.9
"""Share of its value by which the line may fall in a step: it stays above 0."""

SMALLEST = 1e-6
"""Residual below which all are equally good."""

BITS = 8

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """``t(m) = seconds + 8 m / rate``, of m bytes.

    Attributes
    ----------
    seconds : float
        Of an empty one.
    rate : float
        Bit/s; 0 where size makes no difference.
    residual_median, residual_max : float
        Distance of the times from the line, relative to the times.
    """

    seconds: float
    rate: float
    residual_median: float
    residual_max: float


def line(sizes: Sequence[int], times: Sequence[float]) -> Line:
    """Fit the line; neither an empty one nor a byte can take less than nothing.

    Parameters
    ----------
    sizes : sequence of int
        Bytes. Of a single size no rate can be seen.
    times : sequence of float
        Seconds, above 0.
    """
    if len(set(sizes)) == 1:
        return Line(float(np.median(times)), 0.0, 0.0, 0.0)
    t = np.asarray(times, float)
    columns = np.stack([np.ones(len(t)), np.asarray(sizes, float)], axis=1)
    weights, fitted, off = np.ones(len(t)), t, np.zeros(len(t))
    for _ in range(ROUNDS):
        # log t = log fitted + d fitted / fitted, and fitted is linear
        target = 1 + np.maximum(off, -LONGEST_STEP)
        found = _bounded(columns / fitted[:, None], target, weights)
        fitted = columns @ found
        off = np.log(t / fitted)
        usual = max(USUAL * float(np.median(np.abs(off))), SMALLEST)
        weights = usual / np.maximum(np.abs(off), usual)
    seconds, per_byte = found.tolist()
    rate = BITS / per_byte if per_byte else 0.0
    apart = np.abs(fitted / t - 1)
    return Line(seconds, rate, float(np.median(apart)), float(apart.max()))


def _bounded(columns: Vector, target: Vector, weights: Vector) -> Vector:
    """Solve ``columns @ (seconds, per_byte) = target``, weighted, neither below 0.

    Where the best line has one coefficient below 0, the best allowed one has it at 0.
    """
    root = np.sqrt(weights)
    scale = np.linalg.norm(columns, axis=0)  # the two are of very different size
    scaled = root[:, None] * columns / scale
    found: Vector = np.linalg.lstsq(scaled, root * target, rcond=None)[0] / scale
    if (found >= 0).all():
        return found
    kept = int(np.argmax(found >= 0))
    alone = columns[:, kept]
    found = np.zeros(2)
    found[kept] = (weights * alone) @ target / (weights @ alone**2)
    return found
