"""How far replicas lag behind one another, from who had which gradients when."""

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]
"""One variable, shape (workers, steps), padded with NaN."""


def loose(created: Table, seen: Table, delivered: Table) -> NDArray[np.float64]:
    """Return the loose set-staleness at every gradient, in the order of creation.

    Just before a gradient is created, every older one counts that any worker lacks:
    the sum over the workers of gradients created minus gradients delivered (DASGD,
    arXiv:2309.03754; its mean and maximum are the loose S_avg and S_max). A worker sees
    once per step what it has delivered, so this is an upper bound, by up to the
    gradients of one step of each worker. What has reached a replica counts as there,
    also while its worker still computes at an older model: S_t, which counts what that
    model lacked, can be larger.

    Parameters
    ----------
    created : array of shape (workers, steps)
        When the step's gradient was applied by its creator, seconds.
    seen : array of shape (workers, steps)
        When the worker looked how many of its own gradients had been delivered.
    delivered : array of shape (workers, steps)
        Own gradients that every worker had then.

    Returns
    -------
    array of shape (gradients,)
        Empty where the trace does not tell; zeros for a single worker.
    """
    known = np.isfinite(created)
    times = np.sort(created[known])
    if not np.isfinite(delivered).any():
        return np.empty(0)
    if len(created) == 1:
        return np.zeros(len(times))
    lacking = np.zeros(len(times))
    for own, when, count in zip(created, seen, delivered, strict=True):
        told = np.isfinite(count)
        counts = np.concatenate([[0.0], count[told]])
        have = counts[np.searchsorted(when[told], times, side="right")]
        made = np.searchsorted(own[np.isfinite(own)], times, side="left")
        # a step's count may be from just after its last gradient: none is negative
        lacking += np.maximum(made - have, 0.0)
    return lacking
