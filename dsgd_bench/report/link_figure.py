"""The figure of runs on links of known rates: every time per step beside its bound."""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dsgd_bench.analysis.comparison import Line
from dsgd_bench.analysis.rows import per_step
from dsgd_bench.report import looks
from dsgd_bench.report.drawing import Kind
from dsgd_bench.report.link_table import bound, condition, lines
from dsgd_bench.report.numbers import TIMES

CAPTION = (
    "time per step beside the least that the algorithm's rule allows on such links;"
    " dots are runs, the bar is their median."
)
MEASURED = looks.SPAN_COLORS["update"]
PANELS_PER_ROW = 2


def has_data(lines: Sequence[Line]) -> bool:
    """Say whether any line has a bound and a time per step."""
    return any(_drawn(line) for line in lines)


def steps_beside_bounds(lines: Sequence[Line]) -> Figure:
    """Draw one panel per condition of links and compute; one bar per algorithm."""
    shown = [line for line in lines if _drawn(line)]
    panels: dict[str, list[Line]] = {}
    for line in shown:
        panels.setdefault(condition(line), []).append(line)
    columns = min(len(panels), PANELS_PER_ROW)
    rows = -(-len(panels) // columns)
    most = max(map(len, panels.values()))
    size = (5.8 * columns, (0.3 * most + 1.1) * rows + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (title, chosen) in zip(grid.flat, panels.items(), strict=False):
        _panel(axes, chosen)
        axes.set_title(title)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[-1, :]:
        axes.set_xlabel("time per step [ms]")
    ink = mpl.rcParams["text.color"]
    tick = Line2D([], [], color=ink, linestyle="", marker="|", markersize=12)
    bar = Patch(color=MEASURED)
    names = ["measured", "bound"]
    figure.legend([bar, tick], names, loc="outside upper left", ncols=2)
    return figure


def _drawn(line: Line) -> bool:
    return bool(bound(line) and line.group.values(per_step))


def _panel(axes: Axes, lines: Sequence[Line]) -> None:
    """Draw the bars of one condition, the first on top, with their ratios."""
    ink = mpl.rcParams["text.color"]
    widest = 0.0
    for place, line in enumerate(lines):
        measured = 1e3 * (line.group.median(per_step) or 0.0)
        least = 1e3 * (bound(line) or 0.0)
        axes.barh(place, measured, height=0.62, color=MEASURED)
        axes.plot([least, least], [place - 0.4, place + 0.4], color=ink, linewidth=2)
        runs = [1e3 * value for value in line.group.values(per_step)]
        if len(runs) > 1:
            axes.plot(
                runs, [place] * len(runs), "o", color=ink, alpha=0.4, markersize=4
            )
        far = max([measured, least, *runs])
        ratio = f" {measured / least:.2f} {TIMES}"
        axes.text(far, place, ratio, va="center", ha="left", color=ink, fontsize=8.5)
        widest = max(widest, far)
    axes.set_yticks(range(len(lines)), [line.algorithm for line in lines])
    axes.set(ylim=(len(lines) - 0.4, -0.6), xlim=(0, 1.16 * widest))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


FIGURE = Kind("bounds", CAPTION, steps_beside_bounds, lines, has_data)
