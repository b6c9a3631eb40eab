"""D-PSGD: average with the neighbors, overlapped with the gradient.

X. Lian et al., "Can decentralized algorithms outperform centralized algorithms?",
NeurIPS 2017, Algorithm 1 (arXiv:1705.09056). With averaging weights w_ij of a graph,
in every step all workers together

    x_i  <-  sum_j w_ij x_j  -  lr g_i(x_i)

The gradient is taken at the model that is being sent: exchange and gradient overlap,
and a neighbor learns of a gradient one step later than in `dpsgd-atc`. Weight decay
acts on the averaged model, which moves the mean alike.

Traffic      one model to every neighbor in every step
Memory       three vectors (model, gradient, start), one more per neighbor
Fixed point  sum_i g_i(x_i) = 0 for the mean of the models, which differ by O(lr)
"""

import numpy as np

from dsgd_bench.algorithms import bounds
from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.facts import Facts, to_neighbors, within_reach
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.mixer import Mixer
from dsgd_bench.spec.ranges import GraphName


@algorithm(
    "dpsgd",
    Facts(
        paper="arXiv:1705.09056, Algorithm 1",
        traits={"synchronous", "mean-preserving", "consensus", "undirected"},
        vectors=3,
        waits_for="neighbors",
        models_sent=to_neighbors,
        bound=bounds.overlapped_neighbors,
        max_skew=within_reach,
        overlapped_form_of="dpsgd-atc",
        claims={"absorbs-delays", "slow-network"},
    ),
)
def dpsgd(x: Array, worker: Worker, *, graph: GraphName = "ring") -> Steps:
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
            with mixer.overlapped(x):
                worker.gradient(x, out=g)
            worker.update(x, g)
