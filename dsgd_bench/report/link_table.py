"""Time per step beside its bound: the table of runs on links of known rates."""

from collections.abc import Callable, Sequence
from typing import Any

from dsgd_bench.algorithms.bounds import SYMBOLS
from dsgd_bench.analysis.comparison import Line
from dsgd_bench.analysis.rows import Measure, Row, per_step
from dsgd_bench.analysis.statistics import ratio_of_medians
from dsgd_bench.report.numbers import NONE, TIMES, number, percent
from dsgd_bench.report.study import Study
from dsgd_bench.report.tables import Column, Table

TITLE = "Time per step beside its bound"
NOTES = (
    f"{SYMBOLS}.",
    "bound: what the rule allows on such links if nothing else took time; of algorithms"
    " that do not keep step, n over the gradients per second of all workers.",
    "counted: payload that the hosts' devices saw, over the bytes that ranks sent.",
    "kept: gradients per second, of those where all links are equal.",
)
"""How to read the table, a sentence each."""


def lines(studies: Sequence[Study]) -> list[Line]:
    """Return the lines that have a bound: equal links first, then by compute time."""
    found = [line for study in studies for line in study.lines if bound(line)]
    return sorted(found, key=_condition)


def condition(line: Line) -> str:
    """Return the links and the compute time of a line in words."""
    row = line.group.first
    words = [row.limits.links, f"t = {number(1e3 * _compute(line))} ms"]
    return ", ".join(
        words if row.trial.slowdown == "none" else [*words, row.trial.slowdown]
    )


def bound(line: Line) -> float | None:
    """Return the bound in seconds, where there is one."""
    found = line.group.first.limits.bound
    return found.seconds if found else None


def kept(line: Line, among: Sequence[Line]) -> float | None:
    """Return the gradients per second over those of the same point on equal links.

    None for a point on equal links itself, and where there is no such point.
    """
    row = line.group.first
    if not _uneven(row):
        return None
    for other in among:
        first = other.group.first
        if not _uneven(first) and _point(other) == _point(line):
            theirs = other.group.values(per_step)
            found = ratio_of_medians(theirs, line.group.values(per_step))
            return found.value if found else None
    return None


def table(studies: Sequence[Study]) -> Table | None:
    """Return the table of all studies; None if no line has a bound."""
    rows = lines(studies)
    if not rows:
        return None
    columns = [
        Column("links and compute", "", condition, left=True),
        Column("algorithm", "", lambda line: line.algorithm, left=True),
        Column("bound", "formula", _formula, left=True),
        Column("bound", "ms", lambda line: _milliseconds(bound(line))),
        Column("step", "ms", _median(per_step, _milliseconds)),
        Column("step", f"{TIMES} bound", _median(lambda row: row.over_bound, number)),
        Column("kept", "%", lambda line: percent(kept(line, rows))),
        Column(
            "counted",
            f"{TIMES} claimed",
            _median(lambda row: row.traffic.counted, number),
        ),
    ]
    columns = [
        column
        for column in columns
        if column.left or any(column.cell(line) != NONE for line in rows)
    ]
    cells = tuple(tuple(column.cell(line) for column in columns) for line in rows)
    conditions = [condition(line) for line in rows]
    rules = tuple(i for i in range(1, len(rows)) if conditions[i] != conditions[i - 1])
    return Table(tuple(columns), cells, rules)


def _condition(line: Line) -> tuple[object, ...]:
    row = line.group.first
    return _uneven(row), row.limits.links, -_compute(line), row.trial.slow_factor or 0.0


def _uneven(row: Row) -> bool:
    """Say whether links differ: their label then names hosts, too."""
    return "," in row.limits.links


def _compute(line: Line) -> float:
    return float(line.group.first.trial.factors.get("compute.seconds", 0.0))


def _point(line: Line) -> dict[str, Any]:
    factors = dict(line.group.first.trial.factors)
    factors.pop("links", None)
    return factors


def _formula(line: Line) -> str:
    found = line.group.first.limits.bound
    return found.formula if found else NONE


def _milliseconds(seconds: float | None) -> str:
    return NONE if seconds is None else number(1e3 * seconds)


def _median(of: Measure, say: Callable[[float | None], str]) -> Callable[[Line], str]:
    return lambda line: say(line.group.median(of))
