"""What the warnings of a report are drawn from."""

from collections.abc import Sequence
from dataclasses import dataclass

from dsgd_bench.analysis.comparison import Line
from dsgd_bench.analysis.rows import Row
from dsgd_bench.report.collect import Collected


@dataclass(frozen=True)
class Evidence:
    """What the warnings are drawn from: one study's lines and what was not readable.

    Attributes
    ----------
    lines : sequence of Line
        The table of the study.
    collected : Collected
        The folder the lines came from.
    """

    lines: Sequence[Line]
    collected: Collected

    @property
    def rows(self) -> list[Row]:
        """Every run of the study."""
        return [row for line in self.lines for row in line.group.rows]
