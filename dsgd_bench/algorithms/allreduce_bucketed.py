"""AllReduce-SGD, overlapped: parts of the gradient are averaged once they are ready.

The same steps as `allreduce`, at another time: backpropagation computes the gradient of
the last layer first, and its all-reduce runs while the layers before it are still at
work (S. Li et al., "PyTorch Distributed: experiences on accelerating data parallel
training", VLDB 2020, section 3.2, arXiv:2006.15704). Small layers wait until together
they fill a bucket, because every all-reduce has a latency. With gradient g_i = (g_i1,
..., g_ib) in b buckets, last first, in every step

    g_k  <-  (1/n) sum_i g_ik        for k = b, ..., 1, overlapped with the rest
    x    <-  x - lr (g_1, ..., g_b)

This is what data-parallel training does in practice, so it is the baseline that an
asynchronous or decentralized algorithm has to beat. It hides nothing where a gradient
comes in one piece, as that of the problems quadratic and logistic does.

Traffic      one all-reduce of the gradient in every step, in b messages
Memory       as `allreduce`
Fixed point  as `allreduce`
"""

import numpy as np

from dsgd_bench.algorithms import bounds
from dsgd_bench.algorithms.allreduce import PAPER_TIMES
from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.facts import Facts
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.buckets import Buckets
from dsgd_bench.spec.ranges import Many


@algorithm(
    "allreduce-bucketed",
    Facts(
        paper="arXiv:2006.15704, section 3.2",
        traits={"synchronous", "mean-preserving", "identical"},
        vectors=3,
        waits_for="all",
        models_sent=1,
        bound=bounds.overlapped_all_reduce,
        all_reduced=1.0,
        overlapped_form_of="allreduce",
        paper_times=PAPER_TIMES,
    ),
)
def allreduce_bucketed(
    x: Array, worker: Worker, *, bucket_bytes: Many = 256 * 1024
) -> Steps:
    """Yield the model before the first step and after every step.

    Parameters
    ----------
    x : array of shape (dim,)
        Initial model, equal on every rank. The algorithm owns it from now on.
    worker : Worker
        This rank's gradient, optimizer and fabric.
    bucket_bytes : int
        Bytes from which on a bucket is full. PyTorch has 25 MiB, for models of 100 MiB
        and more; the default gives ResNet-20 four buckets.
    """
    g = np.zeros_like(x)
    averaging = Buckets(worker.fabric, g, bucket_bytes)
    while True:
        yield x
        with averaging as ready:
            worker.gradient(x, out=g, ready=ready)
        worker.update(x, g)
