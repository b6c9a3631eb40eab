"""Simulated runs beside the measured ones they foretell, and how far off they are.

A *pair* is one point of a study, once measured and once simulated. All settings are
equal but the network, which only a simulated trial names, and, where gradient times are
resampled from a real run, how long computing takes.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsgd_bench.analysis.comparison import Line
from dsgd_bench.analysis.statistics import median, ratio_of_medians
from dsgd_bench.analysis.summary import Group

RESAMPLED = "resampled"


@dataclass(frozen=True)
class Pair:
    """One point, measured and simulated.

    Attributes
    ----------
    measured, simulated : Line
        The same point in either table.
    """

    measured: Line
    simulated: Line

    @property
    def case(self) -> str:
        """What else the study varies; with the network, where that varies."""
        return self.simulated.case

    @property
    def error(self) -> float | None:
        """Simulated over measured time per epoch, of medians, less 1."""
        epochs = (
            x.group.values(lambda row: row.times.per_epoch)
            for x in (self.simulated, self.measured)
        )
        found = ratio_of_medians(*epochs)
        return found.value - 1.0 if found else None

    @property
    def distance(self) -> float | None:
        """Kolmogorov-Smirnov distance of staleness, 0 to 1; None where there is none.

        The largest difference between the shares of gradients that are at most so
        stale, all runs of a side together.
        """
        values, one, other = shares(self.measured.group, self.simulated.group)
        return float(np.abs(one - other).max()) if values.size else None


@dataclass(frozen=True)
class Errors:
    """How far the times per epoch of some pairs are off.

    Attributes
    ----------
    median, worst : float
        Of the errors' sizes.
    pair : Pair
        Whose is the worst.
    count : int
        Pairs that have one.
    """

    median: float
    worst: float
    pair: Pair
    count: int


def pairs(lines: Iterable[tuple[Path, Line]]) -> list[Pair]:
    """Return what was both measured and simulated, in the order of the simulated.

    Parameters
    ----------
    lines : iterable of (Path, Line)
        Points, and the folders of their studies: only those of one are compared.
    """
    known: dict[object, list[Line]] = {}
    simulated: list[tuple[Path, Line]] = []
    for folder, line in lines:
        if line.group.first.fabric == "virtual":
            simulated.append((folder, line))
        else:
            for free in (False, True):
                point = (folder, *_point(line, computing=free))
                known.setdefault(point, []).append(line)
    found = []
    for folder, line in simulated:
        resampled = line.group.first.trial.factors.get("compute.mode") == RESAMPLED
        measured = known.get((folder, *_point(line, computing=resampled)), [])
        if len(measured) == 1:  # else nobody knows which of them is foretold
            found.append(Pair(measured[0], line))
    return found


def errors(found: Sequence[Pair]) -> Errors | None:
    """Return how far some pairs are off; None where none has times per epoch."""
    sizes = [(abs(pair.error), pair) for pair in found if pair.error is not None]
    if not sizes:
        return None
    worst, pair = max(sizes, key=lambda each: each[0])
    return Errors(median([size for size, _ in sizes]), worst, pair, len(sizes))


def shares(one: Group, other: Group) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the shares of gradients that are at most so stale, of two groups.

    Returns
    -------
    values : array, shape (v,)
        Every staleness that occurs in either, ascending; empty if one has none.
    one, other : array, shape (v,)
        The shares of either, ascending to 1.
    """
    counts = [_counts(group) for group in (one, other)]
    if not all(counts):
        return np.empty(0), np.empty(0), np.empty(0)
    values = sorted(set().union(*counts))
    sums = [np.cumsum([count[value] for value in values]) for count in counts]
    return np.array(values), sums[0] / sums[0][-1], sums[1] / sums[1][-1]


def _counts(group: Group) -> Counter[int]:
    total: Counter[int] = Counter()
    for row in group.rows:
        total.update(dict(row.staleness.counts))
    return total


def _point(line: Line, *, computing: bool) -> tuple[object, ...]:
    """Return the settings of a point that its other side shares.

    Parameters
    ----------
    computing : bool
        Whether the other side may differ in how long computing takes, too.
    """
    free = ("network", "links", "compute") if computing else ("network", "links")
    factors = line.group.first.trial.factors.items()
    kept = sorted(item for item in factors if item[0].partition(".")[0] not in free)
    return computing, *kept
