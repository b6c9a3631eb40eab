"""Simulated beside measured: how far a simulation may be trusted, as a table."""

import csv
import io
from collections.abc import Sequence

from dsgd_bench.analysis import validation
from dsgd_bench.analysis.comparison import Line
from dsgd_bench.analysis.validation import Pair
from dsgd_bench.io.escape import cell
from dsgd_bench.report.numbers import NONE, estimated, number
from dsgd_bench.report.study import Study
from dsgd_bench.report.tables import Column, Table, staleness

TITLE = "Simulated beside measured"
NOTES = (
    "error: simulated over measured time per epoch, less 1.",
    "distance: Kolmogorov and Smirnov's, the largest difference between the shares of"
    " gradients that are at most so stale; 0 if all are equal, 1 at most.",
)
"""How to read the table, a sentence each."""
STEADY = (
    "where gradients always take the same time, ranks keep step in virtual time, and"
    " staleness can be far off: set compute.distribution and compute.variation."
)
"""What else to know where staleness was simulated with constant gradient times."""


def pairs(studies: Sequence[Study]) -> list[Pair]:
    """Return the points that were both measured and simulated."""
    return validation.pairs(
        (study.folder.resolve(), line) for study in studies for line in study.lines
    )


def table(studies: Sequence[Study]) -> Table | None:
    """Return the table of all studies; None if nothing was measured and simulated."""
    found = pairs(studies)
    if not found:
        return None
    columns = [
        Column("algorithm", "", lambda pair: pair.measured.algorithm, left=True),
        Column("slowdown", "", _slowdown, left=True),
        Column("epoch measured", "s", lambda pair: _epoch(pair.measured)),
        Column("simulated", "s", lambda pair: _epoch(pair.simulated)),
        Column("error", "%", lambda pair: _percent(pair.error, "+.1f")),
        Column("staleness measured", "mean/max", lambda p: staleness(p.measured)),
        Column("simulated", "mean/max", lambda pair: staleness(pair.simulated)),
        Column("distance", "0 to 1", lambda pair: number(pair.distance)),
    ]
    if any(pair.case for pair in found):
        columns.insert(0, Column("case", "", lambda pair: pair.case, left=True))
    cells = tuple(tuple(column.cell(pair) for column in columns) for pair in found)
    blocks = [(pair.case, _slowdown(pair)) for pair in found]
    rules = tuple(i for i in range(1, len(found)) if blocks[i] != blocks[i - 1])
    return Table(tuple(columns), cells, rules)


def notes(studies: Sequence[Study]) -> list[str]:
    """Return the errors of all pairs in a sentence, and how to read the table."""
    found = pairs(studies)
    off = validation.errors(found)
    how = [*NOTES, *([STEADY] if any(map(_steady, found)) else [])]
    if off is None:
        return how
    worst = off.pair
    words = (worst.case, worst.measured.algorithm, _slowdown(worst))
    named = ", ".join(word for word in words if word not in ("", "none"))
    return [
        f"error of the time per epoch over {off.count} points: median"
        f" {_percent(off.median)} %, worst {_percent(off.worst)} % ({named}).",
        *how,
    ]


def comma_separated(studies: Sequence[Study]) -> str:
    """Return one CSV line per pair, headers with units."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["case", "algorithm", "slowdown", "ranks"]
        + [f"{side}_time_per_epoch [s]" for side in ("measured", "simulated")]
        + ["error [1]"]
        + [f"{side}_staleness_mean [count]" for side in ("measured", "simulated")]
        + ["staleness_distance [1]"]
    )
    for pair in pairs(studies):
        sides = (pair.measured.group, pair.simulated.group)
        first = pair.measured.group.first.trial
        labels = [pair.case, pair.measured.algorithm, first.slowdown, first.ranks]
        writer.writerow(
            [*map(cell, labels)]
            + [side.median(lambda row: row.times.per_epoch) for side in sides]
            + [pair.error]
            + [side.median(lambda row: row.staleness.mean) for side in sides]
            + [pair.distance]
        )
    return text.getvalue()


def _steady(pair: Pair) -> bool:
    factors = pair.simulated.group.first.trial.factors
    kind = factors.get("compute.mode"), factors.get("compute.distribution")
    return pair.distance is not None and kind == ("emulated", "constant")


def _slowdown(pair: Pair) -> str:
    return pair.measured.group.first.trial.slowdown


def _epoch(line: Line) -> str:
    return estimated(line.group.time_per_epoch)


def _percent(share: float | None, form: str = ".1f") -> str:
    return NONE if share is None else f"{100.0 * share:{form}}"
