"""What the servers did, as CSV: the numbers of the figure, headers with units."""

import csv
import io
from collections.abc import Mapping, Sequence

from dsgd_bench.analysis.servers import NUMBERS, Load, points
from dsgd_bench.io.escape import cell

UNITS = {
    "rate": "1/s",
    "unhindered": "1/s",
    "bytes_in": "byte/s",
    "bytes_out": "byte/s",
}
"""Units of `analysis.servers.NUMBERS`; the others are shares."""


def comma_separated(studies: Mapping[str, Sequence[Load]]) -> str:
    """Return one CSV line per point of every study, by the study's name."""
    heads = ["study", "algorithm", "servers", "workers"]
    heads += [f"{name} [{UNITS.get(name, '1')}]" for name in NUMBERS]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    for study, loads in studies.items():
        for point in points(loads):
            measured = [getattr(point, name) for name in NUMBERS]
            labels = [study, point.algorithm, point.servers, point.workers]
            writer.writerow(map(cell, labels + measured))
    return text.getvalue()
