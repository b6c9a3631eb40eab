"""Post-local SGD: AllReduce-SGD at first, Local SGD from a given epoch on.

T. Lin et al., "Don't use large mini-batches, use local SGD", ICLR 2020, section 3
(arXiv:1808.07217). Until `after` epochs of all workers together, with n workers,

    x    <-  x - lr (1/n) sum_i g_i(x)

and from then on `localsgd`: the paper switches at the first decay of the learning rate.

Traffic      one all-reduce per step, later one every H steps
Memory       three vectors (model, gradient, start), one more with momentum
Fixed point  as `localsgd`
"""

import numpy as np

from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.facts import Facts, rarely
from dsgd_bench.arrays import Array
from dsgd_bench.spec.ranges import Count, NotNegative


@algorithm(
    "postlocal",
    Facts(
        paper="arXiv:1808.07217, section 3",
        traits={"synchronous", "mean-preserving"},
        vectors=3,
        waits_for="all",
        models_sent=lambda setup: (1.0 / setup.every, 1.0),
        all_reduced=1.0,
        max_skew=rarely,
    ),
)
def postlocal(
    x: Array, worker: Worker, *, every: Count = 8, after: NotNegative = 1.0
) -> Steps:
    """Yield this worker's model before the first step and after every step.

    Parameters
    ----------
    x : array of shape (dim,)
        Initial model. The algorithm owns it from now on.
    worker : Worker
        This rank's gradient, optimizer and fabric.
    every : int
        Steps H between two averagings of the second phase.
    after : float
        Epochs of all workers together in the first phase.
    """
    g = np.zeros_like(x)
    local = worker.state.keep("local steps", np.zeros(1, np.int64))
    while True:
        yield x
        worker.gradient(x, out=g)
        if worker.epochs < after:
            worker.fabric.average(g)
            worker.update(x, g)
            continue
        worker.update(x, g)
        local += 1
        if local.item() % every == 0:
            worker.fabric.average(x)
