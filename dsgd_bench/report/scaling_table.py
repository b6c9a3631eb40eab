"""Excess loss against the gradients of all workers: the table of a study of scaling."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from dsgd_bench.analysis.scaling import (
    Curve,
    curves,
    of_average,
    of_own,
    reference,
    slopes,
    speedup,
    target,
)
from dsgd_bench.report.numbers import DASH, estimated, number
from dsgd_bench.report.study import Study
from dsgd_bench.report.tables import Column, Table

TITLE = "excess loss against the gradients of all workers"
ALL = "all"
"""Stands for the number of workers in the line of their median."""

HEADS = (
    Column("algorithm", "", str, left=True),
    Column("workers", "", str),
    Column("gradients", "n K", str),
    Column("slope", "average model", str),
    Column("slope", "own models", str),
    Column("excess", "average model", str),
    Column("excess", "own models", str),
    Column("speedup", "steps", str),
    Column("speedup", "time", str),
)


def table(study: Study) -> Table | None:
    """Return the table of one study; None if it does not vary workers and gradients."""
    every = curves(study.rows)
    cells: list[tuple[str, ...]] = []
    rules = []
    for _, same in groupby(every, lambda curve: curve.algorithm):
        rules.append(len(cells))
        cells += _block(list(same), every)
    return Table(HEADS, tuple(cells), tuple(rules[1:])) if cells else None


def notes(study: Study) -> list[str]:
    """Return how to read the table, a sentence each."""
    every = curves(study.rows)
    at, base = number(target(every)), reference(every)
    return [
        "excess: loss above the lowest one, on average over the run; shown for the most"
        " gradients. own models: of the workers, on average.",
        f"slope: exponent of a power law through the excess; theory: -0.5 where"
        f" lr is c sqrt(n / K). {ALL}: median over the numbers of workers.",
        f"speedup: steps per worker, and time, of {base.algorithm} on {base.workers}"
        f" over these, both with an excess of the average model of {at}.",
    ]


def _block(same: Sequence[Curve], every: Sequence[Curve]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of one algorithm, a line per number of workers and their median.

    The median of a single number is left out.
    """
    for curve in same:
        last = curve.rows[-1]
        yield (
            curve.algorithm,
            str(curve.workers),
            f"{curve.gradients[0]}{DASH}{curve.gradients[-1]}",
            number(curve.slope(of_average)),
            number(curve.slope(of_own)),
            number(last.quality.excess),
            number(last.quality.own_excess),
            number(speedup(curve, every, "steps")),
            number(speedup(curve, every, "seconds")),
        )
    if len(same) > 1:
        both = [estimated(slopes(same, of)) for of in (of_average, of_own)]
        yield (same[0].algorithm, ALL, "", *both, "", "", "", "")
