"""The figure of a study of scaling: excess loss against everybody's gradients."""

from collections.abc import Sequence
from itertools import groupby

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dsgd_bench.analysis.scaling import Curve, reference, speedup
from dsgd_bench.report import looks

CAPTION = (
    "excess loss, on average over the run, against the gradients of all workers: of"
    " their average model above, of their own models below; and how many times fewer"
    " steps per worker, and less time, they need to the same excess."
)
KINDS = {"excess": "average model", "own_excess": "own models"}
"""Attributes of `Row`, one row of panels each."""


def excess_against_gradients(curves: Sequence[Curve]) -> Figure:
    """Draw a column of panels per algorithm, a line per number of workers."""
    columns = [list(same) for _, same in groupby(curves, lambda each: each.algorithm)]
    colors = _colors(curves)
    figure = Figure(figsize=(2.5 * len(columns) + 4.2, 6.0), layout="constrained")
    grid = figure.subplots(2, len(columns) + 1)
    for panels, (name, kind) in zip(grid, KINDS.items(), strict=True):
        for axes, same in zip(panels, columns, strict=False):
            _panel(axes, same, name, colors)
            _guide(axes, curves)
            axes.sharex(grid[0, 0])
            axes.sharey(grid[0, 0])
            axes.label_outer()
        panels[0].set_ylabel(f"excess loss, {kind}")
    for axes, same in zip(grid[0], columns, strict=False):
        axes.set_title(same[0].algorithm)
    for axes in grid[1, :-1]:
        axes.set_xlabel("gradients n K")
    _speedups(grid[:, -1], columns)
    figure.legend(handles=_legend(colors), loc="outside upper left", ncols=9)
    return figure


def _colors(curves: Sequence[Curve]) -> dict[int, str]:
    """Return a color per number of workers, darker for more of them."""
    numbers = sorted({each.workers for each in curves})
    shades = mpl.colormaps["viridis_r"](np.linspace(0.1, 1.0, len(numbers)))
    return {
        workers: mpl.colors.to_hex(shade)
        for workers, shade in zip(numbers, shades, strict=True)
    }


def _panel(
    axes: Axes, same: Sequence[Curve], name: str, colors: dict[int, str]
) -> None:
    for curve in same:
        axes.plot(
            curve.gradients,
            curve.excess(name),
            "o-",
            color=colors[curve.workers],
            markersize=4,
        )
    axes.set(xscale="log", yscale="log")


def _guide(axes: Axes, curves: Sequence[Curve]) -> None:
    """Draw 1 / sqrt(n K) through the last run of the reference: in all panels alike."""
    last = reference(curves).rows[-1]
    taken = [count for curve in curves for count in curve.gradients]
    ends = np.array([min(taken), max(taken)])
    heights = (last.excess or 0.0) * np.sqrt(last.gradients / ends)
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
                *zip(*points, strict=True),
                look.dash,
                color=look.color,
                marker=look.marker,
                markersize=5,
                label=same[0].algorithm,
            )
        axes.set(xscale="log", yscale="log", ylabel=f"speedup, {what}")
    panels[0].set_title("to the same excess")
    panels[1].set_xlabel("workers n")
    panels[0].legend(fontsize="small")


def _legend(colors: dict[int, str]) -> list[Line2D]:
    ink = mpl.rcParams["text.color"]
    handles = [
        Line2D([], [], color=color, marker="o", markersize=4, label=f"n = {workers}")
        for workers, color in colors.items()
    ]
    guide = "theory: 1/\N{SQUARE ROOT}(nK), and speedup n"
    return [*handles, Line2D([], [], color=ink, linestyle="--", label=guide)]
