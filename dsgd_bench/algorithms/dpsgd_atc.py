"""D-PSGD, adapt-then-combine: take the gradient step, then average.

The form in which D-PSGD is mostly implemented (F. Cattivelli and A. Sayed name it;
X. Lian et al., NeurIPS 2017, arXiv:1705.09056 is the paper). In every step all workers
together, with averaging weights w_ij of a graph

    x_i  <-  x_i - lr g_i(x_i)
    x_i  <-  sum_j w_ij x_j

The fresh gradient is in what is averaged, so nothing overlaps: the exchange adds to the
step.

Traffic      one model to every neighbor in every step
Memory       three vectors (model, gradient, start), one more per neighbor
Fixed point  sum_i g_i(x_i) = 0; the models differ less than in `dpsgd`
"""

import numpy as np

from dsgd_bench.algorithms import bounds
from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.facts import Facts, to_neighbors, within_reach
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.mixer import Mixer
from dsgd_bench.spec.ranges import GraphName


@algorithm(
    "dpsgd-atc",
    Facts(
        paper="arXiv:1705.09056, adapt-then-combine form",
        traits={"synchronous", "mean-preserving", "consensus", "undirected"},
        vectors=3,
        waits_for="neighbors",
        models_sent=to_neighbors,
        bound=bounds.after_neighbors,
        max_skew=within_reach,
        claims={"absorbs-delays"},
    ),
)
def dpsgd_atc(x: Array, worker: Worker, *, graph: GraphName = "ring") -> Steps:
    """Yield this worker's model before the first step and after every step.

    Parameters
    ----------
    x : array of shape (dim,)
        Initial model. The algorithm owns it from now on.
    worker : Worker
        This rank's gradient, optimizer and fabric.
    graph : str
        Name in `dsgd_bench.graphs.GRAPHS`; weights are Metropolis-Hastings.
    """
    g = np.zeros_like(x)
    with Mixer(worker.fabric, x, worker.graph(graph)) as mixer:
        while True:
            yield x
            worker.gradient(x, out=g)
            worker.update(x, g)
            mixer.mix(x)
