"""From a trace to one row of numbers, and from the rows of a point to one group.

A *row* is one run. A *group* is one point of the study: all runs that differ in nothing
but repeat and seed. Runs that failed stay in their group and are counted.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.analysis import labels, readings, speed
from dsgd_bench.analysis.origin import Origin
from dsgd_bench.analysis.rows import (
    Asked,
    Measure,
    Row,
    per_epoch,
    seconds_to_target,
    shares,
)
from dsgd_bench.analysis.statistics import Estimate, estimate, median
from dsgd_bench.config import naming
from dsgd_bench.config.identity import trial_id
from dsgd_bench.slowdowns import slow_ranks

if TYPE_CHECKING:
    from dsgd_bench.spec.trial import Trial
    from dsgd_bench.trace import Trace


@dataclass(frozen=True)
class Group:
    """The runs of one point, combined: counts, medians and intervals.

    Attributes
    ----------
    rows : tuple of Row
        All runs, failed ones included, by repeat.
    """

    rows: tuple[Row, ...]

    @property
    def first(self) -> Row:
        """The run whose labels speak for all."""
        return self.rows[0]

    @property
    def reached(self) -> int:
        """How many runs met the target."""
        return sum(row.reached for row in self.rows)

    @property
    def statuses(self) -> Counter[str]:
        """How many runs ended in which way."""
        return Counter(row.status for row in self.rows)

    @property
    def times(self) -> tuple[float, ...]:
        """Seconds to the target of the runs that met it."""
        return self.values(seconds_to_target)

    @property
    def time_to_target(self) -> Estimate | None:
        """The median over the runs that met the target, seconds."""
        return estimate(self.times)

    @property
    def time_per_epoch(self) -> Estimate | None:
        """The median over all runs that took steps, seconds."""
        return estimate(self.values(per_epoch))

    @property
    def shares(self) -> dict[str, float]:
        """The share of each span in the workers' time of all runs together."""
        total: Counter[str] = Counter()
        for row in self.rows:
            total.update(dict(row.times.seconds))
        return shares(total)

    def values(self, of: Measure) -> tuple[float, ...]:
        """Return the known values of one number, one per run that has it."""
        found = (of(row) for row in self.rows)
        return tuple(float(value) for value in found if value is not None)

    def median(self, of: Measure) -> float | None:
        """Return the median of one number over the runs that have it."""
        values = self.values(of)
        return median(values) if values else None

    def maximum(self, of: Measure) -> float | None:
        """Return the largest value of one number over the runs that have it."""
        return max(self.values(of), default=None)


def summarize(trace: "Trace") -> Row:
    """Return the row of one trace, whatever it holds."""
    with np.errstate(all="ignore"):  # a damaged one has infinities
        limits = speed.limits(trace)
        return Row(
            trial=asked(trace.trial, trace.study, limits.links),
            status=trace.status,
            reason=trace.reason,
            fabric=trace.fabric,
            interruptions=len(trace.interruptions),
            provenance=trace.provenance,
            progress=trace.progress,
            origin=Origin.of(trace.provenance),
            target=readings.target(trace),
            times=readings.times(trace),
            traffic=readings.traffic(trace),
            staleness=readings.staleness(trace),
            weights=readings.weights(trace),
            quality=readings.quality(trace),
            limits=limits,
        )


def labeled(
    trial: "Trial", *, study: str, status: str, reason: str, fabric: str = ""
) -> Row:
    """Return the row of a run that left no trace, only how it ended."""
    return Row(asked(trial, study), status, reason, fabric)


def asked(trial: "Trial", study: str, links: str = "") -> Asked:
    """Return what a trial asks for, in words.

    Parameters
    ----------
    trial : Trial
        Of any version: its algorithm may be unknown.
    study : str
        Name of its study.
    links : str
        Rates of the links that it ran on: other links are another point.
    """
    factors = labels.factors(trial)
    if links:
        factors["links"] = links
    algorithm = ALGORITHMS.get(trial.algorithm.kind)
    settings = trial.algorithm.settings
    servers = algorithm.servers(settings, trial.ranks) if algorithm else 0
    return Asked(
        study=study,
        id=trial_id(trial),
        factors=factors,
        algorithm=trial.algorithm.kind,
        label=naming.label(trial.algorithm),
        slowdown=labels.slowdown(trial),
        settings=settings,
        slow=slow_ranks(trial.slowdown, trial.ranks - servers),
        slow_factor=labels.slow_factor(trial.slowdown),
        ranks=trial.ranks,
        servers=servers,
        repeat=trial.repeat,
        seed=trial.seed,
        target=labels.target(trial.measure),
    )


def combine(rows: Iterable[Row]) -> list[Group]:
    """Return one group per study and point, rows by repeat, in order of appearance."""
    found: dict[object, list[Row]] = {}
    for row in rows:
        point = tuple(sorted(row.trial.factors.items()))
        found.setdefault((row.trial.study, row.fabric, point), []).append(row)
    return [
        Group(tuple(sorted(same, key=lambda row: (row.trial.repeat, row.trial.seed))))
        for same in found.values()
    ]
