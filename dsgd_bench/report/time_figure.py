"""The figure of where the time went, and how evenly ranks worked."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dsgd_bench.report import looks
from dsgd_bench.report.drawing import Kind, Lines, lines_of
from dsgd_bench.report.tables import TIME_COLUMNS, shown_shares

CAPTION = "where the ranks' time went, and how evenly they worked; all runs together."


def has_data(lines: Lines) -> bool:
    """Say whether it is known where time went."""
    return any(line.group.shares for line in lines)


def where_time_went(lines: Lines) -> Figure:
    """Draw the shares of every point's time as bars, and the steps of its ranks."""
    shown = [line for line in lines if line.group.shares]
    places, heads = _places(shown)
    height = 0.34 * (max(places) + 2) + 1.3
    figure = Figure(figsize=(9.6, height), layout="constrained")
    bars, dots = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    left = np.zeros(len(shown))
    for span in TIME_COLUMNS:
        color = looks.SPAN_COLORS[span]
        parts = np.array([100.0 * shown_shares(line.group)[span] for line in shown])
        bars.barh(places, parts, left=left, height=0.74, color=color, label=span)
        for place, start, part in zip(places, left, parts, strict=True):
            if part >= 6.0:
                middle, ink = (start + part / 2, place), looks.ink_on(color)
                bars.annotate(
                    f"{part:.0f}", middle, ha="center", va="center", color=ink, size=8.5
                )
        left += parts
    for place, head in heads:
        bars.annotate(head, (0.3, place), va="center", weight="bold", size=9)
    bars.set_yticks(places, [line.algorithm for line in shown])
    bars.set(xlim=(0, 100), ylim=(max(places) + 0.7, -0.6))
    bars.set_xlabel("share of the ranks' time [%]")
    bars.tick_params(axis="y", length=0)
    bars.grid(visible=False, axis="y")
    _work_shares(dots, shown, places)
    figure.legend(*bars.get_legend_handles_labels(), loc="outside upper left", ncols=6)
    return figure


def _places(lines: Lines) -> tuple[list[float], list[tuple[float, str]]]:
    """Return the height of every bar, and of a heading above each slowdown."""
    places: list[float] = []
    heads: list[tuple[float, str]] = []
    height, last = 0.0, None
    for line in lines:
        slowdown = line.group.first.trial.slowdown
        if slowdown != last:
            height += 0.35 if heads else 0.0
            heads.append((height, slowdown if slowdown != "none" else "no slowdown"))
            height, last = height + 0.85, slowdown
        places.append(height)
        height += 1.0
    return places, heads


def _work_shares(axes: Axes, lines: Lines, places: Sequence[float]) -> None:
    """Draw one dot per rank and run: its steps over the mean of all ranks."""
    ink = mpl.rcParams["text.color"]
    most = 1.0
    for line, place in zip(lines, places, strict=True):
        for row in line.group.rows:
            done = np.array(row.times.steps_per_rank, dtype=np.float64)
            if not done.any():
                continue
            ratio = done / done.mean()
            most = max(most, float(ratio.max()))
            heights = np.full(done.size, place)
            axes.plot(ratio, heights, "o", color=ink, alpha=0.35, markersize=5)
    axes.set(xlim=(-0.06 * most, 1.15 * most))
    axes.set_xlabel("steps of a rank / mean [1]")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


FIGURE = Kind("time", CAPTION, where_time_went, lines_of, has_data)
