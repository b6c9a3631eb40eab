"""AllReduce-SGD: all workers average gradients, then take the same step.

The synchronous baseline of all four papers (P. Goyal et al., "Accurate, large minibatch
SGD", arXiv:1706.02677, section 3, describes the practice). With n workers, gradient
g_i over worker i's mini-batch and learning rate lr, in every step

    x  <-  x - lr (1/n) sum_i g_i(x)

Traffic      one all-reduce of the gradient in every step
Memory       three vectors (model, gradient, start), one more with momentum
Fixed point  sum_i g_i(x) = 0: the optimum of the mean loss, for any shards
"""

import numpy as np

from dsgd_bench.algorithms import bounds
from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.facts import Facts, PaperTimes
from dsgd_bench.arrays import Array

PAPER_TIMES = PaperTimes("allreduce", {1.0: 1.47, 2.0: 2.6, 10.0: 11.51, 100.0: 100.4})


@algorithm(
    "allreduce",
    Facts(
        paper="arXiv:1706.02677, section 3",
        traits={"synchronous", "mean-preserving", "identical"},
        vectors=3,
        waits_for="all",
        models_sent=1,
        bound=bounds.after_all_reduce,
        all_reduced=1.0,
        paper_times=PAPER_TIMES,
        reference=True,
    ),
)
def allreduce(x: Array, worker: Worker) -> Steps:
    """Yield the model before the first step and after every step.

    Parameters
    ----------
    x : array of shape (dim,)
        Initial model, equal on every rank. The algorithm owns it from now on.
    worker : Worker
        This rank's gradient, optimizer and fabric.
    """
    g = np.zeros_like(x)
    while True:
        yield x
        worker.gradient(x, out=g)
        worker.fabric.average(g)
        worker.update(x, g)
