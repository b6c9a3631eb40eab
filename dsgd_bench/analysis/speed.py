"""How long a step takes, beside its bound; and what links counted, beside our account.

Times per step are means over a whole run, not medians of steps: steps differ where an
exchange is due in some of them only.
"""

from typing import TYPE_CHECKING

import numpy as np

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.algorithms.facts import amount
from dsgd_bench.analysis.bounds import bound
from dsgd_bench.analysis.links import Links
from dsgd_bench.analysis.rows import Limits

if TYPE_CHECKING:
    from dsgd_bench.spec.trial import Trial
    from dsgd_bench.trace import Trace

FILLING = 1
"""Steps at the start that may wait for nothing, besides those of a warm-up setting."""

FEWEST = 3
"""Steps after these that a time per step takes."""

PAYLOAD = 1448 / 1514
"""Part of an Ethernet frame of 1500 bytes that TCP, with time stamps, carries."""


def limits(trace: "Trace") -> Limits:
    """Return what the machine allows: its links and the bound that they set."""
    links = Links.of(trace.provenance)
    return Limits(
        bound=bound(trace.trial, trace.model_bytes, links) if links else None,
        links=links.label if links else "",
    )


def time_per_step(trace: "Trace") -> float | None:
    """Return n over the gradients per second of all n workers; None for too few steps.

    Parameters
    ----------
    trace : Trace
        A merged trace.
    """
    works = trace["serves"] == 0.0
    starts = trace["start"][works]
    steps = np.isfinite(starts).sum(axis=1)
    skipped = FILLING + _warm_up(trace.trial)
    enough = bool((steps >= skipped + FEWEST).all()) and steps.size > 0
    if trace.status == "crashed" or not enough:
        return None
    last = (np.arange(steps.size), steps - 1)
    ends = starts[last] + trace["duration"][works][last]
    rates = (steps - skipped) / (ends - starts[:, skipped])
    return float(steps.size / rates.sum())


def _warm_up(trial: "Trial") -> int:
    """Return the steps at the start that are those of another algorithm."""
    known = ALGORITHMS.get(trial.algorithm.kind)
    if known is None:
        return 0
    return int(
        amount(known.warm_up, known.setup(trial.algorithm.settings, trial.ranks))
    )


def counted_bytes(trace: "Trace") -> float | None:
    """Return the payload that crossed the links over what the algorithm says it sent.

    1 if both agree. The devices' counters include the headers of every frame, of which
    `PAYLOAD` is the rest, and acknowledgments. None without counters, or where ranks
    share a host: what they send each other passes no device.

    Parameters
    ----------
    trace : Trace
        A merged trace.
    """
    counted = np.asarray(trace["link_bytes_out"], np.float64)
    trial, n = trace.trial, trace.trial.ranks
    sent = float(np.nansum(trace["bytes_out"]) + np.nansum(trace["drain_bytes_out"]))
    if known := ALGORITHMS.get(trial.algorithm.kind):
        if known.one_sided:
            into = np.nansum(trace["bytes_in"]) + np.nansum(trace["drain_bytes_in"])
            sent += float(into)
        setup = known.setup(trial.algorithm.settings, n)
        share = amount(known.all_reduced, setup)
        sent *= (1 - share) + share * 2 * (n - 1) / n
    alone = counted.size == n and bool((trace["node_ranks"] == 1).all())
    if not alone or not np.isfinite(counted).all() or not sent:
        return None
    return float(PAYLOAD * counted.sum() / sent)
