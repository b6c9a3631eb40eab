"""The figure of what was measured and simulated: errors, and staleness of both."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from dsgd_bench.analysis.validation import Pair, shares
from dsgd_bench.report import looks
from dsgd_bench.report.drawing import Kind
from dsgd_bench.report.validation_table import pairs

CAPTION = (
    "simulated beside measured: the error of every time per epoch, and the share of"
    " gradients that are at most so stale."
)
BANDS = (5.0, 15.0)
"""Per cent: what half of the points, and all of them, are to stay within."""
BROAD: dict[str, Any] = {"linewidth": 5.0, "alpha": 0.35}
"""How measured shares are drawn: the simulated ones lie upon them."""


def has_data(pairs: Sequence[Pair]) -> bool:
    """Say whether any pair has an error to draw."""
    return any(pair.error is not None for pair in pairs)


def simulated_beside_measured(pairs: Sequence[Pair]) -> Figure:
    """Draw the errors against the number of ranks, then a panel per stale algorithm."""
    stale = _stale(pairs)
    figure = Figure(figsize=(5.6 + 3.4 * len(stale), 4.2), layout="constrained")
    widths = (1.5, *(1.0 for _ in stale))
    panels = figure.subplots(1, 1 + len(stale), width_ratios=widths, squeeze=False)[0]
    look = looks.series([pair.measured.algorithm for pair in pairs])
    _errors(panels[0], pairs, look)
    slowdowns = list(
        dict.fromkeys(_slowdown(p) for some in stale.values() for p in some)
    )
    colors = dict(zip(slowdowns, looks.SERIES * len(slowdowns), strict=False))
    for axes, (algorithm, some) in zip(panels[1:], stale.items(), strict=True):
        _staleness(axes, some, colors)
        ranks = some[0].measured.group.first.trial.ranks
        axes.set_title(f"Staleness: {algorithm}, {ranks} ranks")
    if stale:
        panels[1].set_ylabel("share of gradients at most so stale [1]")
        panels[-1].legend(handles=_sides(colors), loc="lower right", fontsize=8.5)
    figure.legend(handles=_names(look), loc="outside upper left", ncols=6)
    return figure


def _errors(axes: Axes, pairs: Sequence[Pair], look: looks.Series) -> None:
    """Draw every error; algorithms side by side where they have the same ranks."""
    ink = mpl.rcParams["text.color"]
    sizes = sorted({pair.measured.group.first.trial.ranks for pair in pairs})
    places = {size: place for place, size in enumerate(sizes)}
    names = list(look)
    for pair in pairs:
        if pair.error is None:
            continue
        name = pair.measured.algorithm
        aside = 0.6 * ((names.index(name) + 0.5) / len(names) - 0.5)
        place = places[pair.measured.group.first.trial.ranks] + aside
        color, marker, _ = look[name]
        axes.plot(place, 100 * pair.error, marker, color=color, alpha=0.8)
    for band in BANDS:
        axes.axhspan(-band, band, color=ink, alpha=0.06, linewidth=0)
        axes.annotate(
            f"± {band:.0f} %",
            (1.0, band),
            xycoords=("axes fraction", "data"),
            xytext=(0, -2),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8.5,
        )
    axes.axhline(0.0, color=ink, linewidth=0.9)
    axes.set_xticks(list(places.values()), [str(size) for size in sizes])
    axes.grid(visible=False, axis="x")
    axes.set(
        title="Time per epoch: simulated against measured",
        xlabel="ranks",
        ylabel="error [%]",
        xlim=(-0.5, len(sizes) - 0.5),
    )


def _stale(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """Return the pairs with staleness, by algorithm, of a middle number of ranks.

    With few ranks there is little of it, and with many a slow one is one of many.
    """
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        if pair.distance is not None and _varies(pair):
            found.setdefault(pair.measured.algorithm, []).append(pair)
    for name, some in found.items():
        sizes = sorted({pair.measured.group.first.trial.ranks for pair in some})
        middle = sizes[len(sizes) // 2]
        found[name] = [p for p in some if p.measured.group.first.trial.ranks == middle]
    return found


def _varies(pair: Pair) -> bool:
    return shares(pair.measured.group, pair.simulated.group)[0].size > 1


def _staleness(axes: Axes, pairs: Sequence[Pair], colors: dict[str, str]) -> None:
    """Draw both shares of every slowdown, on a scale that shows small and large."""
    for pair in pairs:
        values, measured, simulated = shares(pair.measured.group, pair.simulated.group)
        color = colors[_slowdown(pair)]
        axes.step(values + 1, measured, where="post", color=color, **BROAD)
        axes.step(values + 1, simulated, where="post", color=color)
    axes.set(xscale="log", ylim=(0, 1.02), xlabel="staleness + 1 (log scale)")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _slowdown(pair: Pair) -> str:
    return pair.measured.group.first.trial.slowdown


def _sides(colors: dict[str, str]) -> list[Line2D]:
    ink = mpl.rcParams["text.color"]
    return [
        Line2D([], [], color=ink, label="measured", **BROAD),
        Line2D([], [], color=ink, label="simulated"),
        *(
            Line2D([], [], color=color, label="no slowdown" if name == "none" else name)
            for name, color in colors.items()
        ),
    ]


def _names(look: looks.Series) -> list[Line2D]:
    return [
        Line2D([], [], linestyle="", color=color, marker=marker, label=name)
        for name, (color, marker, _) in look.items()
    ]


FIGURE = Kind("validation", CAPTION, simulated_beside_measured, pairs, has_data)
