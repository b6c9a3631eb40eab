"""The figure of the price of a slow rank, beside the models and the paper."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dsgd_bench.analysis import straggler
from dsgd_bench.analysis.comparison import keeps_step
from dsgd_bench.report import looks
from dsgd_bench.report.drawing import Kind, Lines, lines_of, plain_log
from dsgd_bench.report.numbers import TIMES

CAPTION = (
    "time per epoch against slowdown, over the algorithm's own time without one;"
    " bars are confidence intervals, or ranges of fewer than 6 runs."
)

TOLERANCE = 0.05
"""Half-width of the band around the asynchronous model: the acceptance limit."""

SPREAD = 1.35
"""Points of one slowdown lie side by side, over this factor of it at most."""


def has_data(lines: Lines) -> bool:
    """Say whether a slow rank can be compared with none."""
    return any(
        line.against_baseline and (line.group.first.trial.slow_factor or 1.0) > 1.0
        for line in lines
    )


def epoch_against_slowdown(lines: Lines) -> Figure:
    """Draw time per epoch over its own value without slowdown, beside the models."""
    shown = [
        line
        for line in lines
        if line.group.first.trial.slow_factor and line.against_baseline
    ]
    free = [x for x in shown if keeps_step(x.group.first.trial.algorithm) is False]
    figure = Figure(figsize=(10 if free else 5.6, 4.6), layout="constrained")
    panels = figure.subplots(1, 2 if free else 1, squeeze=False)[0]
    style = looks.series([line.algorithm for line in lines])
    worst = max(line.group.first.trial.slow_factor or 1.0 for line in shown)
    factors = np.geomspace(1.0, worst, 100)
    _models(panels[0], shown, factors)
    _points(panels[0], shown, style)
    panels[0].set(xscale="log", yscale="log", title="All algorithms (log scale)")
    panels[0].set_ylabel(f"time per epoch / without slowdown [{TIMES}]")
    plain_log(panels[0].yaxis)
    if free:
        _models(panels[1], free, factors, band=TOLERANCE)
        _points(panels[1], free, style)
        panels[1].set(xscale="log", title="Algorithms that wait for no worker")
        panels[1].margins(y=0.15)
    for axes in panels:
        axes.set_xlabel(f"slowdown of the slow rank [{TIMES}] (log scale)")
        plain_log(axes.xaxis)
    figure.legend(handles=_legend(panels, style), loc="outside upper left", ncols=4)
    return figure


def _legend(panels: Sequence[Axes], style: looks.Series) -> list[Any]:
    """Return one handle per name: the algorithms first, then models and paper."""
    pairs = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in panels]
    named = {label: handle for pair in pairs for handle, label in pair}
    order = sorted(
        named, key=lambda name: (name not in style, not name.startswith("model"))
    )
    return [named[label] for label in order]


def _models(
    axes: Axes, lines: Lines, factors: np.ndarray, *, band: float = 0.0
) -> None:
    """Draw what the models say for the synchronous and asynchronous lines."""
    row = max(
        (line.group.first for line in lines), key=lambda row: row.trial.slow_ranks
    )
    kinds = {keeps_step(line.group.first.trial.algorithm) for line in lines}
    ink = mpl.rcParams["text.color"]
    for kind, name, dash in (
        (True, "model: all wait, s", "-"),
        (False, "model: rates add up", "--"),
    ):
        if kind not in kinds:
            continue
        modeled = np.array(
            [
                straggler.predicted(
                    row.trial.workers, row.trial.slow_ranks, s, synchronous=kind
                )
                for s in factors
            ]
        )
        axes.plot(factors, modeled, color=ink, linestyle=dash, linewidth=1, label=name)
        if band:
            low, high = modeled * (1 - band), modeled * (1 + band)
            label = f"model ± {100 * band:.0f} %"
            axes.fill_between(
                factors, low, high, color=ink, alpha=0.1, linewidth=0, label=label
            )


def _points(axes: Axes, lines: Lines, style: looks.Series) -> None:
    """Draw the measured ratios, side by side where they meet, and the paper's."""
    labels = list(dict.fromkeys(line.algorithm for line in lines))
    for line in lines:
        found, factor = line.against_baseline, line.group.first.trial.slow_factor
        if found is None or factor is None:
            continue
        color, marker, _ = style[line.algorithm]
        apart = min(1.05, SPREAD ** (1 / len(labels)))
        aside = apart ** (labels.index(line.algorithm) - (len(labels) - 1) / 2)
        axes.errorbar(
            factor * aside,
            found.value,
            yerr=[[found.value - found.low], [found.high - found.value]],
            color=color,
            marker=marker,
            linestyle="",
            markersize=6,
            capsize=3,
            label=line.algorithm,
        )
    _paper_points(axes, lines)


def _paper_points(axes: Axes, lines: Lines) -> None:
    """Draw the paper's figures as open markers, where the setting is the paper's."""
    ink = mpl.rcParams["text.color"]
    drawn = set()
    for line in lines:
        points = straggler.paper_points(line.group.first.trial.algorithm)
        if line.paper is None or points[0].algorithm in drawn:
            continue
        drawn.add(points[0].algorithm)
        axes.plot(
            [point.factor for point in points],
            [point.ratio for point in points],
            linestyle="",
            marker="o" if keeps_step(line.group.first.trial.algorithm) else "D",
            markersize=11,
            markerfacecolor="none",
            color=ink,
            label=f"AD-PSGD paper: {points[0].algorithm}",
        )


FIGURE = Kind("slowdown", CAPTION, epoch_against_slowdown, lines_of, has_data)
