"""How stale every gradient was, where only the clocks of all ranks together can tell.

The definitions are in `dsgd_bench.algorithms.facts.STALENESS`, one per family. Versions
and steps travel with the data and were noted while the run lasted; counts over all
workers follow from the times of the steps, on the common clock.
"""

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]
"""One variable, shape (ranks, steps), padded with NaN."""


def applied_meanwhile(start: Table, duration: Table) -> Table:
    """Return tau_t: gradients of others applied from reading a model to updating it.

    A step reads its model when it starts and applies its gradient when it ends
    (AD-PSGD, arXiv:1710.06952: x_i at t - tau_t is what the gradient at t is taken at).
    """
    ends = start + duration
    known = np.isfinite(ends)
    tau = np.full_like(ends, np.nan)
    tau[known] = _between(ends[known], start[known], ends[known])
    for rank, own in enumerate(known):  # less the rank's own
        since, until = start[rank, own], ends[rank, own]
        tau[rank, own] -= _between(until, since, until)
    return tau


def _between(times: Table, since: Table, until: Table) -> Table:
    """Return how many of `times` lie after `since` and before `until`, pair by pair."""
    times = np.sort(times)
    before = np.searchsorted(times, until, side="left")
    return (before - np.searchsorted(times, since, side="right")).astype(float)


def missing(created: Table, included: Table) -> Table:
    """Return S_t: gradients created before this one that its model lacked.

    Gradients are ordered by when their creator applied them (arXiv:2309.03754).

    Parameters
    ----------
    created : array of shape (ranks, steps)
        When the step's gradient was applied by its creator, seconds.
    included : array of shape (ranks, steps)
        Gradients of all workers in the model that it was taken at.
    """
    times = np.sort(created[np.isfinite(created)])
    before = np.searchsorted(times, created, side="left")
    known = np.isfinite(created) & np.isfinite(included)
    # clocks of two hosts differ by microseconds: nothing is older than its creation
    return np.where(known, np.maximum(before - included, 0.0), np.nan)


def staleness(kind: str, arrays: dict[str, Table]) -> Table:
    """Return the staleness of every gradient, by the family's definition.

    Parameters
    ----------
    kind : str
        A key of `dsgd_bench.algorithms.facts.STALENESS`.
    arrays : dict
        Variables of the trace by name; servers' rows hold NaN samples or none.
    """
    gradients = arrays["samples"] > 0  # a server's rows are no gradients
    start = np.where(gradients, arrays["start"], np.nan)
    if kind == "gradients":
        return applied_meanwhile(start, arrays["duration"])
    if kind == "sets":
        spans = ("snapshot", "compute", "injected")
        created = start + sum(arrays[name] for name in spans)
        return missing(created, arrays["included"])
    if kind == "none":
        return np.full_like(start, np.nan)
    return np.where(gradients, arrays["staleness"], np.nan)
