"""The study's table as text cells: one definition for terminal, Markdown and page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dsgd_bench.algorithms.facts import STALENESS
from dsgd_bench.analysis.comparison import REFERENCE, Line
from dsgd_bench.analysis.rows import Measure
from dsgd_bench.analysis.summary import Group
from dsgd_bench.report.numbers import (
    DASH,
    NONE,
    TIMES,
    estimated,
    faster,
    number,
    percent,
)

AGAINST = f"against {REFERENCE}"
"""Name of the column that compares with the reference."""
TIME_COLUMNS = ("compute", "injected", "waiting", "transfer", "update", "other")
"""Spans as the table shows them; a snapshot is counted under other."""
BARS = tuple(span for span in TIME_COLUMNS if span != "waiting")
"""Columns that a page shows as a bar only."""


@dataclass(frozen=True)
class Column:
    """One column: a header of name and unit, and how a line becomes a cell.

    Attributes
    ----------
    name, unit : str
        Header; `unit` says "s", "%" or what is counted.
    cell : callable
        What a row stands for, a `Line` mostly, to text.
    left : bool
        Whether cells are text, set to the left.
    wide : bool
        Whether cells are sentences, which a page may break into lines.
    """

    name: str
    unit: str
    cell: Callable[[Any], str]
    left: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """Headers and cells; `rules` are the rows that begin a new block.

    Attributes
    ----------
    columns : tuple of Column
    cells : tuple of tuple of str
        One tuple per line, in the order of the columns.
    rules : tuple of int
    """

    columns: tuple[Column, ...]
    cells: tuple[tuple[str, ...], ...]
    rules: tuple[int, ...] = ()

    @property
    def with_units(self) -> bool:
        """Whether a header has a unit, so that headers take two lines."""
        return any(column.unit for column in self.columns)


def results(lines: Sequence[Line]) -> Table:
    """Return the study's one table: who reached the target when, and why."""
    columns = [*_labels(lines), Column("reached", "runs", reached)]
    if _any_target(lines):
        columns.append(Column("time to target", "s", time_to_target))
        columns.append(
            Column("epochs", "to target", _median(lambda row: row.target.epochs))
        )
    columns += [
        Column(AGAINST, _against_unit(lines), against),
        Column("epoch", "s", lambda line: estimated(line.group.time_per_epoch)),
        *_straggler(lines),
        Column("staleness", "mean/max", staleness),
        Column("distance", "replicas", _median(lambda row: row.quality.distance)),
        Column("sent", "kB/grad.", _kilobytes(lambda row: row.traffic.bytes_out)),
        *(Column(span, "%", _share(span)) for span in ("waiting", *BARS)),
    ]
    return _table(columns, lines)


def work(lines: Sequence[Line]) -> Table:
    """Return the second table: quality, work per rank and traffic."""
    columns = [
        *_labels(lines),
        Column(
            "final loss", "of the mean model", _median(lambda row: row.quality.loss)
        ),
        Column(
            "accuracy", "of the mean model", _median(lambda row: row.quality.accuracy)
        ),
        Column("steps per rank", f"fewest{DASH}most", steps),
        Column("slowest rank", "rank", _common(lambda row: row.times.worst_rank)),
        Column("most waited for", "rank", _common(lambda row: row.times.waited_for)),
        Column("blocked", "s per rank", _median(lambda row: row.times.blocked)),
        Column("overlapped", "s per rank", _median(lambda row: row.times.overlapped)),
        Column("messages", "per gradient", _median(lambda row: row.traffic.messages)),
        Column("exchanges", "per gradient", _median(lambda row: row.traffic.exchanges)),
        *_present(lines, _EXTRA),
    ]
    return _table(columns, lines)


def notes(table: Table, lines: Sequence[Line]) -> list[str]:
    """Return how to read the bounds, and what staleness counts, in a table of lines."""
    text = " ".join(cell for row in table.cells for cell in row)
    found = []
    if "[" in text:
        found.append("[low, high]: 95 % confidence interval.")
    if any(f"{digit}{DASH}" in text for digit in "0123456789"):
        found.append(f"(low{DASH}high): range of the runs, too few for an interval.")
    if any(column.name == "staleness" for column in table.columns):
        found += _families(lines)
    return found


def without(table: Table, names: Sequence[str]) -> Table:
    """Return the table without some columns."""
    kept = [i for i, column in enumerate(table.columns) if column.name not in names]
    columns = tuple(table.columns[i] for i in kept)
    cells = tuple(tuple(row[i] for i in kept) for row in table.cells)
    return Table(columns, cells, table.rules)


def reached(line: Line) -> str:
    """Return "9/10", and how many failed otherwise: "1/3, 1 crashed"."""
    group = line.group
    count = len(group.rows)
    words = [
        f"{group.reached}/{count}" if group.first.trial.target else f"{NONE}/{count}"
    ]
    for status in ("diverged", "crashed", "unreadable"):
        if group.statuses[status]:
            words.append(f"{group.statuses[status]} {status}")
    return ", ".join(words)


def time_to_target(line: Line) -> str:
    """Return the median over the runs that reached the target."""
    if not line.group.first.trial.target:
        return "no target"
    return estimated(line.group.time_to_target) if line.group.reached else "not reached"


