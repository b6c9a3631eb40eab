"""The least time per step that a rule allows on links of known rates.

With t seconds of emulated compute, a model of M bytes and links of B bytes per second,
as fast out as in, both ways at once. What the rule puts after each other adds up, what
it overlaps is as long as the longer of the two; nothing but transfers takes time.
No implementation can be faster; how much slower one is, is what it loses.

Where links differ, workers that keep step wait for the slowest link of a step. Others
go at their own pace, as far as the links, locks or servers they share allow; their
"time per step" is n over the gradients per second of all n workers.
"""

import numpy as np

from dsgd_bench.algorithms.facts import Bound, Case, Floats

SYMBOLS = (
    "t: emulated compute; M: bytes of a model; B: the link's rate each way, where links"
    " differ that of the slowest a step waits for; n workers, k servers; deg: messages"
    " of a rank per step; H: steps from one exchange to the next"
)
"""What the formulas mean, for the report."""


# ------------------------------------------------------------------ all in one step


def after_all_reduce(case: Case) -> Bound:
    """Compute, then sum in a ring: each rank sends the next one 2(n - 1)/n models.

    It is the least for equal links; one slow link alone could do with one model.
    """
    seconds = case.compute.max() + ring(case).max()
    return Bound(seconds, "t + 2(n-1)/n·M/B")


def overlapped_all_reduce(case: Case) -> Bound:
    """Sum in a ring, overlapped with the backward pass, which makes what is summed.

    How much overlaps depends on the layers: the least is that all but an instant does.
    """
    seconds = max(case.compute.max(), ring(case).max())
    return Bound(seconds, "max(t, 2(n-1)/n·M/B)")


def all_reduce_rarely(case: Case) -> Bound:
    """Reduce every H-th step only."""
    seconds = case.compute.max() + ring(case).max() / case.every
    return Bound(seconds, "t + 2(n-1)/n·M/(H·B)")


def overlapped_neighbors(case: Case) -> Bound:
    """Send the model to all neighbors, overlapped with the gradient."""
    seconds = max(case.compute.max(), averaging(case).max())
    return Bound(seconds, f"max(t, {degree(case)}M/B)")


def after_neighbors(case: Case) -> Bound:
    """Compute, then send to all out-neighbors and wait for all in-neighbors."""
    seconds = (case.compute + averaging(case)).max()
    return Bound(seconds, f"t + {degree(case)}M/B")


def after_round(case: Case) -> Bound:
    """Send all gradients in, then, the last being there, n/k models out of a server.

    The worker that is answered last computes and sends its gradient after that. (A
    server that answers all at the same time, at equal shares, needs 2 n/k M/B.)
    """
    out, own = served(case), own_link(case)
    seconds = max(out + (case.compute + own).min(), (case.compute + 2 * own).max())
    return Bound(seconds, "t + (n/k + 1)·M/B")


def overlapped_round(case: Case) -> Bound:
    """Overlap the same round with the next gradient."""
    out, own = served(case), own_link(case)
    seconds = max(case.compute.max(), out + own.min(), 2 * own.max())
    return Bound(seconds, "max(t, (n/k + 1)·M/B)")


# ------------------------------------------------------------------ each on its own


def after_server(case: Case) -> Bound:
    """Send a gradient in, then a model out; the servers' links carry all workers'."""
    rates = 1 / (case.compute + 2 * own_link(case))
    shared = served(case) / case.workers
    seconds = together(rates, np.full((1, case.workers), shared))
    return Bound(seconds, "max(t + 2M/B, n/k·M/B)")


def overlapped_server(case: Case) -> Bound:
    """Send a model in, then a difference out, overlapped with every H-th gradient."""
    t, h = case.compute, case.every
    rates = h / ((h - 1) * t + np.maximum(t, 2 * own_link(case)))
    shared = served(case) / case.workers / h
    seconds = together(rates, np.full((1, case.workers), shared))
    if h == 1:
        return Bound(seconds, "max(t, 2M/B, n/k·M/B)")
    return Bound(seconds, "max(t, ((H-1)t + 2M/B)/H, n/k·M/(H·B))")


