"""The report as one HTML file that needs no other: tables, figures, warnings.

Its markup is in ``templates/``; here is what fills it.
"""

import base64
from collections.abc import Sequence
from typing import Protocol

from dsgd_bench.report import across, renderers, tables, verdicts, verification
from dsgd_bench.report.study import Study


class Drawn(Protocol):
    """A figure for both color schemes; `figures.Drawing` is one."""

    @property
    def caption(self) -> str:
        """What it shows, in a sentence."""

    @property
    def light(self) -> str:
        """SVG for light paper."""

    @property
    def dark(self) -> str:
        """SVG for dark paper."""


def render(studies: Sequence[Study], command: str, drawings: Sequence[Drawn]) -> str:
    """Return the page.

    Parameters
    ----------
    studies : sequence of Study
    command : str
        What made the report; the page's last line.
    drawings : sequence of Drawn
        Figures, embedded as SVG.
    """
    return renderers.template("page.html.jinja").render(
        studies=studies,
        sections=list(across.sections(studies)),
        drawings=drawings,
        command=command,
        results=_results,
        html=renderers.html,
        embedded=_embedded,
        verification=verification,
        verdicts=verdicts,
    )


def _results(study: Study) -> str:
    """Return the table of results, with bars in the place of most columns of shares."""
    bars = [tables.shown_shares(line.group) for line in study.lines]
    return renderers.html(tables.without(study.results, tables.BARS), bars)


def _embedded(svg: str) -> str:
    """Return a drawing as an address that holds it whole."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
