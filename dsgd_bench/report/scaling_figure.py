"""The figure of a study of scaling: excess loss against everybody's gradients."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from dsgd_bench.analysis.rows import Measure
from dsgd_bench.analysis.scaling import (
    Curve,
    curves,
    of_average,
    of_own,
    reference,
    speedup,
)
from dsgd_bench.report import looks
from dsgd_bench.report.drawing import Kind
from dsgd_bench.report.study import Study

CAPTION = (
    "excess loss, on average over the run, against the gradients of all workers: of"
    " their average model above, of their own models below; and how many times fewer"
    " steps per worker, and less time, they need to the same excess."
)
Style = dict[int, dict[str, Any]]
"""How the line of each number of workers is drawn."""

KINDS = {"average model": of_average, "own models": of_own}
"""One row of panels each."""


def excess_against_gradients(curves: Sequence[Curve]) -> Figure:
    """Draw a column of panels per algorithm, a line per number of workers."""
    columns = [list(same) for _, same in groupby(curves, lambda each: each.algorithm)]
    style = _style(curves)
    figure = Figure(figsize=(2.3 * len(columns) + 3.6, 6.0), layout="constrained")
    grid = figure.subplots(2, len(columns) + 1)
    for panels, (kind, of) in zip(grid, KINDS.items(), strict=True):
        for axes, same in zip(panels, columns, strict=False):
            axes.sharex(grid[0, 0])
            axes.sharey(panels[0])
            _panel(axes, same, of, style)
            _guide(axes, curves)
            axes.label_outer()
        panels[0].set_ylabel(f"excess loss, {kind}")
    for axes, same in zip(grid[0], columns, strict=False):
        axes.set_title(same[0].algorithm)
    for axes in grid[1, :-1]:
        axes.set_xlabel("gradients n K")
    _speedups(grid[:, -1], columns)
    figure.legend(handles=_legend(style), loc="outside upper left", ncols=9)
    return figure


def _style(curves: Sequence[Curve]) -> Style:
    """Return looks for the numbers of workers: the more, the darker and smaller.

    Points that should lie on each other are seen all the same.
    """
    numbers = sorted({each.workers for each in curves})
    shades = mpl.colormaps["viridis_r"](np.linspace(0.1, 1.0, len(numbers)))
    sizes = np.linspace(10.0, 3.0, len(numbers))
    return {
        workers: {"color": to_hex(shade), "marker": "o", "markersize": size}
        for workers, shade, size in zip(numbers, shades, sizes, strict=True)
    }


def _panel(axes: Axes, same: Sequence[Curve], of: Measure, style: Style) -> None:
    for curve in same:
        axes.plot(curve.gradients, curve.excess(of), **style[curve.workers])
    _logarithmic(axes)


def _logarithmic(axes: Axes) -> None:
    """Scale both axes, with a number at whole powers of ten only."""
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _guide(axes: Axes, curves: Sequence[Curve]) -> None:
    """Draw 1 / sqrt(n K) through the last run of the reference: in all panels alike."""
    last = reference(curves).rows[-1]
    taken = [count for curve in curves for count in curve.gradients]
    ends = np.array([min(taken), max(taken)])
    heights = (last.quality.excess or 0.0) * np.sqrt(last.times.gradients / ends)
    axes.plot(ends, heights, "--", color=mpl.rcParams["text.color"], linewidth=1)


def _speedups(panels: Sequence[Axes], columns: Sequence[Sequence[Curve]]) -> None:
    """Draw speedup in steps above, in time below, a line per algorithm."""
    every = [curve for same in columns for curve in same]
    style = looks.series([same[0].algorithm for same in columns])
    numbers = sorted({curve.workers for curve in every})
    ideal = [workers / numbers[0] for workers in numbers]
    for axes, what in zip(panels, ("steps", "seconds"), strict=True):
        axes.plot(numbers, ideal, "--", color=mpl.rcParams["text.color"], linewidth=1)
        for same in columns:
            known = [(each.workers, speedup(each, every, what)) for each in same]
            points = [(workers, times) for workers, times in known if times]
            look = style[same[0].algorithm]
            axes.plot(
                [workers for workers, _ in points],
                [times for _, times in points],
                look.dash,
                color=look.color,
                marker=look.marker,
                markersize=5,
                label=same[0].algorithm,
            )
        _logarithmic(axes)
        axes.set_ylabel(f"speedup, {what}")
    panels[0].set_title("to the same excess")
    panels[1].set_xlabel("workers n")
    panels[0].legend(fontsize="small")


def _legend(style: Style) -> list[Line2D]:
    handles = [
        Line2D([], [], label=f"n = {workers}", **look)
        for workers, look in style.items()
    ]
    ink = mpl.rcParams["text.color"]
    guide = "theory: 1/\N{SQUARE ROOT}(nK), and speedup n"
    return [*handles, Line2D([], [], color=ink, linestyle="--", label=guide)]


def _curves(study: Study) -> list[Curve]:
    return curves(study.rows)


FIGURE = Kind("scaling", CAPTION, excess_against_gradients, _curves)
