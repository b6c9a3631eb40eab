"""Colors and line styles of the figures, on light and on dark paper.

A user's own settings of the drawing library are left aside: they may ask for LaTeX, for
a font that is not there or for a window, and figures of two users would differ.

Colors are Okabe and Ito's (2008), told apart under the common color blindnesses.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

SPAN_COLORS = {
    "compute": "#009e73",
    "injected": "#e69f00",
    "waiting": "#d55e00",
    "transfer": "#0072b2",
    "update": "#56b4e9",
    "other": "#9aa0a6",
}
"""One color per shown span; the page uses the same ones."""

SERIES = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "D", "s", "^", "v", "P")

BACKGROUND, INK, FAINT = "#ffffff", "#23272e", "#b8bec7"
WHITE = "#fdfdfd"
"""White that stays white on dark pages."""
_DARK = {BACKGROUND: "#1b1f26", INK: "#dfe3e9", FAINT: "#59616e"}
_INKED = (
    "text.color",
    "axes.labelcolor",
    "axes.titlecolor",
    "xtick.color",
    "ytick.color",
)
_COMMON: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],  # comes with the library
    "text.parse_math": False,  # a dollar in a label is a dollar
    "font.size": 10.0,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "savefig.dpi": 160,
    "svg.hashsalt": "dsgd-bench",
}


PAPER: dict[Any, Any] = {
    **_COMMON,
    **dict.fromkeys(_INKED, INK),
    "figure.facecolor": BACKGROUND,
    "axes.facecolor": BACKGROUND,
    "savefig.facecolor": BACKGROUND,
    "axes.edgecolor": FAINT,
    "grid.color": FAINT,
    "grid.alpha": 0.45,
}
"""Settings of the drawing library that differ from its own ones."""

UNTOUCHED = ("backend", "interactive", "timezone", "toolbar")
"""Settings that say how to show figures in windows, which is not done here."""

DASHES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
"""Line styles, one per round through the colors."""


@contextmanager
def own_settings() -> Iterator[None]:
    """Let the drawing library be loaded in a ``with`` block, whatever the user has set.

    A backend that it does not know, such as a notebook's, keeps it from being loaded;
    and where it cannot keep its cache it says so, which is nobody's concern here.
    """
    before = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = "agg"
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MPLBACKEND"]
        else:
            os.environ["MPLBACKEND"] = before


@contextmanager
def paper() -> Iterator[None]:
    """Draw in a ``with`` block with the library's own settings and `PAPER`."""
    import matplotlib as mpl

    # the values themselves: to ask for them one by one warns of those that are old
    own = {
        name: value
        for name, value in dict.items(mpl.rcParamsDefault)
        if name not in UNTOUCHED
    }
    with mpl.rc_context({**own, **PAPER}):
        yield


def said(error: BaseException) -> str:
    """Return what an error says, in a line, with its kind where that is needed."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if isinstance(error, OSError) else f"{type(error).__name__}: {words}"


def darkened(svg: str) -> str:
    """Return a drawing for dark pages: the same, with paper and ink exchanged."""
    for light, dark in _DARK.items():
        svg = svg.replace(light, dark)
    return svg


class Look(NamedTuple):
    """How one algorithm is drawn; no two of them alike."""

    color: str
    marker: str
    dash: Literal["-", "--", ":", "-."]


Series = Mapping[str, Look]
"""The look of every algorithm."""


def series(labels: Sequence[str]) -> Series:
    """Return a look for every algorithm, by order of appearance.

    When the colors have been used up they begin anew, with other markers and dashes.
    """
    found = {}
    for i, label in enumerate(dict.fromkeys(labels)):
        again, color = divmod(i, len(SERIES))
        marker = MARKERS[(color + again) % len(MARKERS)]
        found[label] = Look(SERIES[color], marker, DASHES[again % len(DASHES)])
    return found


def ink_on(color: str) -> str:
    """Return black or white, whichever is easier to read on `color`."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#000000" if 0.3 * red + 0.59 * green + 0.11 * blue > 128 else WHITE