def against(line: Line) -> str:
    """Return how much faster or slower than the reference."""
    if line.is_reference:
        return "reference"
    if line.reference_failed and line.group.reached:
        return "reference failed"
    return faster(line.against_reference)


def staleness(line: Line) -> str:
    """Return "1.24/7", the mean and the largest; a dash where there is none."""
    return _extent(lambda row: row.staleness.mean, lambda row: row.staleness.largest)(
        line
    )


def steps(line: Line) -> str:
    """Return the fewest and the most steps of a rank over all runs."""
    done = [count for row in line.group.rows for count in row.times.steps_per_rank]
    if not done:
        return NONE
    low, high = min(done), max(done)
    return str(low) if low == high else f"{low}{DASH}{high}"


def shown_shares(group: Group) -> dict[str, float]:
    """Return the shares of `TIME_COLUMNS`; empty where no step was taken."""
    shares = dict(group.shares)
    if shares:
        shares["other"] += shares.pop("snapshot")
    return {span: shares[span] for span in TIME_COLUMNS} if shares else {}


def _labels(lines: Sequence[Line]) -> list[Column]:
    columns = [
        Column("algorithm", "", lambda line: line.algorithm, left=True),
        Column("slowdown", "", lambda line: line.group.first.trial.slowdown, left=True),
    ]
    if any(line.case for line in lines):
        columns.insert(0, Column("case", "", lambda line: line.case, left=True))
    return columns


def _straggler(lines: Sequence[Line]) -> list[Column]:
    """Return the columns on slowdowns; none where the study has no slowdown."""
    if all(line.group.first.trial.slow_factor == 1.0 for line in lines):
        return []
    columns = [Column("epoch", f"{TIMES} own", lambda x: estimated(x.against_baseline))]
    if any(line.predicted for line in lines):
        columns.append(Column("model", TIMES, lambda line: number(line.predicted)))
    if any(line.paper for line in lines):
        columns.append(Column("paper's", TIMES, lambda line: number(line.paper)))
    return columns


def _any_target(lines: Sequence[Line]) -> bool:
    return any(line.group.first.trial.target for line in lines)


def _against_unit(lines: Sequence[Line]) -> str:
    return f"{TIMES} to target" if _any_target(lines) else f"{TIMES} per epoch"


def _share(span: str) -> Callable[[Line], str]:
    return lambda line: percent(shown_shares(line.group).get(span))


def _median(of: Measure) -> Callable[[Line], str]:
    return lambda line: number(line.group.median(of))


def _extent(mean: Measure, most: Measure) -> Callable[[Line], str]:
    """Return "1.24/7", the median of means and the largest of all runs."""

    def cell(line: Line) -> str:
        average, largest = line.group.median(mean), line.group.maximum(most)
        if average is None or largest is None:
            return NONE
        return f"{number(average)}/{largest:.0f}"

    return cell


def _kilobytes(of: Measure) -> Callable[[Line], str]:
    def cell(line: Line) -> str:
        found = line.group.median(of)
        return NONE if found is None else number(found / 1000.0)

    return cell


def _weights(line: Line) -> str:
    """Return the least and the largest push-sum weight of any run."""
    least = min(line.group.values(lambda row: row.weights.least), default=None)
    most = line.group.maximum(lambda row: row.weights.most)
    if least is None:
        return NONE
    return number(least) if least == most else f"{number(least)}{DASH}{number(most)}"


_EXTRA = (
    Column("server sent", "kB/grad.", _kilobytes(lambda row: row.traffic.server_out)),
    Column(
        "server received", "kB/grad.", _kilobytes(lambda row: row.traffic.server_in)
    ),
    Column(
        "loose staleness",
        "mean/max",
        _extent(
            lambda row: row.staleness.loose_mean,
            lambda row: row.staleness.loose_largest,
        ),
    ),
    Column(
        "age",
        "steps",
        _extent(
            lambda row: row.staleness.age_mean, lambda row: row.staleness.age_largest
        ),
    ),
    Column("weights", f"least{DASH}most", _weights),
)
"""Columns that only some algorithms have something to say in."""


def _present(lines: Sequence[Line], columns: Sequence[Column]) -> list[Column]:
    """Return the columns that say anything about any of the lines."""
    return [
        column for column in columns if any(column.cell(line) != NONE for line in lines)
    ]


def _families(lines: Sequence[Line]) -> list[str]:
    """Return what staleness counts, family by family."""
    found: dict[str, list[str]] = {}
    for line in lines:
        row = line.group.first
        if line.group.median(lambda row: row.staleness.mean) is not None:
            found.setdefault(row.staleness.kind, []).append(row.trial.algorithm)
    return [
        f"staleness of {', '.join(dict.fromkeys(kinds))}: {STALENESS.get(family, '')}."
        for family, kinds in found.items()
    ]


def _common(of: Measure) -> Callable[[Line], str]:
    """Return the value most runs have."""

    def cell(line: Line) -> str:
        values = [int(value) for value in line.group.values(of)]
        return str(max(values, key=values.count)) if values else NONE

    return cell


def _table(columns: Sequence[Column], lines: Sequence[Line]) -> Table:
    cells = tuple(tuple(column.cell(line) for column in columns) for line in lines)
    blocks = [(line.case, line.group.first.trial.slowdown) for line in lines]
    rules = tuple(i for i in range(1, len(blocks)) if blocks[i] != blocks[i - 1])
    return Table(tuple(columns), cells, rules)
