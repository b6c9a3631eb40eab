"""DC-ASGD: ASGD whose server compensates every gradient for the delay.

S. Zheng et al., ICML 2017, Algorithms 1 and 2 (arXiv:1609.08326). The server keeps what
it sent to each worker i last, b_i, and on the arrival of its gradient g

    g    <-  g + lambda g * g * (x - b_i)       elementwise
    x    <-  x - eta g;    b_i <- x;    x is sent to i

with lambda constant (DC-ASGD-c) or lambda_0 / sqrt(M), M a running mean of g * g
(DC-ASGD-a). eta = lr / n, as in `asgd`; lambda = 0 is `asgd`.

Traffic      one gradient to and one model from the servers per gradient
Memory       three vectors at a worker, n + 4 at a server, one more if adaptive
Fixed point  as `asgd`
"""

from typing import Literal

import numpy as np

from dsgd_bench.algorithms import bounds
from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.compensation import Compensation
from dsgd_bench.algorithms.facts import Facts
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.parameter_server import Center
from dsgd_bench.spec.ranges import NotNegative, Servers, ShareBelowOne


@algorithm(
    "dcasgd",
    Facts(
        paper="arXiv:1609.08326, Algorithms 1 and 2",
        traits={"asynchronous", "center", "per-gradient-lr"},
        vectors=4,
        waits_for="servers",
        models_sent=1,
        staleness="versions",
        bound=bounds.after_server,
    ),
)
def dcasgd(
    x: Array,
    worker: Worker,
    *,
    servers: Servers = 1,
    variant: Literal["constant", "adaptive"] = "adaptive",
    strength: NotNegative = 2.0,
    memory: ShareBelowOne = 0.95,
) -> Steps:
    """Yield the model as this worker received it last.

    Parameters
    ----------
    x : array of shape (dim,)
        Initial model, equal on every rank. The algorithm owns it from now on.
    worker : Worker
        This rank's gradient, optimizer and fabric.
    servers : int
        Ranks, the last ones, that hold the model and compute no gradients.
    variant : str
        ``"constant"`` (DC-ASGD-c) or ``"adaptive"`` (DC-ASGD-a).
    strength : float
        lambda of DC-ASGD-c (the paper: 0.04), lambda_0 of DC-ASGD-a (2).
    memory : float
        m of the running mean of squares: 0.95 for CIFAR-10, 0 for ImageNet.
    """
    g = np.zeros_like(x)

    def answer(center: Array, gradient: Array, sender: int) -> Array:
        compensate(gradient, center, sent[sender])
        worker.update(center, gradient)
        basis: Array = sent[sender]
        np.copyto(basis, center)
        return basis

    with Center(worker.fabric, x, answer, servers, worker.state) as center:
        compensate = Compensation(center.part, variant, strength, memory, worker.state)
        sent = worker.state.keep("sent", np.tile(center.part, (worker.workers, 1)))
        if worker.serves:
            yield from center.serve()
            return
        while True:
            yield x
            worker.gradient(x, out=g)
            center.exchange(g, into=x)
