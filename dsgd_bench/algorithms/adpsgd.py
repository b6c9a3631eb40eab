"""AD-PSGD, inline: gradient, then one atomic pairwise averaging, then the update.

X. Lian, W. Zhang, C. Zhang and J. Liu, "Asynchronous decentralized parallel stochastic
gradient descent", ICML 2018, Algorithm 1 (arXiv:1710.06952). Worker i, whenever it is
ready, with a uniformly random neighbor j in the graph:

    g         =  gradient of F at x_i, as it is now
    x_i, x_j <-  (x_i + x_j) / 2              atomic at both ends
    x_i      <-  x_i - lr g                   after averaging, on i alone

Gradient and averaging follow each other, so the time of an exchange is exposed:
`adpsgd-overlapped` runs them side by side, `adpsgd-waitfree` is the paper's own form
with two threads. The exchange is one-sided: the partner takes no part, and any graph
is free of deadlocks, where the paper's two-sided exchange needs a bipartite one.

Traffic      one model each way per gradient, both moved by the worker that starts
Memory       three vectors (replica, the model that was read, gradient)
Fixed point  sum_i r_i g_i(x_i) = 0, with r_i the gradients per second of worker i: the
             optimum if all sample the same data, else drawn toward fast workers' shards
"""

import numpy as np

from dsgd_bench.algorithms import bounds
from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.facts import Facts, PaperTimes
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.replicas import Replicas
from dsgd_bench.spec.ranges import GraphName

PAPER_TIMES = PaperTimes("adpsgd", {1.0: 1.22, 2.0: 1.28, 10.0: 1.33, 100.0: 1.33})


@algorithm(
    "adpsgd",
    Facts(
        paper="arXiv:1710.06952, Algorithm 1",
        traits={"asynchronous", "mean-preserving", "consensus", "undirected"},
        vectors=3,
        waits_for="none",
        models_sent=1,
        staleness="gradients",
        bound=bounds.after_pair,
        one_sided=True,
        in_turn=True,
        paper_times=PAPER_TIMES,
    ),
)
def adpsgd(x: Array, worker: Worker, *, graph: GraphName = "complete") -> Steps:
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
    with Replicas(worker.fabric, x, worker.update, worker.state) as replicas:
        while True:
            yield x
            worker.gradient(x, out=g)
            replicas.average_with(neighbors.draw())
            replicas.apply(g, out=x)
