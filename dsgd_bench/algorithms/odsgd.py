"""OD-SGD: a synchronous server whose answer is awaited one step later.

Y. Xu, D. Dong, Y. Xu and X. Liao, "OD-SGD: one-step delay stochastic gradient descent
for distributed training", 2020, Algorithms 1 and 2 (arXiv:2005.06728). In step k of
worker i, with y_i^k its own model and x^k the global one:

    g_i^k    =   gradient of F at y_i^k        while x^k travels
    y_i^k+1  <-  x^k - lr_loc (g_i^k + lambda g_i^k * g_i^k * (x^k - x^k-1))
    x^k+1    <-  x^k - lr (1/n) sum_j g_j^k    at the servers, once all g_j^k are there

so push, sum and pull hide behind the next gradient: the delay is one step, and nobody
is more than one step ahead. The first `warmup` steps are `ssgd`. lambda = 0 is the
plain local update; the others are those of DC-ASGD (see `compensation`), with the
previous global model as what the gradient is compensated from.

Traffic      one gradient to and one model from the servers per worker and step
Memory       six vectors at a worker (two models, two gradients, two global models)
Fixed point  sum_i g_i(x) = 0, up to O(lr) from the local updates
"""

from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from dsgd_bench.algorithms.base import (
    Count,
    Index,
    NotNegative,
    Steps,
    Worker,
    algorithm,
)
from dsgd_bench.algorithms.compensation import Compensation
from dsgd_bench.arrays import Array
from dsgd_bench.fabric.center import SynchronousCenter


@algorithm(
    "odsgd",
    paper="arXiv:2005.06728, Algorithms 1 and 2",
    traits={"synchronous", "center"},
    vectors=6,
    models_sent=1,
    staleness="versions",
)
def odsgd(  # noqa: PLR0913 (every setting is an argument)
    x: Array,
    worker: Worker,
    *,
    servers: Count = 1,
    warmup: Index = 200,
    local: Literal["none", "constant", "adaptive"] = "adaptive",
    local_lr: NotNegative = 1.0,
    strength: NotNegative = 2.0,
    memory: Annotated[float, Meta(ge=0, lt=1)] = 0.0,
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
    g, sent = np.zeros_like(x), np.zeros_like(x)
    latest, before = x.copy(), x.copy()
    compensate = Compensation(x, local, strength, memory)
    worker.lead = 2  # the first step after the warm-up awaits nobody

    def answer(center: Array, mean: Array, _last: int) -> Array:
        worker.update(center, mean)
        return center

    def update_locally() -> None:
        np.copyto(sent, g)
        compensate(g, latest, before)
        np.copyto(x, latest)
        worker.descend(x, g, scale=local_lr)

    with SynchronousCenter(worker.fabric, x, answer, servers) as center:
        if worker.serves:
            yield from center.serve()
            return
        for _ in range(warmup):
            yield x
            worker.gradient(x, out=g)
            np.copyto(before, x)
            center.exchange(g, into=x)
        np.copyto(latest, x)
        yield x
        worker.gradient(x, out=g)
        try:
            while True:
                update_locally()
                before, latest = latest, before
                yield x
                with center.exchanging(sent, into=latest):
                    worker.gradient(x, out=g)
        except GeneratorExit:  # the last gradient is still to be sent
            center.exchange(sent, into=x)
            raise
