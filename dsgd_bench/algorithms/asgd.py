"""ASGD: an asynchronous parameter server that applies every gradient on arrival.

J. Dean et al., "Large scale distributed deep networks", NIPS 2012 (Downpour SGD without
local steps); as the baseline A-PSGD in arXiv:1710.06952, section 1. Worker i, forever,
waiting for the servers only:

    g  =   gradient of F at x, as received last
    x  <-  x - eta g                      at the servers, when g arrives
    x  is received

Every gradient is applied alone, so eta = lr / n with n workers: then a round of
n gradients moves it as far as a step of AllReduce-SGD. Gradients are about n - 1
versions old when they arrive.

Traffic      one gradient to and one model from the servers per gradient
Memory       three vectors at a worker (model, gradient, start), three at a server
Fixed point  sum_i r_i g_i(x) = 0, with r_i the gradients per second of worker i
"""

import numpy as np

from dsgd_bench.algorithms import bounds
from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.facts import Facts
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.parameter_server import Center
from dsgd_bench.spec.ranges import Servers


@algorithm(
    "asgd",
    Facts(
        paper="arXiv:1710.06952, section 1",
        traits={"asynchronous", "mean-preserving", "center", "per-gradient-lr"},
        vectors=3,
        waits_for="servers",
        models_sent=1,
        staleness="versions",
        bound=bounds.after_server,
    ),
)
def asgd(x: Array, worker: Worker, *, servers: Servers = 1) -> Steps:
    """Yield the model as this worker received it last.

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

    def answer(center: Array, gradient: Array, _sender: int) -> Array:
        worker.update(center, gradient)
        return center

    with Center(worker.fabric, x, answer, servers, worker.state) as center:
        if worker.serves:
            yield from center.serve()
            return
        while True:
            yield x
            worker.gradient(x, out=g)
            center.exchange(g, into=x)
