"""Local SGD: every worker on its own, all models averaged every H steps.

S. Stich, "Local SGD converges fast and communicates little", ICLR 2019, Algorithm 1
(arXiv:1805.09767). Worker i in every step

    x_i  <-  x_i - lr g_i(x_i)
    x_i  <-  (1/n) sum_j x_j         after every H-th step

Momentum buffers stay local and are kept over an averaging.

Traffic      one all-reduce of the model every H steps
Memory       three vectors (model, gradient, start), one more with momentum
Fixed point  the optimum if all curvatures are equal, else off by O(lr (H - 1))
"""

from itertools import count

import numpy as np

from dsgd_bench.algorithms import bounds
from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.facts import Facts, once_in_a_while, rarely
from dsgd_bench.arrays import Array
from dsgd_bench.spec.ranges import Count


@algorithm(
    "localsgd",
    Facts(
        paper="arXiv:1805.09767, Algorithm 1",
        traits={"synchronous", "mean-preserving", "consensus"},
        vectors=3,
        waits_for="all",
        models_sent=once_in_a_while,
        bound=bounds.all_reduce_rarely,
        all_reduced=1.0,
        max_skew=rarely,
        overlapped_form_of="allreduce",
        claims={"absorbs-delays"},
    ),
)
def localsgd(x: Array, worker: Worker, *, every: Count = 8) -> Steps:
    """Yield this worker's model before the first step and after every step.

    Parameters
    ----------
    x : array of shape (dim,)
        Initial model. The algorithm owns it from now on.
    worker : Worker
        This rank's gradient, optimizer and fabric.
    every : int
        Steps H between two averagings; 1 is AllReduce-SGD if there is no momentum.
    """
    g = np.zeros_like(x)
    for k in count(worker.state.step):
        yield x
        worker.gradient(x, out=g)
        worker.update(x, g)
        if (k + 1) % every == 0:
            worker.fabric.average(x)
