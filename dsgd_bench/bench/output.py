"""How a benchmark is asked and how it answers, in the manner of the OSU benchmarks."""

import argparse
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dsgd_bench import provenance
from dsgd_bench.analysis.statistics import quantile
from dsgd_bench.fabric.base import Fabric

KIB, MIB, GIB = 1024, 1024**2, 1024**3
UNITS = {"": 1, "K": KIB, "M": MIB, "G": GIB}
SIZE = re.compile(r"(\d+)([KMG]?)(?:I?B)?", re.IGNORECASE)

Row = dict[str, str]
"""One line of a table: heading and cell of each column."""


class Parser(argparse.ArgumentParser):
    """The flags that all benchmarks share.

    Parameters
    ----------
    name : str
        Name of the benchmark.
    iterations, warm_up : int
        Defaults of ``-i`` and ``-x``.
    """

    def __init__(self, name: str, *, iterations: int, warm_up: int) -> None:
        super().__init__(prog=f"dsgd-bench bench {name}")
        add = self.add_argument
        add("-i", dest="iterations", type=count, metavar="N", default=iterations)
        add("-x", dest="warm_up", type=natural, metavar="N", default=warm_up)
        add(
            "-z",
            dest="percentiles",
            type=percentiles,
            metavar="P,...",
            default=(),
            help="also print these percentiles, such as 99,90",
        )
        add(
            "-f",
            dest="full",
            action="store_true",
            help="also print minimum, maximum and number of samples",
        )

    def add_sizes(self, default: tuple[int, ...]) -> None:
        """Add ``-m``, the sizes of what is measured, in bytes."""
        self.add_argument(
            "-m",
            "--size",
            dest="sizes",
            type=sizes,
            metavar="[MIN:]MAX",
            default=default,
            help="bytes of the models, with K, M or G; from MIN, doubling, to MAX",
        )

    def add_json(self) -> None:
        """Add ``--json``, for all numbers and not only their medians."""
        self.add_argument(
            "--json", type=Path, metavar="FILE", help="write all numbers there too"
        )


def count(text: str) -> int:
    """Read a number that is at least one."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def natural(text: str) -> int:
    """Read a number that is at least zero."""
    return 0 if text == "0" else count(text)


def percentiles(text: str) -> tuple[float, ...]:
    """Read "99,90" as (99.0, 90.0)."""
    found = tuple(float(word) for word in text.split(","))
    if not all(0 <= value <= 100 for value in found):
        raise argparse.ArgumentTypeError(f"{text}: percentiles lie between 0 and 100")
    return found


def size(text: str) -> int:
    """Read "4M", "256KiB" or "1000" as bytes."""
    match = SIZE.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size; write bytes, or a number with K, M or G"
        )
    return int(match[1]) * UNITS[match[2].upper()]


def sizes(text: str) -> tuple[int, ...]:
    """Read "MAX" as one size, "MIN:MAX" as MIN, its doubles, and MAX."""
    words = text.split(":")
    if len(words) > 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not [MIN:]MAX")
    first, last = size(words[0]), size(words[-1])
    if first > last:
        raise argparse.ArgumentTypeError(f"{text!r}: the first size is the larger one")
    found = []
    while first < last:
        found.append(first)
        first *= 2
    return (*found, last)


def short(nbytes: int) -> str:
    """Return "4MiB" for 4194304, and "1000" for what is no whole number of units."""
    for unit, factor in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if nbytes % factor == 0:
            return f"{nbytes // factor}{unit}"
    return str(nbytes)


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
    name: str, seconds: Sequence[float], percentiles: Sequence[float], *, full: bool
) -> Row:
    """Return the columns that ``-z`` and ``-f`` add for one series of times, in ms."""
    ms = 1e3 * np.asarray(seconds)
    row = {
        f"{name} P{p:g}": f"{quantile(ms.tolist(), p / 100):.4g}" for p in percentiles
    }
    if full:
        row[f"{name} Min"] = f"{ms.min():.4g}"
        row[f"{name} Max"] = f"{ms.max():.4g}"
        row[f"{name} Samples"] = str(ms.size)
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
    """
    content = {
        "command": line,
        "device": device,
        "provenance": provenance.collect(),
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def fom(name: str, value: float, unit: str) -> str:
    """Return the line of one figure of merit."""
    return f"FOM {name} {value:.4g} {unit}"
