"""The figures: loss against time, the price of a slow rank, where the time went."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from dsgd_bench.analysis import straggler
from dsgd_bench.analysis.comparison import Line, keeps_step
from dsgd_bench.analysis.labels import text as words
from dsgd_bench.analysis.scaling import curves
from dsgd_bench.report import (
    drawing,
    link_figure,
    link_table,
    looks,
    scaling_figure,
    server_figure,
    validation_figure,
    validation_table,
)
from dsgd_bench.report.drawing import Drawing, Plan
from dsgd_bench.report.numbers import TIMES
from dsgd_bench.report.study import Study
from dsgd_bench.report.tables import TIME_COLUMNS, shown_shares

Lines = Sequence[Line]
LONGEST = 160
"""Letters of the name of a figure's file, before what it shows."""
PANELS_PER_ROW = 2
TOLERANCE = 0.05
"""Half-width of the band around the asynchronous model: the acceptance limit."""
SPREAD = 1.35
"""Points of one slowdown lie side by side, over this factor of it at most."""
LOG_RANGE = 5.0
"""Losses that span more than this factor are shown on a log scale."""


def draw(studies: Sequence[Study], folder: Path) -> tuple[list[Drawing], list[str]]:
    """Draw every figure that the studies have data for into `folder`.

    Returns
    -------
    list of Drawing, list of str
        What was drawn, and a sentence for what could not be, or not well.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawings: list[Drawing] = []
    remarks: list[str] = []
    for path, drawn, caption in _planned(studies, folder):
        with warnings.catch_warnings(record=True) as caught:
            try:
                drawings.append(drawing.draw(path, drawn, caption))
            except Exception as error:  # noqa: BLE001 (whatever it is, the other figures and all numbers do not depend on it)
                remarks.append(f"{path.name} was not drawn: {looks.said(error)}.")
        remarks += [f"{path.name}: {warning.message}" for warning in caught]
    return drawings, remarks


def _planned(studies: Sequence[Study], folder: Path) -> Iterator[Plan]:
    bounded = link_table.lines(studies)
    if link_figure.has_data(bounded):
        drawn = partial(link_figure.steps_beside_bounds, bounded)
        yield folder / "bounds.png", drawn, link_figure.CAPTION
    compared = validation_table.pairs(studies)
    if validation_figure.has_data(compared):
        drawn = partial(validation_figure.simulated_beside_measured, compared)
        yield folder / "validation.png", drawn, validation_figure.CAPTION
    for study in studies:
        yield from _plan_study(study, folder)
        for case, lines in _cases(study):
            yield from _plan_case(study, case, lines, folder)


def _plan_study(study: Study, folder: Path) -> Iterator[Plan]:
    """Plan what needs all points of a study: servers, and scaling."""
    stem = _stem(study.name)
    if server_figure.has_data(study.loads):
        drawn = partial(server_figure.servers_against_workers, study.loads)
        caption = f"{study.name}: {server_figure.CAPTION}"
        yield folder / f"{stem}-servers.png", drawn, caption
    if scaled := curves(study.rows):
        drawn = partial(scaling_figure.excess_against_gradients, scaled)
        caption = f"{study.name}: {scaling_figure.CAPTION}"
        yield folder / f"{stem}-scaling.png", drawn, caption


def _cases(study: Study) -> Iterator[tuple[str, list[Line]]]:
    for case in dict.fromkeys(line.case for line in study.lines):
        yield case, [line for line in study.lines if line.case == case]


def _plan_case(study: Study, case: str, lines: Lines, folder: Path) -> Iterator[Plan]:
    stem = _stem(*(word for word in (study.name, *case.split(", ")) if word))
    of = f"{study.name}, {case}" if case else study.name
    for name, (has_data, drawn, caption) in FIGURES.items():
        if has_data(lines):
            path = folder / f"{stem}-{name}.png"
            yield path, partial(drawn, lines), f"{of}: {caption}"


def _stem(*words: str) -> str:
    """Return the start of a file's name: the words without special characters."""
    name = "".join(c if c.isalnum() or c in "-._" else "_" for c in "-".join(words))
    return name[:LONGEST]


# ------------------------------------------------------------------ loss against time


def _has_curves(lines: Lines) -> bool:
    """Say whether there is a loss that changes; that of messages never does."""
    curves = [row.curve for line in lines for row in line.group.rows]
    return any(len({loss for _, loss in curve}) > 1 for curve in curves)


