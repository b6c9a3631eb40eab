"""A straight line through times over sizes: what an empty one takes, and the rate.

Sizes and times span many powers of ten, so what counts is how far each time is off
relative to itself; and single sizes may be far off (protocols and caches change), so
residuals beyond the usual weigh less (P. Huber, "Robust estimation of a location
parameter", Annals of Mathematical Statistics 35, 1964).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROUNDS = 50
"""Weights are found in turns with the line; they settle long before."""

USUAL = 1.345 * 1.4826
"""Times the median residual: up to there residuals count in full. For normal noise
the line is then 95 % as sure as that of least squares."""

SMALLEST = 1e-6
"""Relative residual below which all are equally good."""

BITS = 8


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
    columns = np.stack([1 / t, np.asarray(sizes) / t], axis=1)
    weights = np.ones(len(t))
    for _ in range(ROUNDS):
        found = _bounded(columns, weights)
        off = np.abs(columns @ found - 1)
        usual = max(USUAL * float(np.median(off)), SMALLEST)
        weights = usual / np.maximum(off, usual)
    seconds, per_byte = found.tolist()
    rate = BITS / per_byte if per_byte else 0.0
    return Line(seconds, rate, float(np.median(off)), float(off.max()))


def _bounded(
    columns: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Solve ``columns @ (seconds, per_byte) = 1`` by weighted least squares, above 0.

    Where the best line has one coefficient below 0, the best allowed one has it at 0.
    """
    root = np.sqrt(weights)[:, None]
    scale = np.linalg.norm(columns, axis=0)  # the two are of very different size
    both = (root * columns / scale, root[:, 0])
    found: NDArray[np.float64] = np.linalg.lstsq(*both, rcond=None)[0] / scale
    if (found >= 0).all():
        return found
    kept = int(np.argmax(found >= 0))
    alone = columns[:, kept]
    found = np.zeros(2)
    found[kept] = (weights @ alone) / (weights @ alone**2)
    return found
