"""How many models are sent per gradient: what the cost of every algorithm says."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil

from dsgd_bench.algorithms.base import Algorithm
from dsgd_bench.analysis.comparison import Line
from dsgd_bench.analysis.findings import Finding, entry, judged, setting, unknown, whole
from dsgd_bench.analysis.summary import Row

EXACT = 0.01
"""Tolerance of a number of models: push-sum weights and headers travel along."""

INSTEAD = {
    "acid": (
        1.0,
        "one-sided: whoever starts an exchange moves its partner's momentum copy too,"
        " which a two-sided exchange need not",
    )
}
"""Models per gradient of the paper where our form sends another number, and why."""

NO_SIZE = "the trace does not say how large a model is: run again"


def models(
    algorithm: Algorithm, row: Row, exchanges: float | None
) -> tuple[float, float]:
    """Return the fewest and the most models that a worker sends per gradient.

    Parameters
    ----------
    algorithm : Algorithm
        Its cost: `Algorithm.sent`, or what follows from its rule.
    row : Row
        Settings and number of workers.
    exchanges : float or None
        Pairwise exchanges per gradient as measured, where their number is a result.
    """
    n, kind = row.workers, algorithm.name
    known = algorithm.sent(row.settings, row.ranks)
    if known is not None:
        return known, known
    if kind == "dasgd":  # fewer if the network is slower
        return 0.0, (n - 1) / (whole(row, "every") or n)
    if kind == "postlocal":
        return 1.0 / whole(row, "every"), 1.0
    if kind in ("osgp", "swift"):
        degree = algorithm.graphs(row.settings, row.ranks)["graph"].messages_per_step()
        if kind == "osgp":
            degree /= max(whole(row, "tau"), 1)
        return (degree if kind == "osgp" else 0.0), degree
    return exchanges or 0.0, exchanges or 0.0


def per_gradient(lines: Sequence[Line]) -> Iterator[Finding]:
    """Compare what workers send with the cost of their algorithm."""
    for line in lines:
        algorithm, row = entry(line), line.group.first
        if algorithm is None or row.workers < 2:
            continue
        sent = line.group.median("bytes_per_gradient")
        if not row.model_bytes or sent is None:
            yield unknown(line, NO_SIZE if sent is not None else "no run told")
            continue
        if setting(row, "early_epochs"):
            yield unknown(line, "it sends otherwise in its first epochs")
            continue
        exchanges = line.group.median("exchanges_per_gradient")
        low, high = models(algorithm, row, exchanges)
        why = "the run ended early, or the account of bytes is wrong"
        if algorithm.name in INSTEAD:
            low, why = INSTEAD[algorithm.name]
            high = low
        slack = _slack(high, row)
        yield judged(
            line,
            sent / row.model_bytes,
            low=max(low * (1 - EXACT) - slack, 0.0),
            high=high * (1 + EXACT) + slack,
            why=why,
        )


def servers(lines: Sequence[Line]) -> Iterator[Finding]:
    """Compare what all servers send and receive with what the workers do."""
    for line in lines:
        algorithm, row = entry(line), line.group.first
        if algorithm is None or not row.servers:
            continue
        for name in ("server_bytes_in", "server_bytes_out"):
            carried = line.group.median(name)
            if not row.model_bytes or carried is None:
                yield unknown(line, NO_SIZE if carried is not None else "no run told")
                continue
            expected, _ = models(algorithm, row, None)
            slack = _slack(expected, row)
            found = judged(
                line,
                carried / row.model_bytes,
                low=expected * (1 - EXACT) - slack,
                high=expected * (1 + EXACT) + slack,
                why="what servers and workers carried differs",
            )
            way = "received" if name.endswith("in") else "sent"
            yield replace(found, subject=f"{found.subject}, {way}")


def _slack(expected: float, row: Row) -> float:
    """Return what one round of messages, unsent or unrecorded at the end, makes."""
    gradients = sum(row.steps_per_rank)
    return ceil(expected) * row.workers / gradients if gradients else 0.0