def loss_against_time(lines: Lines) -> Figure:
    """Draw one panel per slowdown: every run's loss of the average model."""
    slowdowns = list(dict.fromkeys(line.group.first.slowdown for line in lines))
    columns = min(len(slowdowns), PANELS_PER_ROW)
    rows = -(-len(slowdowns) // columns)
    names = len({line.algorithm for line in lines})
    size = (4.8 * columns + 0.4, 2.8 * rows + 0.6 + 0.2 * (names // 5))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    style = looks.series([line.algorithm for line in lines])
    for axes, slowdown in zip(grid.flat, slowdowns, strict=False):
        chosen = [line for line in lines if line.group.first.slowdown == slowdown]
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
        if not row.curve:
            continue
        times, losses = np.array(row.curve).T
        axes.plot(times, losses, dash, color=color, alpha=0.75, linewidth=1.3)
        met = times == row.time_to_target
        axes.plot(times[met], losses[met], "o", color=color, markersize=5)


def _target(axes: Axes, lines: Lines) -> None:
    """Draw the target loss as a dashed line with its name above."""
    wanted = lines[0].group.first.factors.get("measure.target.loss")
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
    runs = [row.curve for line in lines for row in line.group.rows if row.curve]
    losses = [loss for curve in runs for _, loss in curve]
    # A diverging run may not squeeze the others into a flat line.
    start = max(curve[0][1] for curve in runs)
    if max(losses) > 2.0 * start:
        axes.set_ylim(top=2.0 * start)
    if min(losses) <= 0.0 or max(losses) < LOG_RANGE * min(losses):
        return ""
    axes.set_yscale("log")
    _plain_log(axes.yaxis)
    return " (log scale)"


# ------------------------------------------------------------ the price of a slow rank


def _has_slowdown(lines: Lines) -> bool:
    return any(
        line.against_baseline and (line.group.first.slow_factor or 1.0) > 1.0
        for line in lines
    )


def epoch_against_slowdown(lines: Lines) -> Figure:
    """Draw time per epoch over its own value without slowdown, beside the models."""
    shown = [
        line for line in lines if line.group.first.slow_factor and line.against_baseline
    ]
    free = [x for x in shown if keeps_step(x.group.first.algorithm) is False]
    figure = Figure(figsize=(10 if free else 5.6, 4.6), layout="constrained")
    panels = figure.subplots(1, 2 if free else 1, squeeze=False)[0]
    style = looks.series([line.algorithm for line in lines])
    worst = max(line.group.first.slow_factor or 1.0 for line in shown)
    factors = np.geomspace(1.0, worst, 100)
    _models(panels[0], shown, factors)
    _points(panels[0], shown, style)
    panels[0].set(xscale="log", yscale="log", title="All algorithms (log scale)")
    panels[0].set_ylabel(f"time per epoch / without slowdown [{TIMES}]")
    _plain_log(panels[0].yaxis)
    if free:
        _models(panels[1], free, factors, band=TOLERANCE)
        _points(panels[1], free, style)
        panels[1].set(xscale="log", title="Those that wait for nobody")
        panels[1].margins(y=0.15)
    for axes in panels:
        axes.set_xlabel(f"slowdown of the slow rank [{TIMES}] (log scale)")
        _plain_log(axes.xaxis)
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
    row = max((line.group.first for line in lines), key=lambda row: row.slow_ranks)
    kinds = {keeps_step(line.group.first.algorithm) for line in lines}
    ink = mpl.rcParams["text.color"]
    for kind, name, dash in (
        (True, "model: all wait, s", "-"),
        (False, "model: rates add up", "--"),
    ):
        if kind not in kinds:
            continue
        modeled = np.array(
            [
                straggler.predicted(row.workers, row.slow_ranks, s, synchronous=kind)
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
        found, factor = line.against_baseline, line.group.first.slow_factor
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
        points = straggler.paper_points(line.group.first.algorithm)
        if line.paper is None or points[0].algorithm in drawn:
            continue
        drawn.add(points[0].algorithm)
        axes.plot(
            [point.factor for point in points],
            [point.ratio for point in points],
            linestyle="",
            marker="o" if keeps_step(line.group.first.algorithm) else "D",
            markersize=11,
            markerfacecolor="none",
            color=ink,
            label=f"AD-PSGD paper: {points[0].algorithm}",
        )


# ------------------------------------------------------------------ where the time went


def _has_shares(lines: Lines) -> bool:
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
        slowdown = line.group.first.slowdown
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
            done = np.array(row.steps_per_rank, dtype=np.float64)
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


def _plain_log(axis: Axis) -> None:
    """Label a log axis with plain numbers: 0.2, 0.5, 1, 2, 5, 10."""
    low, high = axis.get_view_interval()
    if low > 0.0 and high / low < 2e3:  # else they would not fit
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


FIGURES: dict[str, tuple[Callable[[Lines], bool], Callable[[Lines], Figure], str]] = {
    "loss": (
        _has_curves,
        loss_against_time,
        "loss of the average model against time; one line per run.",
    ),
    "slowdown": (
        _has_slowdown,
        epoch_against_slowdown,
        "time per epoch against slowdown, over the algorithm's own time without one;"
        " bars are confidence intervals, or ranges of fewer than 6 runs.",
    ),
    "time": (
        _has_shares,
        where_time_went,
        "where the ranks' time went, and how evenly they worked; all runs together.",
    ),
}
"""Name -> (whether there is data, drawing, caption)."""
