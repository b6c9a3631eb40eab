"""Benchmarks of the framework itself: what it adds to bare MPI, what recording costs.

In the manner of the OSU benchmarks: lines that begin with ``#`` say what was used, then
come tables, then a line ``FOM name value unit`` per figure of merit, and at last the
command. What is compared is interleaved in random order, since computers change their
speed over minutes; figures are medians, and ratios carry their interval.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dsgd_bench.bench.averaging import AverageOptions, average
from dsgd_bench.bench.record import RecordingOptions, recording

__all__ = [
    "BENCHMARKS",
    "AverageOptions",
    "Benchmark",
    "RecordingOptions",
    "average",
    "recording",
]


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: its options, and what every rank runs.

    Attributes
    ----------
    options : type
        Has ``from_argv(words)``; the result says on how many ``ranks``.
    rank : callable
        ``rank(fabric, options)``, collective; rank 0 prints.
    summary : str
        What it is for, in one line.
    """

    options: type[AverageOptions] | type[RecordingOptions]
    rank: Callable[[Any, Any], None]
    summary: str


BENCHMARKS = {
    "average": Benchmark(
        AverageOptions, average, "pairwise averaging and steps against bare MPI calls"
    ),
    "recording": Benchmark(
        RecordingOptions, recording, "what the trace costs, and whether it adds up"
    ),
}
"""Every benchmark by its name."""
