"""The figure of a study with servers: when more workers bring no more gradients."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dsgd_bench.analysis.servers import Load, knee, points
from dsgd_bench.report import looks
from dsgd_bench.report.drawing import Kind
from dsgd_bench.report.study import Study

CAPTION = (
    "gradients per second, the servers' time and traffic against workers; a ring marks"
    " the knee, from which on the servers would be busy all the time."
)

Lines = dict[str, list[Load]]
"""Points by what the legend calls them: algorithm and number of servers."""


def has_data(loads: Sequence[Load]) -> bool:
    """Say whether servers were asked by different numbers of workers."""
    return len({load.workers for load in loads}) > 1


def servers_against_workers(loads: Sequence[Load]) -> Figure:
    """Draw rate, share of waiting and bytes per second, a line per servers' number."""
    lines = _lines(loads)
    style = looks.series(list(lines))
    figure = Figure(figsize=(11.6, 4.2), layout="constrained")
    rates, idle, flows = figure.subplots(1, 3)
    for name, line in lines.items():
        color, marker, _ = style[name]
        workers = [point.workers for point in line]
        drawn = {"color": color, "marker": marker, "markersize": 6}
        rates.plot(workers, [point.rate for point in line], **drawn)
        _mark_knee(rates, line, color)
        idle.plot(workers, [100 * point.waiting for point in line], **drawn)
        flows.plot(workers, [point.bytes_in / 1e6 for point in line], **drawn)
        sent = [point.bytes_out / 1e6 for point in line]
        flows.plot(workers, sent, "o", markersize=11, fillstyle="none", color=color)
    _ideal(rates, lines)
    rates.set(title="All workers together", ylabel="gradients per second [1/s]")
    idle.set(title="Servers: waiting", ylabel="share of their time [%]")
    idle.set_ylim(-3, 103)
    flows.set(title="Each server: bytes in, and out (rings)", ylabel="rate [MB/s]")
    most = max(load.workers for load in loads)
    for axes in (rates, idle, flows):
        axes.set(xlabel="workers", xlim=(0, 1.06 * most))
    for axes in (rates, flows):
        axes.set_ylim(bottom=0)
    figure.legend(handles=_legend(style), loc="outside upper left", ncols=6)
    return figure


def _lines(loads: Sequence[Load]) -> Lines:
    """Return the points of every line, by name, fewest servers first."""
    return {
        f"{algorithm}, {servers} server{'s' * (servers > 1)}": list(line)
        for (algorithm, servers), line in groupby(
            points(loads), lambda point: (point.algorithm, point.servers)
        )
    }


def _ideal(axes: Axes, lines: Lines) -> None:
    """Draw the rate of workers that never wait, up to just above the highest rate."""
    every = [point for line in lines.values() for point in line]
    pace = max(point.unhindered / point.workers for point in every)
    most = max(point.workers for point in every)
    ink = mpl.rcParams["text.color"]
    axes.plot((0, most), (0, pace * most), color=ink, linestyle="--", linewidth=1)
    axes.set_ylim(top=min(pace * most, 1.3 * max(point.rate for point in every)))


def _mark_knee(axes: Axes, line: Sequence[Load], color: str) -> None:
    """Draw a ring where the line meets the workers' own pace, with its number."""
    found = knee(line)
    if found is None:
        return
    height = max(point.rate for point in line)
    axes.plot(found, height, "o", markersize=11, fillstyle="none", color=color)
    lift = -10 if line[0].servers == 1 else 5  # knees may lie close together
    axes.annotate(
        f"{found:.1f}",
        (found, height),
        xytext=(-9, lift),
        textcoords="offset points",
        ha="right",
        color=color,
    )


def _legend(style: looks.Series) -> list[Line2D]:
    ink = mpl.rcParams["text.color"]
    handles = [
        Line2D([], [], color=color, marker=marker, label=name)
        for name, (color, marker, _) in style.items()
    ]
    ring: dict[str, Any] = {"marker": "o", "markersize": 11, "fillstyle": "none"}
    return [
        *handles,
        Line2D([], [], color=ink, linestyle="--", label="ideal: no waiting"),
        Line2D([], [], color=ink, linestyle="", label="knee", **ring),
    ]


def _loads(study: Study) -> Sequence[Load]:
    return study.loads


FIGURE = Kind("servers", CAPTION, servers_against_workers, _loads, has_data)
