"""One `Table` as text for a terminal, as Markdown, and as HTML for the page.

What is foreign in a cell is made safe here, each time for the place where it is shown
(`io.escape`). HTML is made by templates only (``templates/``), in which every value
that is no markup passes through `escape.html`, so that none can be forgotten.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from dsgd_bench.io import escape
from dsgd_bench.io.escape import plain
from dsgd_bench.report.looks import SPAN_COLORS
from dsgd_bench.report.numbers import percent
from dsgd_bench.report.tables import AGAINST, Column, Table

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).parent / "templates"

GAP = "  "
NO_TERMINAL = 220
"""Characters per line where the output goes to a file or pipe."""


def width() -> int:
    """Return the characters per line of the terminal, or `NO_TERMINAL`."""
    return shutil.get_terminal_size((NO_TERMINAL, 24)).columns


def text(table: Table, columns: int) -> str:
    """Return the table as lines of at most `columns` characters.

    Where it does not fit, the right-hand columns follow below, with the labels again.
    """
    table = _plain(table)
    return "\n\n".join(_block(table, chosen) for chosen in _folds(table, columns))


def markdown(table: Table) -> str:
    """Return the table with pipes, every head with its unit: "epoch [s]"."""
    heads = [
        f"{column.name} [{column.unit}]" if column.unit else column.name
        for column in table.columns
    ]
    marks = [":--" if column.left else "--:" for column in table.columns]
    rows = [heads, marks, *([*map(escape.markdown, row)] for row in table.cells)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def html(table: Table, bars: Sequence[Mapping[str, float]] = ()) -> Markup:
    """Return the table as an element of a page.

    Parameters
    ----------
    table : Table
    bars : sequence of mappings, optional
        Shares of the time, from 0 to 1, by span, one mapping per row: drawn as a bar
        in a column beside the comparison with the reference.
    """
    return Markup(template("table.html.jinja").render(table=table, bars=bars))


@cache
def template(name: str) -> "jinja2.Template":
    """Return one of the templates of the page; whatever it prints is escaped."""
    import jinja2  # slow to import, and a terminal's table needs none of it

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=True,  # what `_escaped` returns is left alone
        finalize=_escaped,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"AGAINST": AGAINST, "COLORS": SPAN_COLORS}
    environment.filters |= {"percent": percent}
    return environment.get_template(name)


def _escaped(value: object) -> Markup:
    """Return a value as markup; what is markup already stays as it is."""
    return value if isinstance(value, Markup) else Markup(escape.html(str(value)))


def _plain(table: Table) -> Table:
    """Return the table with every cell on one line."""
    columns = tuple(
        replace(column, name=plain(column.name), unit=plain(column.unit))
        for column in table.columns
    )
    cells = tuple(tuple(map(plain, row)) for row in table.cells)
    return Table(columns, cells, table.rules)


def _folds(table: Table, limit: int) -> list[list[int]]:
    """Return the columns of each block; labels, being text, open every block."""
    labels = [i for i, column in enumerate(table.columns) if column.left]
    room = limit - sum(_width(table, i) + len(GAP) for i in labels)
    blocks: list[list[int]] = []
    left = 0
    for i in (i for i in range(len(table.columns)) if i not in labels):
        need = _width(table, i) + len(GAP)
        # The line ends without a gap.
        if not blocks or left + len(GAP) < need:
            blocks.append([*labels])
            left = room
        blocks[-1].append(i)
        left -= need
    return blocks


def _block(table: Table, chosen: Sequence[int]) -> str:
    columns = [table.columns[i] for i in chosen]
    widths = [_width(table, i) for i in chosen]
    rule = "─" * (sum(widths) + len(GAP) * (len(widths) - 1))
    lines = [
        _join([column.name for column in columns], columns, widths),
        _join([column.unit for column in columns], columns, widths),
        rule,
    ]
    for place, row in enumerate(table.cells):
        if place in table.rules:
            lines.append("")
        lines.append(_join([row[i] for i in chosen], columns, widths))
    return "\n".join(lines)


def _join(
    cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]
) -> str:
    padded = [
        cell.ljust(width) if column.left else cell.rjust(width)
        for cell, column, width in zip(cells, columns, widths, strict=True)
    ]
    return GAP.join(padded).rstrip()


def _width(table: Table, place: int) -> int:
    column = table.columns[place]
    cells = [row[place] for row in table.cells]
    return max(map(len, (column.name, column.unit, *cells)))
