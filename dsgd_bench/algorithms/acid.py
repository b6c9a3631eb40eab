"""A2CiD2: AD-PSGD whose models flow into momentum copies and back, and agree sooner.

A. Nabli, E. Belilovsky and E. Oyallon, "A2CiD2: Accelerating asynchronous communication
in decentralized deep learning", NeurIPS 2023 (arXiv:2306.08289), Algorithm 1. Worker i
has a copy y_i = x_i at the start; D is the time since its last event, in gradients
per worker:

    before any event, with c = (1 - exp(-2 kappa D)) / 2 and the old values
        x_i  <-  x_i + c (y_i - x_i);      y_i  <-  y_i + c (x_i - y_i)
    one gradient
        g     =  gradient of F at x_i, as it is now
    an exchange with a uniformly random neighbor j, both mixed up to the same time
        d     =  x_i - x_j
        x_i  <-  x_i - d / 2;              y_i  <-  y_i - alpha d;     j with -d
    the gradient, after the exchange, on i alone
        x_i  <-  x_i - lr g;               y_i  <-  y_i - lr g

kappa = 1 / (2 sqrt(chi1 chi2)) and alpha = sqrt(chi1 / chi2) / 2: `constants`. With
kappa = 0 this is `adpsgd`, and on a complete graph too, where alpha is 1/2: it pays on
poorly connected ones. It takes all workers for equally fast: where one is far faster
than all others, alpha is too large for the rest of the graph. With the optimizer's
momentum x_i and y_i move alike, by the one buffer.

Traffic      two models each way per gradient, all moved by the worker that starts: it
             moves the partner's copy, too, which a two-sided exchange need not
Memory       six vectors (replica, copy, model read, gradient, replica before, copy
             at the end)
Fixed point  as `adpsgd`
"""

import math
from functools import lru_cache

import numpy as np

from dsgd_bench import graphs
from dsgd_bench.algorithms import bounds
from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.facts import Bound, Case, Facts, OtherTraffic
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.accelerated import AcceleratedReplicas
from dsgd_bench.graphs import Graph
from dsgd_bench.spec.ranges import GraphName, NotNegative


@lru_cache(maxsize=2)  # simulated, thousands of workers ask for the same ones
def constants(graph: Graph) -> tuple[float, float]:
    """Return kappa and alpha for a graph: the paper's, of its weighted Laplacian.

    Every worker starts one exchange per gradient, so an edge is used at the rate
    1/deg i + 1/deg j per unit of time. chi1 is 1 / (second smallest eigenvalue), chi2
    half the largest effective resistance of an edge.
    """
    if graph.size == 1:
        return 0.0, 0.5
    laplacian = np.zeros((graph.size, graph.size))
    for i, near in enumerate(graph.neighbors):
        for j in near:
            ends = np.ix_((i, j), (i, j))
            laplacian[ends] += np.array([[1, -1], [-1, 1]]) / len(near)
    r = np.linalg.pinv(laplacian, hermitian=True)
    chi1 = 1 / float(np.linalg.eigvalsh(laplacian)[1])
    chi2 = 0.5 * max(
        float(r[i, i] + r[j, j] - 2 * r[i, j])
        for i, near in enumerate(graph.neighbors)
        for j in near
    )
    return 0.5 / math.sqrt(chi1 * chi2), 0.5 * math.sqrt(chi1 / chi2)


IN_THE_PAPER = OtherTraffic(
    1.0,
    "one-sided: the rank that starts an exchange moves its partner's momentum copy too,"
    " which a two-sided exchange need not",
)


def least_time(case: Case) -> Bound:
    """Move, as `adpsgd`, a model and its momentum copy each way."""
    seconds = bounds.pairwise(case, 2, overlapped=False)
    return Bound(seconds, "max(t + 2M/B, 4M/B)")


@algorithm(
    "acid",
    Facts(
        paper="arXiv:2306.08289, Algorithm 1",
        traits={"asynchronous", "mean-preserving", "consensus", "undirected"},
        vectors=6,
        waits_for="none",
        models_sent=2,
        staleness="gradients",
        bound=least_time,
        one_sided=True,
        in_turn=True,
        other_traffic=IN_THE_PAPER,
    ),
)
def acid(
    x: Array,
    worker: Worker,
    *,
    graph: GraphName = "ring",
    kappa: NotNegative | None = None,
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
    kappa : float, optional
        Rate of mixing per gradient, by default the one that follows from the graph.
    """
    g = np.zeros_like(x)
    neighbors = worker.neighbors(graph)
    rate, alpha = constants(graphs.make(graph, worker.workers))
    with AcceleratedReplicas(
        worker.fabric,
        x,
        worker.update,
        worker.state,
        kappa=rate if kappa is None else kappa,
        alpha=alpha,
    ) as replicas:
        while True:
            yield x
            worker.gradient(x, out=g)
            replicas.average_with(neighbors.draw())
            replicas.apply(g, out=x)
