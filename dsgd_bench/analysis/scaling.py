"""Do more workers need fewer steps? Excess loss against the gradients of all workers.

With a learning rate of c sqrt(n / K) for n workers and K steps each, theory has the
excess loss, on average over the run, fall as 1 / sqrt(n K) once K is large enough: who
took the n K gradients makes no difference, which is linear speedup (X. Lian et al.,
NeurIPS 2017, arXiv:1705.09056, for the squared length of gradients).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

import numpy as np

from dsgd_bench.analysis import labels
from dsgd_bench.analysis.rows import Measure, Row
from dsgd_bench.analysis.statistics import Estimate, estimate

CONDITIONS = ("ranks", "budget.", "optimizer.lr")
"""Beginnings of the settings that may differ along a curve and between curves."""

OCTAVE = 2
"""Least ratio of most to fewest gradients of a curve: less tells no slope."""


def of_average(row: Row) -> float | None:
    """Return the excess loss of the average model."""
    return row.quality.excess


def of_own(row: Row) -> float | None:
    """Return the excess loss of the workers' own models, on average."""
    return row.quality.own_excess


@dataclass(frozen=True)
class Curve:
    """The runs of one algorithm on one number of workers, fewest gradients first.

    Attributes
    ----------
    algorithm : str
        Kind and settings, and whatever else the study varies.
    workers : int
        Ranks that compute gradients.
    rows : tuple of Row
        All with an `excess` above 0.
    """

    algorithm: str
    workers: int
    rows: tuple[Row, ...]

    @property
    def gradients(self) -> tuple[int, ...]:
        """Gradients of all workers together, one number per run."""
        return tuple(row.times.gradients for row in self.rows)

    def excess(self, of: Measure) -> tuple[float, ...]:
        """Return `of_average` or `of_own`, one number per run."""
        return tuple(of(row) or 0.0 for row in self.rows)

    def slope(self, of: Measure) -> float:
        """Return the exponent of a power law through `of_average` or `of_own`.

        By least squares, both axes logarithmic.
        """
        found = np.polyfit(np.log(self.gradients), np.log(self.excess(of)), 1)
        return float(found[0])

    def steps_to(self, excess: float) -> float | None:
        """Return the steps per worker with which the average model has this excess.

        Between two runs by a power law; None where runs ended above it, or all below.
        """
        found = self._at(excess, self.gradients)
        return None if found is None else found / self.workers

    def seconds_to(self, excess: float) -> float | None:
        """Return the time that such a run takes, by the same rule."""
        return self._at(excess, [row.quality.curve[-1][0] for row in self.rows])

    def _at(self, excess: float, values: Sequence[float]) -> float | None:
        known = sorted(zip(self.excess(of_average), values, strict=True))
        if not known[0][0] <= excess <= known[-1][0]:
            return None
        at, found = np.log(known).T
        return exp(float(np.interp(log(excess), at, found)))


def curves(rows: Sequence[Row]) -> list[Curve]:
    """Return the curves of a study, by algorithm in order of appearance, then workers.

    Empty where it does not vary both the workers and the gradients, or where the lowest
    loss is unknown.
    """
    known = [
        row
        for row in rows
        if (row.quality.excess or 0.0) > 0.0
        and (row.quality.own_excess or 0.0) > 0.0
        and row.quality.curve
    ]
    varying = [
        name
        for name in labels.differing([row.trial.factors for row in known])
        if not name.startswith(CONDITIONS)
    ]
    found: dict[tuple[str, int], list[Row]] = {}
    for row in known:
        words = (row.trial.label, labels.chosen(row.trial.factors, varying))
        name = ", ".join(word for word in words if word)
        found.setdefault((name, row.trial.workers), []).append(row)
    names = list(dict.fromkeys(name for name, _ in found))
    drawn = [
        Curve(name, workers, tuple(sorted(same, key=lambda row: row.times.gradients)))
        for (name, workers), same in sorted(
            found.items(), key=lambda item: (names.index(item[0][0]), item[0][1])
        )
    ]
    drawn = [each for each in drawn if _is_long(each)]
    return drawn if len({each.workers for each in drawn}) > 1 else []


def reference(among: Sequence[Curve]) -> Curve:
    """Return the curve that others are compared with: the first of fewest workers."""
    return min(among, key=lambda each: each.workers)


def target(among: Sequence[Curve]) -> float:
    """Return the excess at which speedup is read: halfway down the reference's."""
    excess = reference(among).excess(of_average)
    return exp((log(max(excess)) + log(min(excess))) / 2)


def speedup(curve: Curve, among: Sequence[Curve], what: str) -> float | None:
    """Return how many times fewer ``steps`` per worker, or less ``seconds``, it needs.

    Than the reference, for the average model at the same excess; None where a curve
    does not pass through it.
    """
    excess, base = target(among), reference(among)
    if what == "steps":
        theirs, ours = base.steps_to(excess), curve.steps_to(excess)
    else:
        theirs, ours = base.seconds_to(excess), curve.seconds_to(excess)
    return theirs / ours if theirs and ours else None


def slopes(same: Sequence[Curve], of: Measure) -> Estimate | None:
    """Return the median of the slopes of some curves, with its interval."""
    return estimate([curve.slope(of) for curve in same])


def _is_long(curve: Curve) -> bool:
    return curve.gradients[-1] >= OCTAVE * curve.gradients[0]
