"""OSGP: overlap stochastic gradient push; messages travel during up to tau gradients.

M. Assran, N. Loizou, N. Ballas and M. Rabbat, ICML 2019, Algorithm 2
(arXiv:1811.10792), one-sided. Worker i, in its step k, with numerator x_i and weight
w_i as in `sgp`:

    g_i  =  gradient of F at z_i
    x_i  <-  x_i - lr g_i
    start sending p_ji (x_i, w_i) to each out-neighbor j; at once
    x_i  <-  p_ii x_i,   w_i <- p_ii w_i      both if k mod tau = 0
    wait for the messages of step k - tau     if one was due then
    x_i  <-  x_i + x',   w_i <- w_i + w'      for every message that has arrived
    z_i  <-  x_i / w_i

Between the share's leaving and another one's arrival w_i is below 1, so the weights are
needed on any graph. With tau = 1 a message hides behind one gradient. tau = 0 is SGP,
in the same order of operations. A worker that comes to its end takes in what is still
under way: all mass is back when the run is over.

A message that arrives early is added early, so the result depends on the network, and
workers may be apart by some steps: no worker waits for all.

Traffic      one model and weight to every out-neighbor in every max(tau, 1)-th step
Memory       five vectors (model, numerator, gradient, sent, arrived) and two slots per
             worker that is ever heard from
Fixed point  as `sgp`: sum_i g_i(z_i) = 0 if messages keep time
"""

from itertools import count

import numpy as np

from dsgd_bench.algorithms import bounds
from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.facts import Bound, Case, Facts, to_neighbors, within_reach
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.push_sum import OverlappedPush
from dsgd_bench.spec.ranges import GraphName, Index


def least_time(case: Case) -> Bound:
    """Send every tau-th step, overlapped with tau gradients; tau = 0 is SGP."""
    tau = int(case.setup.settings["tau"])
    if tau == 0:
        return bounds.after_neighbors(case)
    seconds = max(case.compute.max(), bounds.averaging(case).max() / tau)
    rate = "B" if tau == 1 else f"({tau}B)"
    return Bound(seconds, f"max(t, {bounds.degree(case)}M/{rate})")


@algorithm(
    "osgp",
    Facts(
        paper="arXiv:1811.10792, Algorithm 2",
        traits={"asynchronous", "push-sum"},
        vectors=9,
        waits_for="neighbors, late",
        models_sent=lambda setup: to_neighbors(setup) / max(setup.settings["tau"], 1),
        staleness="steps",
        bound=least_time,
        staleness_limits=lambda setup: (0.0, setup.settings["tau"]),
        max_skew=lambda setup: within_reach(setup) * (1 + setup.settings["tau"]),
        weighted=lambda setup: setup.settings["weights"],
        former_settings={"biased": lambda biased: {"weights": not biased}},
        overlapped_form_of="sgp",
        claims={"absorbs-delays", "slow-network"},
    ),
)
def osgp(
    z: Array,
    worker: Worker,
    *,
    graph: GraphName = "one-peer-exponential",
    tau: Index = 1,
    weights: bool = True,
) -> Steps:
    """Yield this worker's model z, at which its next gradient is taken.

    Parameters
    ----------
    z : array of shape (dim,)
        Initial model. The algorithm owns it from now on.
    worker : Worker
        This rank's gradient, optimizer and fabric.
    graph : str
        Name in `dsgd_bench.graphs.GRAPHS`.
    tau : int
        Gradient steps that a message may take before it is waited for.
    weights : bool
        Whether z is x / w; else it is x itself: an ablation of the paper.
    """
    g = np.zeros_like(z)
    every = max(tau, 1)
    topology = worker.graph(graph)
    with OverlappedPush(
        worker.fabric, z, topology, tau=tau, weights=weights, state=worker.state
    ) as push:
        for k in count(worker.state.step):
            yield z
            worker.gradient(z, out=g)
            worker.update(push.x, g)
            if k % every == 0:
                push.send(k)
            if k >= tau and (k - tau) % every == 0:
                push.wait_for(k - tau)
            push.collect(k)
