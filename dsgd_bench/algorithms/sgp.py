"""SGP: stochastic gradient push; push-sum on directed graphs, one message one way.

M. Assran, N. Loizou, N. Ballas and M. Rabbat, "Stochastic gradient push for distributed
deep learning", ICML 2019, Algorithm 1 (arXiv:1811.10792). Worker i holds a numerator
x_i and a weight w_i = 1; P is column-stochastic, every worker splitting its own mass:

    g_i  =  gradient of F at z_i
    x_i  <-  x_i - lr g_i                     on the numerator
    x_i  <-  sum_j p_ij x_j,   w_i <- sum_j p_ij w_j
    z_i  <-  x_i / w_i

The weight that is sent is the one that was split off, so any graph will do: irregular,
with shares of its own, changing. On the default graph, as in the official runs, all
weights stay 1, and the mean of the z_i is conserved by push-sum; elsewhere only that of
the x_i is, and the z_i meet at it. Momentum is local. Hybrids use another graph, or
AllReduce-SGD, in the first epochs, when models differ most (AR/1P-SGP, 2P/1P-SGP).

Traffic      one model and weight to every out-neighbor of the step
Memory       five vectors (model, numerator, gradient, sent, received), more where a
             worker sends or receives several
Fixed point  sum_i g_i(z_i) = 0 on any graph that does not change; the models differ by
             O(lr). Not so without the weights.
"""

from itertools import count

import numpy as np

from dsgd_bench.algorithms import bounds
from dsgd_bench.algorithms.base import Steps, Worker, algorithm
from dsgd_bench.algorithms.facts import (
    Bound,
    Case,
    Facts,
    Setup,
    to_neighbors,
    within_reach,
)
from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.push_sum import Push
from dsgd_bench.spec.ranges import GraphName, NotNegative


def sent(setup: Setup) -> float | tuple[float, float]:
    """Return the out-neighbors, or these and what the first epochs send instead."""
    later = to_neighbors(setup)
    if not setup.settings["early_epochs"]:
        return later
    early = setup.graphs.get("early_graph", setup.graphs["graph"]).messages_per_step()
    if setup.settings["early_all_reduce"]:
        early = 1.0
    return min(early, later), max(early, later)


def least_time(case: Case) -> Bound | None:
    """Send after each gradient; none is known where the first epochs differ."""
    if case.setup.settings["early_epochs"]:
        return None
    return bounds.after_neighbors(case)


@algorithm(
    "sgp",
    Facts(
        paper="arXiv:1811.10792, Algorithm 1",
        traits={"synchronous", "push-sum", "mean-preserving"},
        vectors=5,
        waits_for="neighbors",
        models_sent=sent,
        bound=least_time,
        max_skew=within_reach,
        weighted=lambda setup: setup.settings["weights"],
        claims={"slow-network"},
    ),
)
def sgp(  # noqa: PLR0913 (every setting is an argument)
    z: Array,
    worker: Worker,
    *,
    graph: GraphName = "one-peer-exponential",
    early_graph: GraphName = "",
    early_all_reduce: bool = False,
    early_epochs: NotNegative = 0.0,
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
    early_graph : str
        Graph of the first epochs (2P/1P-SGP); by default the same.
    early_all_reduce : bool
        Whether the first epochs are AllReduce-SGD (AR/1P-SGP).
    early_epochs : float
        Epochs that these are.
    weights : bool
        Whether z is x / w; else it is x, which does not reach the true average on
        graphs that are not balanced: an ablation.
    """
    g = np.zeros_like(z)
    later = worker.graph(graph)
    earlier = worker.graph(early_graph) if early_graph else later
    with Push(
        worker.fabric, z, earlier, later, weights=weights, state=worker.state
    ) as push:
        for k in count(worker.state.step):
            yield z
            worker.gradient(z, out=g)
            is_early = worker.epochs < early_epochs
            if is_early and early_all_reduce:
                worker.fabric.average(g)
                worker.update(push.x, g)
            else:
                worker.update(push.x, g)
                push.mix(earlier if is_early else later, k)
            push.debias()
