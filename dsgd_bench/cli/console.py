"""Where tables are printed, and how sizes and durations are written."""

import math
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dsgd_bench.io.escape import plain

PIPE_WIDTH = 140
"""Columns of a table that does not go to a terminal."""

UNLIMITED = 100_000
"""Columns that no table needs."""


class Plain(Console):
    """Shows every text as it is: on one line, without markup, pictures or escapes.

    What we mark or break into lines ourselves is given as a `Text` of our own words.
    """

    def render_str(self, text: str, **how: Any) -> Text:
        """Return a text that is shown as it is."""
        kept = ("style", "justify", "overflow")
        return Text(plain(text), **{name: how[name] for name in kept if name in how})


def size(nbytes: float) -> str:
    """Return a number of bytes with its unit, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024 or unit == "GiB":
            break
        nbytes /= 1024
    return f"{nbytes:.3g} {unit}"


def duration(seconds: float) -> str:
    """Return seconds as hours, minutes and seconds."""
    if not math.isfinite(seconds):
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{n} {unit}" for n, unit in parts if n) or "0 s"


def console() -> Console:
    """Return where tables are printed; a pipe gets lines wide enough for them."""
    found = Plain(highlight=False)
    return found if found.is_terminal else Plain(highlight=False, width=PIPE_WIDTH)


def print_whole(out: Console, table: Table) -> None:
    """Print a table; a pipe gets lines so wide that no cell is broken."""
    if out.is_terminal:
        out.print(table)
    else:
        needed = out.measure(table, options=out.options.update(max_width=UNLIMITED))
        out.width = max(PIPE_WIDTH, needed.maximum)
        out.print(table)
        out.width = PIPE_WIDTH
