"""DASGD: every gradient goes to all others, in sums; no averaging, no waiting.

E. Tosi and M. Theobald, "Fully decentralized asynchronous SGD" (arXiv:2309.03754); the
system is TensAIR (arXiv:2211.10280). Worker i, forever, with lr = lr_round / n since
every gradient is applied alone:

    x_i  <-  x_i + d   for all sums d that have arrived      before computing
    g     =  gradient of F at x_i
    x_i  <-  x_i - lr g;   D_i <- D_i - lr g                 at once
    after K gradients:  D_i goes to all others;  D_i <- 0

The model lies in a window and takes the sums itself, so what has arrived is in it. A
sum goes out during the next gradients; if the network is slower than they are, it waits
for the last one to arrive and grows meanwhile. Only plain SGD makes sense: a stateful
optimizer fed with different sums would drive the models apart for good.

Traffic      (n-1)/K models each way per gradient, fewer if the network is slower
Memory       six vectors (replica, model read, gradient, movement, two sums)
Fixed point  sum_i r_i g_i(x) = 0, with r_i the gradients per second of worker i; when
             all has arrived, x_i = x_0 - lr * sum of all gradients for every i
"""

import numpy as np

from dsgd_bench.algorithms import bounds
from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.facts import Facts, Setup
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.sum_replicas import SumReplicas
from dsgd_bench.spec.ranges import Index


def in_one_sum(setup: Setup) -> int:
    """Return K."""
    return int(setup.settings["every"]) or setup.workers


def fewer_if_slow(setup: Setup) -> tuple[float, float]:
    """Return no model, where no sum ever arrives, to (n-1)/K."""
    return 0.0, (setup.workers - 1) / in_one_sum(setup)


@algorithm(
    "dasgd",
    Facts(
        paper="arXiv:2309.03754",
        traits={
            "asynchronous",
            "mean-preserving",
            "eventually-identical",
            "per-gradient-lr",
            "plain",
        },
        vectors=6,
        waits_for="none",
        models_sent=fewer_if_slow,
        staleness="sets",
        bound=bounds.alone,
        loses_messages=True,
        summed=in_one_sum,
        claims={"slow-network"},
    ),
)
def dasgd(x: Array, worker: Worker, *, every: Index = 1) -> Steps:
    """Yield this worker's model as it was read for each gradient.

    Parameters
    ----------
    x : array of shape (dim,)
        Initial model. The algorithm owns it from now on.
    worker : Worker
        This rank's gradient, optimizer, random stream and fabric.
    every : int
        Gradients between two sums sent, K; 0 is the number of workers, as TensAIR
        recommends: then a worker sends about one model per gradient.
    """
    g, movement = np.zeros_like(x), np.zeros_like(x)
    with SumReplicas(worker.fabric, x, worker.state) as replicas:
        while True:
            yield x
            worker.gradient(x, out=g)
            with worker.updating:
                movement.fill(0.0)
                worker.descend(movement, g)
            replicas.add(movement)
            if replicas.unsent >= (every or worker.workers):
                replicas.spread()
            replicas.read(out=x)
