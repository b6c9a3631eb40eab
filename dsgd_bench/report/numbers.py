"""How a number looks in a table: three digits, its interval, and a dash for none.

A trace that fails verification is still shown, so any number may come: infinities, and
NaN where two of them met.
"""

import math

from dsgd_bench.analysis.statistics import Estimate

TIMES = "\N{MULTIPLICATION SIGN}"
DASH = "\N{EN DASH}"
NONE = DASH


def number(value: float | None) -> str:
    """Return three significant digits: "0.0412", "4.21", "1204", "3.1e-05"."""
    if value is None:
        return NONE
    size = abs(value)
    if value == 0.0 or size >= 999.5:
        return f"{value:.0f}" if size < 1e6 else f"{value:.3g}"
    if size < 1e-3:
        return f"{value:.1e}"
    return f"{value:#.3g}".removesuffix(".")


def percent(share: float | None) -> str:
    """Return a share as whole percent; "<1" for a trace of it."""
    if share is None or not math.isfinite(share):
        return NONE
    if 0.0 < share < 0.005:
        return "<1"
    return str(round(100.0 * share))


def estimated(found: Estimate | None) -> str:
    """Return "4.21 [4.15, 4.30]"; a range of too few runs as "4.21 (4.15 to 4.30)"."""
    if found is None:
        return NONE
    low, high = number(found.low), number(found.high)
    if found.confidence is not None:
        return f"{number(found.value)} [{low}, {high}]"
    if found.count == 1 or low == high:
        return number(found.value)
    return f"{number(found.value)} ({low}{DASH}{high})"


def faster(ratio: Estimate | None) -> str:
    """Return a ratio of times in words: "1.39 x faster [1.33, 1.45]", "equal"."""
    if ratio is None:
        return NONE
    if number(ratio.value) == "1.00":
        return estimated(ratio).replace("1.00", "equal", 1)
    if ratio.value > 1.0:
        return estimated(ratio).replace(" ", f" {TIMES} slower ", 1) + _bare(
            ratio, "slower"
        )
    # Time over time below one is a speed above one, and the bounds change places.
    value, low, high = map(_inverse, (ratio.value, ratio.high, ratio.low))
    inverse = Estimate(value, low, high, ratio.count, ratio.confidence)
    return estimated(inverse).replace(" ", f" {TIMES} faster ", 1) + _bare(
        inverse, "faster"
    )


def _inverse(value: float) -> float:
    """Return one over a number; of zero, what it tends to."""
    return 1.0 / value if value else math.inf


def _bare(ratio: Estimate, word: str) -> str:
    """Return the words for a ratio that is printed without bounds."""
    return "" if " " in estimated(ratio) else f" {TIMES} {word}"
