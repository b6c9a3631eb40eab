"""The study's table as plain text, folded where the terminal is too narrow."""

import shutil
from collections.abc import Sequence
from dataclasses import replace

from dsgd_bench.io.escape import plain
from dsgd_bench.report.tables import Column, Table

GAP = "  "
NO_TERMINAL = 220
"""Characters per line where the output goes to a file or pipe."""


def width() -> int:
    """Return the characters per line of the terminal, or `NO_TERMINAL`."""
    return shutil.get_terminal_size((NO_TERMINAL, 24)).columns


def render(table: Table, *, columns: int | None = None) -> str:
    """Return the table as lines of at most `columns` characters.

    Where it does not fit, the right-hand columns follow below, with the labels again.
    """
    limit = width() if columns is None else columns
    table = _plain(table)
    return "\n\n".join(_block(table, chosen) for chosen in _folds(table, limit))


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
    return max(len(text) for text in (column.name, column.unit, *cells))
