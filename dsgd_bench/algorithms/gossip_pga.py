"""Gossip-PGA: D-PSGD, and every H-th time a mean over all instead of the neighbors.

Y. Chen, K. Yuan, Y. Zhang, P. Pan, Y. Xu and W. Yin, "Accelerating gossip SGD with
periodic global averaging", ICML 2021, Algorithm 1 (arXiv:2105.09080). With
averaging weights w_ij of a graph, in every step all workers together

    x_i  <-  x_i - lr g_i(x_i)
    x_i  <-  (1/n) sum_j x_j         after every H-th step
    x_i  <-  sum_j w_ij x_j          after all others

H = 1 is AllReduce-SGD if there is no momentum; without an end of H it is `dpsgd-atc`,
and without a graph's edges it would be `localsgd`. Momentum buffers stay local.

Traffic      one model to every neighbor, every H-th step one all-reduce instead
Memory       three vectors (model, gradient, start), one more per neighbor
Fixed point  as `dpsgd-atc`; the models differ less, the smaller H is
"""

from itertools import count

import numpy as np

from dsgd_bench.algorithms import bounds
from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.facts import (
    Bound,
    Case,
    Facts,
    Setup,
    to_neighbors,
    within_reach,
)
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.mixer import Mixer
from dsgd_bench.spec.ranges import Count, GraphName


def sent(setup: Setup) -> float:
    """Return the mean over H steps: H - 1 to the neighbors, one to be summed."""
    return ((setup.every - 1) * to_neighbors(setup) + 1.0) / setup.every


def least_time(case: Case) -> Bound:
    """Exchange after the gradient, in one of two ways."""
    h, t = case.every, case.compute
    mean = t.max() + bounds.ring(case).max()
    gossip = (t + bounds.averaging(case)).max()
    formula = f"t + ((H-1)·{bounds.degree(case)}M/B + 2(n-1)/n·M/B)/H"
    return Bound(((h - 1) * gossip + mean) / h, formula)


@algorithm(
    "gossip-pga",
    Facts(
        paper="arXiv:2105.09080, Algorithm 1",
        traits={"synchronous", "mean-preserving", "consensus", "undirected"},
        vectors=3,
        waits_for="neighbors",
        models_sent=sent,
        bound=least_time,
        max_skew=lambda setup: min(within_reach(setup), setup.every),
        all_reduced=lambda setup: 1.0 / (setup.every * sent(setup)),
    ),
)
def gossip_pga(
    x: Array, worker: Worker, *, graph: GraphName = "ring", every: Count = 6
) -> Steps:
    """Yield this worker's model before the first step and after every step.

    Parameters
    ----------
    x : array of shape (dim,)
        Initial model. The algorithm owns it from now on.
    worker : Worker
        This rank's gradient, optimizer and fabric.
    graph : str
        Name in `dsgd_bench.graphs.GRAPHS`; weights are Metropolis-Hastings.
    every : int
        Steps H from one mean over all workers to the next.
    """
    g = np.zeros_like(x)
    with Mixer(worker.fabric, x, worker.graph(graph)) as mixer:
        for k in count(worker.state.step):
            yield x
            worker.gradient(x, out=g)
            worker.update(x, g)
            if (k + 1) % every == 0:
                worker.fabric.average(x)
            else:
                mixer.mix(x)
