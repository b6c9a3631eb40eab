"""The least time per step of a trial on links of known rates, as its algorithm says.

How it comes about stands in `dsgd_bench.algorithms.bounds`.
"""

from typing import TYPE_CHECKING

import numpy as np

from dsgd_bench import slowdowns
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.algorithms.facts import Bound, Case, Floats
from dsgd_bench.analysis.links import Links

if TYPE_CHECKING:
    from dsgd_bench.spec.trial import Trial


def bound(trial: "Trial", model_bytes: int, links: Links) -> Bound | None:
    """Return the least time per step of a trial; None where its rule gives none.

    Parameters
    ----------
    trial : Trial
        With emulated compute: how long real gradients take is not known before.
    model_bytes : int
        M.
    links : Links
        B, host by host.
    """
    algorithm = ALGORITHMS.get(trial.algorithm.kind)
    emulated = trial.compute.mode == "emulated" and trial.compute.seconds > 0.0
    fits = len(links.hosts) == trial.ranks > 1 and model_bytes > 0
    if algorithm is None or algorithm.bound is None or not (emulated and fits):
        return None
    setup = algorithm.setup(trial.algorithm.settings, trial.ranks)
    compute = _compute(trial, setup.workers)
    return algorithm.bound(Case(setup, compute, float(model_bytes), links))


def _compute(trial: "Trial", workers: int) -> Floats:
    """Return every worker's seconds; a random slowdown may be none at all."""
    seconds = np.full(workers, trial.compute.seconds)
    slow = list(slowdowns.slow_ranks(trial.slowdown, workers))
    seconds[slow] *= slowdowns.kind_of(trial.slowdown).constant or 1.0
    return seconds
