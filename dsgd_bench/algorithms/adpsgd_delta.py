"""AD-PSGD in difference form: lock-free, half differences added at both ends.

A relative of `adpsgd` (arXiv:1710.06952), not the paper's algorithm: the pairwise
averaging is taken apart into two sums, so it needs no lock and no order. Worker i, with
a random neighbor j:

    g     =  gradient of F at x_i, as it is now
    d     =  (x_j - x_i) / 2                  from two reads, element by element
    x_i  <-  x_i + d;   x_j  <-  x_j - d      two sums
    x_i  <-  x_i - lr g                       a sum as well

The sum over all replicas is conserved under any interleaving. Where two exchanges
overlap on one rank, both act on what they read, so the pair does not end up equal: two
workers that start one with each other at the same moment swap their models, again and
again if they keep in step, so it does not promise to agree. A worker in many exchanges
at once is moved by all: in step, the hub of a star leaves its leaves without bound.

Traffic      one model each way per gradient, plus one read of the own replica
Memory       five vectors (replica, the model that was read, gradient, two for the sum)
Fixed point  as `adpsgd`
"""

import numpy as np

from dsgd_bench.algorithms import bounds
from dsgd_bench.algorithms.adpsgd import PAPER_TIMES
from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.facts import Bound, Case, Facts
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.lock_free import DifferenceReplicas
from dsgd_bench.spec.ranges import GraphName


def least_time(case: Case) -> Bound | None:
    """Be as `adpsgd` without locks: equal links are as busy; for others, no bound."""
    return None if case.links.uneven else bounds.after_pair(case)


@algorithm(
    "adpsgd-delta",
    Facts(
        paper="this suite; after arXiv:1710.06952, Algorithm 1",
        traits={"asynchronous", "mean-preserving", "undirected"},
        vectors=5,
        waits_for="none",
        models_sent=1,
        staleness="gradients",
        bound=least_time,
        one_sided=True,
        in_turn=True,
        paper_times=PAPER_TIMES,
    ),
)
def adpsgd_delta(x: Array, worker: Worker, *, graph: GraphName = "complete") -> Steps:
    """Yield this worker's model as it was read for each gradient.

    Parameters
    ----------
    x : array of shape (dim,)
        Initial model. The algorithm owns it from now on.
    worker : Worker
        This rank's gradient, optimizer, random stream and fabric.
    graph : str
        Name in `dsgd_bench.graphs.GRAPHS`.
    """
    g = np.zeros_like(x)
    neighbors = worker.neighbors(graph)
    with DifferenceReplicas(worker.fabric, x, worker.update, worker.state) as replicas:
        while True:
            yield x
            worker.gradient(x, out=g)
            replicas.average_with(neighbors.draw())
            replicas.apply(g, out=x)
