"""How a benchmark answers, in the manner of the OSU benchmarks."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dsgd_bench.analysis.statistics import quantile
from dsgd_bench.errors import ConfigError
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.host import provenance
from dsgd_bench.io.files import write_text

Row = dict[str, str]
"""One line of a table: heading and cell of each column."""


def header(fabric: Fabric, title: str, facts: dict[str, str]) -> list[str]:
    """Return the lines that say what is measured, where and with what."""
    hosts = ", ".join(dict.fromkeys(fabric.nodes()))
    about = {"Ranks": f"{fabric.size} on {hosts}", **facts}
    return [f"# dsgd-bench {title}", *(f"# {key}: {about[key]}" for key in about)]


def table(rows: Sequence[Row]) -> list[str]:
    """Return a heading that begins with ``#`` and one line per row, in columns."""
    names = list(rows[0])
    lines = [["# " + names[0], *names[1:]], *([row[n] for n in names] for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(names))]
    return [
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def spread(
    name: str,
    seconds: Sequence[float],
    percentiles: Sequence[float],
    *,
    full: bool,
    per_second: float = 1e3,
) -> Row:
    """Return the columns that ``-z`` and ``-f`` add for one series of times.

    In ms, or in the unit that a second has `per_second` of.
    """
    times = per_second * np.asarray(seconds)
    row = {
        f"{name} P{p:g}": f"{quantile(times.tolist(), p / 100):.4g}"
        for p in percentiles
    }
    if full:
        row[f"{name} Min"] = f"{times.min():.4g}"
        row[f"{name} Max"] = f"{times.max():.4g}"
        row[f"{name} Samples"] = str(times.size)
    return row


def command(name: str, words: Sequence[str]) -> str:
    """Return the line that repeats a benchmark."""
    return shlex.join(["dsgd-bench", "bench", name, *words])


def write_json(
    path: Path, line: str, device: dict[str, str], rows: Sequence[dict[str, Any]]
) -> None:
    """Write what was measured, and where it comes from.

    Parameters
    ----------
    path : Path
        The file; its folder is made.
    line : str
        From `command`.
    device : dict
        What was measured on, and how.
    rows : sequence of dict
        One for each series of times, ready for JSON.

    Raises
    ------
    ConfigError
        If it cannot be written.
    """
    content = {
        "command": line,
        "device": device,
        "provenance": provenance.collect(),
        "rows": rows,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"--json {path} cannot be written: {error}") from None


def fom(name: str, value: float, unit: str) -> str:
    """Return the line of one figure of merit."""
    return f"FOM {name} {value:.4g} {unit}"
