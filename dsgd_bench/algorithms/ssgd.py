"""SSGD: a synchronous parameter server; the model lies in parts on server ranks.

M. Li et al., "Scaling distributed machine learning with the parameter server", OSDI
2014; as the baseline S-PSGD in arXiv:1710.06952, section 1. With n workers, in every
step

    x  <-  x - lr (1/n) sum_i g_i(x)      at the servers, once all g_i are there

and every worker receives x. Each server holds an equal part of the model, momentum
included; the sum is taken in the order of the ranks.

Traffic      one gradient to and one model from the servers per worker and step
Memory       three vectors at a worker (model, gradient, start), four at a server
Fixed point  sum_i g_i(x) = 0: the optimum of the mean loss, for any shards
"""

import numpy as np

from dsgd_bench.algorithms import bounds
from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.facts import Facts
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.parameter_server import SynchronousCenter
from dsgd_bench.spec.ranges import Servers


@algorithm(
    "ssgd",
    Facts(
        paper="arXiv:1710.06952, section 1",
        traits={"synchronous", "mean-preserving", "identical", "center"},
        vectors=4,
        waits_for="all",
        models_sent=1,
        bound=bounds.after_round,
    ),
)
def ssgd(x: Array, worker: Worker, *, servers: Servers = 1) -> Steps:
    """Yield the model before the first step and after every step.

    Parameters
    ----------
    x : array of shape (dim,)
        Initial model, equal on every rank. The algorithm owns it from now on.
    worker : Worker
        This rank's gradient, optimizer and fabric.
    servers : int
        Ranks, the last ones, that hold the model and compute no gradients.
    """
    g = np.zeros_like(x)

    def answer(center: Array, mean: Array, _last: int) -> Array:
        worker.update(center, mean)
        return center

    with SynchronousCenter(worker.fabric, x, answer, servers, worker.state) as center:
        if worker.serves:
            yield from center.serve()
            return
        while True:
            yield x
            worker.gradient(x, out=g)
            center.exchange(g, into=x)