def after_pair(case: Case) -> Bound:
    """Compute, then move a model from and to a random neighbor, both ways at once.

    A replica is in one exchange at a time: per gradient in its own and, on average, in
    one that another worker starts.
    """
    seconds = pairwise(case, 1, overlapped=False)
    return Bound(seconds, "max(t + M/B, 2M/B)")


def overlapped_pair(case: Case) -> Bound:
    """Exchange overlapped with the gradient."""
    return Bound(pairwise(case, 1, overlapped=True), "max(t, 2M/B)")


def alone(case: Case) -> Bound:
    """Compute on: on a slow network less is exchanged, and no worker waits."""
    return Bound(case.workers / float((1 / case.compute).sum()), "t")


# ------------------------------------------------------------------ traffic


def ring(case: Case) -> Floats:
    """Return the seconds of every rank's link in a ring all-reduce."""
    n = case.ranks
    traffic = np.roll(np.eye(n), 1, axis=1) * 2 * (n - 1) / n
    return case.links.busy(traffic * case.model)


def averaging(case: Case) -> Floats:
    """Return the seconds of every rank's link per step, mean over the graph's cycle."""
    traffic = np.zeros((case.ranks, case.ranks))
    if case.graph is not None:
        for phase in case.graph.phases:
            for rank, targets in enumerate(phase):
                traffic[rank, list(targets)] += 1 / case.graph.period
    return case.links.busy(traffic * case.model)


def served(case: Case) -> float:
    """Return the seconds of the servers' links if every worker sends a model.

    The way back takes the same.
    """
    traffic = np.zeros((case.ranks, case.ranks))
    traffic[: case.workers, case.workers :] = case.model / case.servers
    return float(case.links.busy(traffic)[case.workers :].max())


def own_link(case: Case) -> Floats:
    """Return the seconds that every worker, alone, needs to send to the servers."""
    seconds = np.zeros(case.workers)
    for worker in range(case.workers):
        traffic = np.zeros((case.ranks, case.ranks))
        traffic[worker, case.workers :] = case.model / case.servers
        seconds[worker] = case.links.busy(traffic).max()
    return seconds


def pairwise(case: Case, models: int, *, overlapped: bool) -> float:
    """Return the time per step of workers that exchange with random neighbors.

    A replica is held for as long as the slower link of the two needs, and by one
    exchange at a time.
    """
    n, graph = case.workers, case.graph
    drawn = np.zeros((n, n))  # by the rank of the row
    for rank, near in enumerate(graph.neighbors if graph is not None else ()):
        drawn[rank, list(near)] = 1 / max(len(near), 1)
    held = drawn * case.links.apart(models * case.model)
    own = held.sum(axis=1)
    t = case.compute
    rates = 1 / (np.maximum(t, own) if overlapped else t + own)
    return together(rates, held.T + np.diag(own))


def together(rates: Floats, costs: Floats) -> float:
    """Return n over the most gradients per second of n workers.

    Parameters
    ----------
    rates : array of shape (workers,)
        Gradients per second of each one alone.
    costs : array of shape (resources, workers)
        Seconds that one gradient of each takes of what they share: each resource has
        one second per second, and serves the cheapest best.
    """
    most = float(rates.sum())
    for cost in (*costs, costs.mean(axis=0)):  # each resource, and all together
        left, total = 1.0, 0.0
        for worker in np.argsort(cost):
            used = min(float(rates[worker] * cost[worker]), left)
            total += used / cost[worker] if cost[worker] else rates[worker]
            left -= used
        most = min(most, total)
    return rates.size / most


def degree(case: Case) -> str:
    """Return "deg·", or nothing where a rank sends one message per step."""
    once = case.graph is not None and case.graph.messages_per_step() == 1
    return "" if once else "deg·"
