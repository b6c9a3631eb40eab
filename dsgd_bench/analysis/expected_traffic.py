"""How many models are sent per gradient: what the cost of every algorithm says."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import ceil, inf

from dsgd_bench.algorithms.base import Algorithm
from dsgd_bench.analysis.comparison import Line
from dsgd_bench.analysis.findings import Finding, entry, judged, unknown
from dsgd_bench.analysis.rows import Measure, Row

EXACT = 0.01
"""Tolerance of a number of models: push-sum weights and headers travel along."""

NO_SIZE = "the trace does not say how large a model is: run again"


def models(
    algorithm: Algorithm, row: Row, exchanges: float | None
) -> tuple[float, float]:
    """Return the fewest and the most models that a worker sends per gradient.

    Parameters
    ----------
    algorithm : Algorithm
        What it says that it sends.
    row : Row
        Settings and number of workers.
    exchanges : float or None
        Pairwise exchanges per gradient as measured, where their number is a result.
    """
    least, most = algorithm.models(algorithm.setup(row.trial.settings, row.trial.ranks))
    if most == inf:  # as many as there are exchanges
        return exchanges or 0.0, exchanges or 0.0
    return least, most


def per_gradient(lines: Sequence[Line]) -> Iterator[Finding]:
    """Compare what workers send with the cost of their algorithm."""
    for line in lines:
        algorithm, row = entry(line), line.group.first
        if algorithm is None or row.trial.workers < 2:
            continue
        sent = line.group.median(lambda row: row.traffic.bytes_out)
        if not row.traffic.model_bytes or sent is None:
            yield unknown(line, NO_SIZE if sent is not None else "no run has it")
            continue
        exchanges = line.group.median(lambda row: row.traffic.exchanges)
        low, high = models(algorithm, row, exchanges)
        why = "the run ended early, or the account of bytes is wrong"
        if other := algorithm.other_traffic:
            low, high, why = other.models, other.models, other.why
        slack = _slack(high, row)
        yield judged(
            line,
            sent / row.traffic.model_bytes,
            low=max(low * (1 - EXACT) - slack, 0.0),
            high=high * (1 + EXACT) + slack,
            why=why,
        )


SERVER_WAYS: Mapping[str, Measure] = {
    "received": lambda row: row.traffic.server_in,
    "sent": lambda row: row.traffic.server_out,
}


def servers(lines: Sequence[Line]) -> Iterator[Finding]:
    """Compare what all servers send and receive with what the workers do."""
    for line in lines:
        algorithm, row = entry(line), line.group.first
        if algorithm is None or not row.trial.servers:
            continue
        for way, of in SERVER_WAYS.items():
            carried = line.group.median(of)
            if not row.traffic.model_bytes or carried is None:
                yield unknown(line, NO_SIZE if carried is not None else "no run has it")
                continue
            expected, _ = models(algorithm, row, None)
            slack = _slack(expected, row)
            found = judged(
                line,
                carried / row.traffic.model_bytes,
                low=expected * (1 - EXACT) - slack,
                high=expected * (1 + EXACT) + slack,
                why="what servers and workers carried differs",
            )
            yield replace(found, subject=f"{found.subject}, {way}")


def _slack(expected: float, row: Row) -> float:
    """Return what one round of messages, unsent or unrecorded at the end, makes."""
    gradients = sum(row.times.steps_per_rank)
    return ceil(expected) * row.trial.workers / gradients if gradients else 0.0
