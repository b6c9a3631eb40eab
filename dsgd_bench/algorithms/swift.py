"""SWIFT: every worker averages with the newest models that have arrived.

M. Bornstein, T. Rabbani, E. Wang, A. S. Bedi and F. Huang, "SWIFT: Rapid decentralized
federated learning via wait-free model communication", ICLR 2023 (arXiv:2210.14026),
Algorithm 1. Worker i, in its step k, never waiting for others:

    send x_i to the neighbors                 during the gradient
    g    =  gradient of F at x_i
    x_i  <-  w_ii x_i + sum_j w_ij x_j        every C_s-th step; x_j the newest arrived
    x_i  <-  x_i - lr g

Until a model of j arrives, x_j is its initial one. A single step is not doubly
stochastic, so the mean model is not conserved; if all workers keep step and all
messages arrive in time, this is the paper form of D-PSGD.

The weights. The paper's selection (CCS) takes each worker's share p_i of all steps as
given and asks for p_i w_ij = p_j w_ji, so that the expected weight matrix is symmetric
and doubly stochastic; it assigns them from the highest degree downward, beginning with
1 / (degree + 1). Here the shares are taken as equal, since speeds are a result, and the
weights are those of Metropolis and Hastings: the same on regular graphs; on others they
fulfill the same condition but are another solution of it than the paper's.

A model is sent in every step unless the one before is still under way: then the network
is slower than the gradients, and sends would pile up without end.

Traffic      one model to every neighbor per gradient
Memory       four vectors (model, gradient, copy to send, copy of a neighbor's) and
             three slots per neighbor
Fixed point  near the optimum, drawn toward the shards of fast workers; the models
             disagree in proportion to lr
"""

from itertools import count

import numpy as np

from dsgd_bench.algorithms import bounds
from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.facts import Facts, to_neighbors
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.newest import Newest
from dsgd_bench.spec.ranges import Count, GraphName


@algorithm(
    "swift",
    Facts(
        paper="arXiv:2210.14026, Algorithm 1",
        traits={"asynchronous", "undirected"},
        vectors=10,
        waits_for="none",
        models_sent=lambda setup: (0.0, to_neighbors(setup)),
        staleness="steps",
        bound=bounds.alone,
        loses_messages=True,
    ),
)
def swift(
    x: Array, worker: Worker, *, graph: GraphName = "ring", every: Count = 1
) -> Steps:
    """Yield this worker's model, at which its next gradient is taken.

    Parameters
    ----------
    x : array of shape (dim,)
        Initial model. The algorithm owns it from now on.
    worker : Worker
        This rank's gradient, optimizer and fabric.
    graph : str
        Name in `dsgd_bench.graphs.GRAPHS`.
    every : int
        Steps from one averaging to the next (the paper's C_s).
    """
    g = np.zeros_like(x)
    topology = worker.graph(graph)
    near, weights = topology.neighbors[worker.rank], topology.weights_of(worker.rank)
    with Newest(worker.fabric, x, near, near, state=worker.state) as models:
        for k in count(worker.state.step):
            yield x
            models.broadcast(x, k)
            worker.gradient(x, out=g)
            if (k + 1) % every == 0:
                models.mix(x, weights, k)
            worker.update(x, g)
