"""How a benchmark is asked, in the manner of the OSU benchmarks; cheap to import."""

import argparse
import re
from pathlib import Path

KIB, MIB, GIB = 1024, 1024**2, 1024**3
UNITS = {"": 1, "K": KIB, "M": MIB, "G": GIB}
SIZE = re.compile(r"(\d+)([KMG]?)(?:I?B)?", re.IGNORECASE)


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
        add_samples(self, iterations=iterations, warm_up=warm_up)

    def add_sizes(self, default: tuple[int, ...]) -> None:
        """Add ``-m``, the sizes of what is measured, in bytes."""
        add_sizes(self, default)

    def add_json(self) -> None:
        """Add ``--json``, for all numbers and not only their medians."""
        self.add_argument(
            "--json", type=Path, metavar="FILE", help="write all numbers there too"
        )


def add_samples(
    parser: argparse.ArgumentParser, *, iterations: int, warm_up: int
) -> None:
    """Add ``-i``, ``-x``, ``-z`` and ``-f``: how often, and what is printed of it."""
    add = parser.add_argument
    add(
        "-i",
        dest="iterations",
        type=count,
        metavar="N",
        default=iterations,
        help=f"samples that count (default: {iterations})",
    )
    add(
        "-x",
        dest="warm_up",
        type=natural,
        metavar="N",
        default=warm_up,
        help=f"samples that come before them (default: {warm_up})",
    )
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


def add_sizes(
    parser: argparse.ArgumentParser,
    default: tuple[int, ...],
    what: str = "of the models",
) -> None:
    """Add ``-m``, the sizes of what is measured, in bytes."""
    parser.add_argument(
        "-m",
        "--size",
        dest="sizes",
        type=sizes,
        metavar="[MIN:]MAX",
        default=default,
        help=f"bytes {what}, with K, M or G; from MIN, doubling, to MAX",
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
