"""AD-PSGD, overlapped: one pairwise averaging while each gradient is computed.

X. Lian, W. Zhang, C. Zhang and J. Liu, ICML 2018, Algorithm 1 (arXiv:1710.06952), whose
steps 2 and 3 may run in parallel. Worker i, with a random neighbor j:

    g         =  gradient of F at x_i, read before  |  x_i, x_j <- (x_i + x_j) / 2
    x_i      <-  x_i - lr g                   after both

At most one averaging is started per gradient. An exchange that takes longer than the
gradient holds the computation up; that time is in the trace as waiting.

Traffic      one model each way per gradient, both moved by the worker that starts
Memory       three vectors (replica, the model that was read, gradient)
Fixed point  as `adpsgd`
"""

import numpy as np

from dsgd_bench.algorithms import bounds
from dsgd_bench.algorithms.adpsgd import PAPER_TIMES
from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.facts import Facts
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.replicas import Replicas
from dsgd_bench.spec.ranges import GraphName


@algorithm(
    "adpsgd-overlapped",
    Facts(
        paper="arXiv:1710.06952, Algorithm 1",
        traits={"asynchronous", "mean-preserving", "consensus", "undirected"},
        vectors=3,
        waits_for="none",
        models_sent=1,
        staleness="gradients",
        bound=bounds.overlapped_pair,
        one_sided=True,
        overlapped_form_of="adpsgd",
        paper_times=PAPER_TIMES,
    ),
)
def adpsgd_overlapped(
    x: Array, worker: Worker, *, graph: GraphName = "complete"
) -> Steps:
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
            with replicas.averaging(neighbors.draw()):
                worker.gradient(x, out=g)
            replicas.apply(g, out=x)
