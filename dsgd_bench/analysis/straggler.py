"""How much one slow rank costs: measured, by a model, and in the AD-PSGD paper.

Everything here is a *ratio*: time per epoch over the algorithm's own time per epoch
without slowdown, so that machines of different speed can stand beside each other.
"""

from dataclasses import dataclass

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.analysis.rows import per_epoch
from dsgd_bench.analysis.statistics import Estimate, ratio_of_medians
from dsgd_bench.analysis.summary import Group

PAPER = "Lian et al., Asynchronous Decentralized Parallel SGD, ICML 2018"
PAPER_SETTING = "ResNet-20 on CIFAR-10, 16 workers, one of them slowed"


@dataclass(frozen=True)
class PaperPoint:
    """One figure of the paper's slow-worker table.

    Attributes
    ----------
    algorithm : str
        Our name for the paper's algorithm.
    factor : float
        How many times slower the one slow worker was; 1 without slowdown.
    seconds : float
        Time per epoch, in the paper's seconds on the paper's machine.
    ratio : float
        The same over the algorithm's own time without slowdown.
    """

    algorithm: str
    factor: float
    seconds: float
    ratio: float


PAPER_RANKS, PAPER_SLOW = 16, 1


def paper_points(algorithm: str) -> list[PaperPoint]:
    """Return the paper's figures for an algorithm or its relatives; empty if none.

    All forms of AD-PSGD are set beside the paper's one.
    """
    known = ALGORITHMS.get(algorithm)
    if known is None or known.paper_times is None:
        return []
    table = known.paper_times
    return [
        PaperPoint(table.name, factor, seconds, seconds / table.seconds[1.0])
        for factor, seconds in table.seconds.items()
    ]


def paper_ratio(group: Group) -> float | None:
    """Return the paper's ratio for the same slowdown; None at any other setting."""
    row = group.first
    if row.trial.workers != PAPER_RANKS or row.trial.slow_ranks > PAPER_SLOW:
        return None
    ratios = {point.factor: point.ratio for point in paper_points(row.trial.algorithm)}
    return (
        ratios.get(row.trial.slow_factor) if row.trial.slow_factor is not None else None
    )


def predicted(workers: int, slow: int, factor: float, *, synchronous: bool) -> float:
    """Return the modeled time per epoch over the time without slowdown.

    Asynchronous, n workers of which m are s times slower: each works at its own rate
    and the rates add up, ``1 / ((n - m)/n + m/(n s))``. Synchronous: every step waits
    for the slowest, ``s``. Communication is free in both.

    Parameters
    ----------
    workers, slow : int
        n and m.
    factor : float
        s, at least 1.
    synchronous : bool
        Whether a step waits for all workers, at once or in the end.
    """
    if synchronous:
        return factor if slow else 1.0
    return 1.0 / ((workers - slow) / workers + slow / (workers * factor))


def measured(group: Group, baseline: Group) -> Estimate | None:
    """Return time per epoch over the baseline's; None where either took no steps."""
    if group is baseline:
        count = len(group.values(per_epoch))
        return Estimate(1.0, 1.0, 1.0, count, None) if count else None
    return ratio_of_medians(group.values(per_epoch), baseline.values(per_epoch))
