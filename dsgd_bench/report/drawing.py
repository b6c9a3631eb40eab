"""From a figure to its files: a PNG, and pictures for both papers of the page."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from dsgd_bench.analysis.comparison import Line
from dsgd_bench.io import files
from dsgd_bench.io.escape import plain
from dsgd_bench.report import looks

Plan: TypeAlias = tuple[Path, Callable[[], Figure], str]
"""Where a figure goes, what draws it, and its caption."""

Lines: TypeAlias = Sequence[Line]
"""What a figure shows: points of a study."""


Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Kind(Generic[Subject]):
    """One kind of figure: every ``*_figure.py`` declares one, called ``FIGURE``.

    Attributes
    ----------
    name : str
        What its file is called, after the study's name.
    caption : str
        What it shows, in a sentence.
    draw : callable
        From its data to the figure.
    data : callable
        From what it is about (all studies, one study, or the lines of one case) to its
        data.
    has_data : callable
        Whether there is anything to draw.
    """

    name: str
    caption: str
    draw: Callable[[Any], Figure]
    data: Callable[[Subject], Any]
    has_data: Callable[[Any], bool] = bool

    def plan(
        self, about: Subject, folder: Path, stem: str = "", of: str = ""
    ) -> Iterator[Plan]:
        """Yield the figure if there is data for it.

        Parameters
        ----------
        about : Subject
            What it is about.
        folder : Path
            Where it goes.
        stem, of : str
            What it is about, as its file's name and its caption begin; nothing for all
            studies.
        """
        data = self.data(about)
        if self.has_data(data):
            path = folder / ("-".join(filter(None, (stem, self.name))) + ".png")
            caption = ": ".join(filter(None, (of, self.caption)))
            yield path, partial(self.draw, data), caption


def lines_of(case: Lines) -> Lines:
    """Return the data of figures that show the lines of one case, all of them."""
    return case


@dataclass(frozen=True)
class Drawing:
    """One figure, drawn.

    Attributes
    ----------
    path : Path
        The PNG, for light paper.
    caption : str
        What it shows, in a sentence.
    light, dark : str
        SVG for the page's two color schemes.
    """

    path: Path
    caption: str
    light: str
    dark: str


def draw(path: Path, drawn: Callable[[], Figure], caption: str) -> Drawing:
    """Draw into a PNG, and as SVG for either paper.

    Raises
    ------
    OSError
        If the PNG cannot be written.
    """
    with looks.paper(), files.replacing(path) as scratch:
        figure, text = drawn(), io.StringIO()
        figure.savefig(scratch, format="png")
        # Nothing has moved since: laying out again would take as long as drawing.
        figure.set_layout_engine("none")
        figure.savefig(text, format="svg", metadata={"Date": None})
    # labels stand in comments, where an escape sequence would make it no SVG
    svg = "\n".join(map(plain, text.getvalue().split("\n")))
    return Drawing(path, caption, svg, looks.darkened(svg))


def plain_log(axis: Axis) -> None:
    """Label a log axis with plain numbers: 0.2, 0.5, 1, 2, 5, 10."""
    low, high = axis.get_view_interval()
    if low > 0.0 and high / low < 2e3:  # else they would not fit
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
