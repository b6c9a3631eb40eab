"""EASGD: workers on their own, tied to a center by an elastic force.

S. Zhang, A. Choromanska and Y. LeCun, "Deep learning with elastic averaging SGD", NIPS
2015, Algorithm 1 (arXiv:1412.6651). With n workers and alpha = beta / n, worker i

    d    <-  alpha (x_i - c);   c <- c + d     every H-th step, at the servers
    x_i  <-  x_i - lr g_i(x_i) - d             d = 0 in the other steps

One d moves both, computed by the server that holds c from the x_i it was sent: nothing
is lost whatever the order of arrival. The gradient is taken at x_i while d travels.

Traffic      one model to and one difference from the servers every H steps
Memory       four vectors at a worker (model, gradient, difference, start)
Fixed point  c = x_i = the optimum up to O(lr) if no worker is faster; else drawn to
             the fast ones
"""

from itertools import count

import numpy as np

from dsgd_bench.algorithms import bounds
from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.facts import Facts, once_in_a_while
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.parameter_server import Center
from dsgd_bench.spec.ranges import Count, NotNegative, Servers


@algorithm(
    "easgd",
    Facts(
        paper="arXiv:1412.6651, Algorithm 1",
        traits={"asynchronous", "center"},
        vectors=4,
        waits_for="servers",
        models_sent=once_in_a_while,
        bound=bounds.overlapped_server,
    ),
)
def easgd(
    x: Array,
    worker: Worker,
    *,
    servers: Servers = 1,
    every: Count = 1,
    beta: NotNegative = 0.9,
) -> Steps:
    """Yield this worker's model before the first step and after every step.

    Parameters
    ----------
    x : array of shape (dim,)
        Initial model, equal on every rank. The algorithm owns it from now on.
    worker : Worker
        This rank's gradient, optimizer and fabric.
    servers : int
        Ranks, the last ones, that hold the center and compute no gradients.
    every : int
        Steps H between two exchanges with the center.
    beta : float
        Strength of the force: alpha is `beta` over the number of workers.
    """
    g, d = np.zeros_like(x), np.zeros_like(x)
    alpha = beta / worker.workers

    def answer(center: Array, model: Array, _sender: int) -> Array:
        model -= center
        model *= alpha
        center += model
        return model

    with Center(worker.fabric, x, answer, servers, worker.state) as center:
        if worker.serves:
            yield from center.serve()
            return
        for k in count(worker.state.step):
            yield x
            if k % every:
                worker.gradient(x, out=g)
                worker.update(x, g)
            else:
                with center.exchanging(x, into=d):
                    worker.gradient(x, out=g)
                with worker.updating:
                    worker.update(x, g)
                    x -= d
