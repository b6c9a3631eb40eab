"""How a benchmark is asked, in the manner of the OSU benchmarks; cheap to import."""

import argparse
import math
import re
from pathlib import Path

from dsgd_bench.host import environment
from dsgd_bench.spec.ranges import LARGEST_SEED, MOST_RANKS

KIB, MIB, GIB = 1024, 1024**2, 1024**3
UNITS = {"": 1, "K": KIB, "M": MIB, "G": GIB}
LARGEST = 2**40
"""Bytes of anything that is measured."""
SIZE = re.compile(r"([0-9]{1,15})([KMG]?)(?:I?B)?", re.IGNORECASE)

MOST_SAMPLES = 10**7
"""Times that something is timed at most: all are kept in memory."""

DAY = 86_400.0
"""Seconds."""

SHOWN = 40
"""Characters that a sentence shows of a wrong word."""


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
        type=samples,
        metavar="N",
        default=iterations,
        help=f"samples that count (default: {iterations})",
    )
    add(
        "-x",
        dest="warm_up",
        type=warm_ups,
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


def whole(text: str, least: int, most: int) -> int:
    """Read a whole number with both ends.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is none, with the ends.
    """
    try:
        value = int(text)
    except ValueError:  # of thousands of digits, too
        value = least - 1
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(
            f"{text[:SHOWN]!r} is not a whole number from {least} to {most}"
        )
    return value


def count(text: str) -> int:
    """Read how many there are of something, at least one."""
    return whole(text, 1, 10**9)


def samples(text: str) -> int:
    """Read how often something is timed."""
    return whole(text, 1, MOST_SAMPLES)


def warm_ups(text: str) -> int:
    """Read how often something is done before it is timed."""
    return whole(text, 0, MOST_SAMPLES)


def ranks(text: str) -> int:
    """Read a number of ranks."""
    return whole(text, 1, MOST_RANKS)


def rank(text: str) -> int:
    """Read the number of one rank."""
    return whole(text, 0, MOST_RANKS - 1)


def seed(text: str) -> int:
    """Read a seed."""
    return whole(text, 0, LARGEST_SEED)


def seconds(text: str) -> float:
    """Read seconds above zero, at most a day."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= DAY:
        raise argparse.ArgumentTypeError(
            f"{text[:SHOWN]!r} is not a number of seconds above 0 and up to {DAY:g}"
        )
    return value


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
            f"{text[:SHOWN]!r} is not a size; write bytes, or a number with K, M or G"
        )
    found = int(match[1]) * UNITS[match[2].upper()]
    there = environment.available_memory()
    if found > (LARGEST if there is None else min(there, LARGEST)):
        raise argparse.ArgumentTypeError(
            f"{text} is more than the memory that is left here"
        )
    return found


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
