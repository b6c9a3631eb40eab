"""EAMSGD: elastic averaging with Nesterov's momentum at every worker.

S. Zhang, A. Choromanska and Y. LeCun, NIPS 2015, Algorithm 2 (arXiv:1412.6651). As
`easgd`, but the local step of worker i, with velocity v_i, is

    v_i  <-  mu v_i - lr g_i(x_i + mu v_i)
    x_i  <-  x_i + v_i - d

Its momentum is a setting of its own, since the gradient is taken ahead of the model;
the optimizer's must be off.

Traffic      as `easgd`
Memory       six vectors at a worker (model, look-ahead, velocity, gradient, d, start)
Fixed point  as `easgd`
"""

from itertools import count

import numpy as np

from dsgd_bench.algorithms import bounds
from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.facts import Facts, once_in_a_while
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.parameter_server import Center
from dsgd_bench.spec.ranges import Count, NotNegative, Servers, ShareBelowOne


@algorithm(
    "eamsgd",
    Facts(
        paper="arXiv:1412.6651, Algorithm 2",
        traits={"asynchronous", "center", "own-momentum"},
        vectors=6,
        waits_for="servers",
        models_sent=once_in_a_while,
        bound=bounds.overlapped_server,
    ),
)
def eamsgd(
    x: Array,
    worker: Worker,
    *,
    servers: Servers = 1,
    every: Count = 1,
    beta: NotNegative = 0.9,
    mu: ShareBelowOne = 0.9,
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
    mu : float
        Momentum.
    """
    g, d = np.zeros_like(x), np.zeros_like(x)
    v = worker.state.keep("velocity of its own", np.zeros_like(x))
    ahead = np.zeros_like(x)
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
            with worker.updating:
                v *= mu
                np.add(x, v, out=ahead)
            if k % every:
                worker.gradient(ahead, out=g)
            else:
                with center.exchanging(x, into=d):
                    worker.gradient(ahead, out=g)
            with worker.updating:
                worker.descend(ahead, g)
                np.subtract(ahead, x, out=v)
                np.copyto(x, ahead)
                if k % every == 0:
                    x -= d
