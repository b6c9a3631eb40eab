"""The figure of every run's loss against time."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dsgd_bench.analysis.comparison import Line
from dsgd_bench.analysis.labels import text as words
from dsgd_bench.report import looks
from dsgd_bench.report.drawing import Kind, Lines, lines_of, plain_log

CAPTION = "loss of the average model against time; one line per run."

PANELS_PER_ROW = 2

LOG_RANGE = 5.0
"""Losses that span more than this factor are shown on a log scale."""


def has_data(lines: Lines) -> bool:
    """Say whether there is a loss that changes; that of messages never does."""
    curves = [row.quality.curve for line in lines for row in line.group.rows]
    return any(len({loss for _, loss in curve}) > 1 for curve in curves)


def loss_against_time(lines: Lines) -> Figure:
    """Draw one panel per slowdown: every run's loss of the average model."""
    slowdowns = list(dict.fromkeys(line.group.first.trial.slowdown for line in lines))
    columns = min(len(slowdowns), PANELS_PER_ROW)
    rows = -(-len(slowdowns) // columns)
    names = len({line.algorithm for line in lines})
    size = (4.8 * columns + 0.4, 2.8 * rows + 0.6 + 0.2 * (names // 5))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    style = looks.series([line.algorithm for line in lines])
    for axes, slowdown in zip(grid.flat, slowdowns, strict=False):
        chosen = [line for line in lines if line.group.first.trial.slowdown == slowdown]
        for line in chosen:
            _curves(axes, line, style[line.algorithm])
        name = "no slowdown" if slowdown == "none" else slowdown
        axes.set(title=name, xlim=(0, None))
        _target(axes, chosen)
    figure.supxlabel("time [s]", fontsize="medium")
    for axes in list(grid.flat)[len(slowdowns) :]:
        axes.set_visible(False)
    scale = _loss_scale(grid[0, 0], lines)
    for axes in grid[:, 0]:
        axes.set_ylabel(f"loss of the average model{scale}")
    handles = [
        Line2D([], [], color=look.color, linestyle=look.dash, label=name)
        for name, look in style.items()
    ]
    dot = {"marker": "o", "linestyle": "", "color": "gray"}
    if any(line.group.reached for line in lines):
        handles.append(Line2D([], [], label="target reached", **dot))  # type: ignore[arg-type]
    figure.legend(handles=handles, loc="outside upper left", ncols=5)
    return figure


def _curves(axes: Axes, line: Line, look: looks.Look) -> None:
    color, _, dash = look
    for row in line.group.rows:
        if not row.quality.curve:
            continue
        times, losses = np.array(row.quality.curve).T
        axes.plot(times, losses, dash, color=color, alpha=0.75, linewidth=1.3)
        met = times == row.target.seconds
        axes.plot(times[met], losses[met], "o", color=color, markersize=5)


def _target(axes: Axes, lines: Lines) -> None:
    """Draw the target loss as a dashed line with its name above."""
    wanted = lines[0].group.first.trial.factors.get("measure.target.loss")
    if wanted is None:
        return
    ink = mpl.rcParams["text.color"]
    axes.axhline(wanted, color=ink, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.annotate(
        f"target {words(wanted)}",
        (1.0, wanted),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        fontsize=8.5,
    )


def _loss_scale(axes: Axes, lines: Lines) -> str:
    """Choose the scale of the loss; return what the label says of it."""
    runs = [
        row.quality.curve
        for line in lines
        for row in line.group.rows
        if row.quality.curve
    ]
    losses = [loss for curve in runs for _, loss in curve]
    # A diverging run may not squeeze the others into a flat line.
    start = max(curve[0][1] for curve in runs)
    if max(losses) > 2.0 * start:
        axes.set_ylim(top=2.0 * start)
    if min(losses) <= 0.0 or max(losses) < LOG_RANGE * min(losses):
        return ""
    axes.set_yscale("log")
    plain_log(axes.yaxis)
    return " (log scale)"


FIGURE = Kind("loss", CAPTION, loss_against_time, lines_of, has_data)
