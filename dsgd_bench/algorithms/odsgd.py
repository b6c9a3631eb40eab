"""OD-SGD: a synchronous server whose answer is awaited one step later.

Y. Xu, D. Dong, Y. Xu and X. Liao, "OD-SGD: one-step delay stochastic gradient descent
for distributed training", 2020, Algorithms 1 and 2 (arXiv:2005.06728). In step k of
worker i, with y_i^k its own model and x^k the global one:

    g_i^k    =   gradient of F at y_i^k        while x^k travels
    y_i^k+1  <-  x^k - lr_loc (g_i^k + lambda g_i^k * g_i^k * (x^k - x^k-1))
    x^k+1    <-  x^k - lr (1/n) sum_j g_j^k    at the servers, once all g_j^k are there

so push, sum and pull overlap with the next gradient: the delay is one step, and no
worker is more than one step ahead. The first `warmup` steps are `ssgd`. lambda = 0 is
the plain local update; the others are those of DC-ASGD (see `compensation`), with the
previous global model as what the gradient is compensated from.

Traffic      one gradient to and one model from the servers per worker and step
Memory       seven vectors at a worker (two models, two gradients, two global models,
             start)
Fixed point  sum_i g_i(x) = 0, up to O(lr) from the local updates
"""

from itertools import count
from typing import Literal

import numpy as np

from dsgd_bench.algorithms import bounds
from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.compensation import Compensation
from dsgd_bench.algorithms.facts import Facts
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.parameter_server import SynchronousCenter
from dsgd_bench.spec.ranges import Index, NotNegative, Servers, ShareBelowOne


@algorithm(
    "odsgd",
    Facts(
        paper="arXiv:2005.06728, Algorithms 1 and 2",
        traits={"synchronous", "center"},
        vectors=7,
        waits_for="all",
        models_sent=1,
        staleness="versions",
        bound=bounds.overlapped_round,
        staleness_limits=(1.0, 1.0),
        max_skew=2,  # the first step after the warm-up awaits no rank
        warm_up=lambda setup: setup.settings["warmup"],
        overlapped_form_of="ssgd",
        claims={"slow-network"},
    ),
)
def odsgd(  # noqa: PLR0913 (every setting is an argument)
    x: Array,
    worker: Worker,
    *,
    servers: Servers = 1,
    warmup: Index = 200,
    local: Literal["none", "constant", "adaptive"] = "adaptive",
    local_lr: NotNegative = 1.0,
    strength: NotNegative = 2.0,
    memory: ShareBelowOne = 0.0,
) -> Steps:
    """Yield this worker's model before the first step and after every step.

    Parameters
    ----------
    x : array of shape (dim,)
        Initial model, equal on every rank. The algorithm owns it from now on.
    worker : Worker
        This rank's gradient, optimizer and fabric.
    servers : int
        Ranks, the last ones, that hold the model and compute no gradients.
    warmup : int
        Steps of SSGD at the start; 200 in the authors' code.
    local : str
        Compensation of the local update: ``"none"`` (plain), ``"constant"`` (DC-ASGD-c)
        or ``"adaptive"`` (DC-ASGD-a, the choice of the authors' scripts).
    local_lr : float
        lr_loc as a multiple of lr, for the mean gradient; 0 leaves the local update
        out. The authors' rates are for sums over n workers: their 0.5 beside lr = 0.1
        and n = 8 is 0.625 here.
    strength : float
        lambda, or lambda_0 where adaptive (0.04 and 2 in the authors' code).
    memory : float
        m of the running mean of squares.
    """
    y = worker.state.keep("local", x.copy())
    latest_two = worker.state.keep("global", np.stack([x, x]))
    g, sent = np.zeros_like(x), np.zeros_like(x)
    compensate = Compensation(x, local, strength, memory, worker.state)
    under_way = False

    def answer(center: Array, mean: Array, _last: int) -> Array:
        worker.update(center, mean)
        return center

    with SynchronousCenter(worker.fabric, x, answer, servers, worker.state) as center:
        if worker.serves:
            yield from center.serve()
            return
        for k in count(worker.state.step):
            latest, before = latest_two[k % 2], latest_two[1 - k % 2]
            if k <= warmup:
                np.copyto(latest, y)
            try:
                yield y
            except GeneratorExit:  # the last gradient is still to be sent
                if under_way:
                    center.exchange(sent, into=latest)
                np.copyto(x, latest)
                raise
            if under_way:
                with center.exchanging(sent, into=latest):
                    worker.gradient(y, out=g)
            else:
                worker.gradient(y, out=g)
            if k < warmup:
                center.exchange(g, into=y)
                continue
            with worker.updating:
                np.copyto(sent, g)
                compensate(g, latest, before)
                np.copyto(y, latest)
                worker.descend(y, g, scale=local_lr)
            under_way = True
