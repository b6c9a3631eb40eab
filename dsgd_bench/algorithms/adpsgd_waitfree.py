"""AD-PSGD, wait-free: the paper's two threads; computing never waits for the network.

X. Lian, W. Zhang, C. Zhang and J. Liu, ICML 2018, Appendix, Algorithms 2 to 4
(arXiv:1710.06952). Worker i runs two threads that share an accumulator G:

    training thread                          communication thread, forever
    y   =  copy of x_i, moved by the last    x_i      <-  x_i - lr G;  G <- 0
           gradient if x_i lacks it still    x_i, x_j <-  (x_i + x_j) / 2
    g   =  gradient of F at y
    G  <-  G + g

Several averagings may happen per gradient, or several gradients per averaging on a slow
network. The exchange is one-sided and atomic, so no worker is passive and the graph
need not be bipartite. With momentum, G is what enters the momentum buffer.

Traffic      one model each way per averaging; their number per gradient is a result
Memory       eight vectors (replica, accumulator twice, copies thrice, gradient, start)
Fixed point  as `adpsgd`
"""

from math import inf

import numpy as np

from dsgd_bench.algorithms import bounds
from dsgd_bench.algorithms.adpsgd import PAPER_TIMES
from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.facts import Facts
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.wait_free import HandoverReplicas
from dsgd_bench.spec.ranges import GraphName, Seconds


@algorithm(
    "adpsgd-waitfree",
    Facts(
        paper="arXiv:1710.06952, Appendix, Algorithms 2-4",
        traits={"asynchronous", "mean-preserving", "consensus", "undirected"},
        vectors=8,
        waits_for="none",
        models_sent=(0.0, inf),
        staleness="gradients",
        bound=bounds.alone,
        one_sided=True,
        paper_times=PAPER_TIMES,
    ),
)
def adpsgd_waitfree(
    x: Array,
    worker: Worker,
    *,
    graph: GraphName = "complete",
    interval: Seconds = 0.001,
) -> Steps:
    """Yield the copy of this worker's model that the next gradient is taken at.

    Parameters
    ----------
    x : array of shape (dim,)
        Initial model. The algorithm owns it from now on.
    worker : Worker
        This rank's gradient, optimizer, random stream and fabric.
    graph : str
        Name in `dsgd_bench.graphs.GRAPHS`.
    interval : float
        Seconds the communication thread rests between two averagings; 0 averages
        without a pause, which takes a core of its own.
    """
    g = np.zeros_like(x)
    neighbors = worker.neighbors(graph)
    with HandoverReplicas(
        worker.fabric, x, worker.optimizer.update, worker.descend, worker.state
    ) as replicas:

        def communicate() -> None:
            replicas.take_over()
            replicas.average_overlapped(neighbors.draw())
            worker.fabric.pause(interval)

        yield x
        with replicas.overlapped(communicate):
            y = replicas.pull()
            while True:
                worker.gradient(y, out=g)
                replicas.hand_over(g)
                y = replicas.pull()
                yield y
