"""The least time per step that an algorithm's rule allows on links of known rates.

With t seconds of emulated compute, a model of M bytes and links of B bytes per second,
as fast out as in, both ways at once. What the rule puts after each other adds up, what
it puts beside each other is as long as the longer; nothing but transfers takes time.
No implementation can be faster; how much slower one is, says what it loses.

Where links differ, whoever keeps step waits for the slowest link of a step. Others go
at their own pace, as far as the links, locks or servers they share allow; their "time
per step" is n over the gradients per second of all n workers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.analysis.labels import slowed
from dsgd_bench.analysis.links import Floats, Links
from dsgd_bench.graphs import Graph

if TYPE_CHECKING:
    from dsgd_bench.spec.trial import Trial

SYMBOLS = (
    "t: emulated compute; M: bytes of a model; B: the link's rate each way, where links"
    " differ that of the slowest a step waits for; n workers, k servers; deg: messages"
    " of a rank per step; H: steps from one exchange to the next"
)
"""What the formulas mean, for the report."""


@dataclass(frozen=True)
class Bound:
    """The least time per step.

    Attributes
    ----------
    seconds : float
        The bound.
    formula : str
        How it comes about where all links are equal.
    """

    seconds: float
    formula: str


@dataclass(frozen=True)
class Case:
    """One trial on known links.

    Attributes
    ----------
    settings : mapping
        Of the algorithm, defaults filled in.
    graph : Graph or None
        Who sends to whom, where the algorithm says.
    compute : array of shape (workers,)
        Seconds of a worker's gradient.
    model : float
        Bytes of a model.
    links : Links
        Of all ranks; servers are the last ones.
    """

    settings: Mapping[str, Any]
    graph: Graph | None
    compute: Floats
    model: float
    links: Links

    @property
    def workers(self) -> int:
        """How many ranks compute gradients."""
        return self.compute.size

    @property
    def ranks(self) -> int:
        """How many ranks there are."""
        return len(self.links.hosts)

    @property
    def servers(self) -> int:
        """How many ranks serve."""
        return self.ranks - self.workers

    @property
    def every(self) -> int:
        """Steps from one exchange to the next."""
        return max(int(self.settings.get("every", 1)), 1)


def bound(trial: "Trial", model_bytes: int, links: Links) -> Bound | None:
    """Return the least time per step of a trial; None where its rule gives none.

    Parameters
    ----------
    trial : Trial
        With emulated compute: how long real gradients take is not known before.
    model_bytes : int
        M.
    links : Links
        B, host by host.
    """
    algorithm = ALGORITHMS.get(trial.algorithm.kind)
    rule = RULES.get(trial.algorithm.kind)
    emulated = trial.compute.mode == "emulated" and trial.compute.seconds > 0.0
    fits = len(links.hosts) == trial.ranks > 1 and model_bytes > 0
    if algorithm is None or rule is None or not (emulated and fits):
        return None
    given = trial.algorithm.settings
    defaults = {name: default for name, (_, default) in algorithm.settings.items()}
    workers = trial.ranks - algorithm.servers(given, trial.ranks)
    graph = algorithm.graphs(given, trial.ranks).get("graph")
    case = Case(
        {**defaults, **given},
        graph,
        _compute(trial, workers),
        float(model_bytes),
        links,
    )
    return rule(case)


def _compute(trial: "Trial", workers: int) -> Floats:
    """Return every worker's seconds; a random slowdown may be none at all."""
    seconds = np.full(workers, trial.compute.seconds)
    if trial.slowdown.kind == "constant":
        seconds[list(slowed(trial.slowdown, workers))] *= trial.slowdown.factor
    return seconds


# ------------------------------------------------------------------ all in one step


def _allreduce(case: Case) -> Bound:
    """Compute, then sum in a ring: each rank sends the next one 2(n - 1)/n models.

    It is the least for equal links; one slow link alone could do with one model.
    """
    seconds = case.compute.max() + _ring(case).max()
    return Bound(seconds, "t + 2(n-1)/n·M/B")


def _bucketed(case: Case) -> Bound:
    """Sum in a ring beside the way back; nothing is ready before its end begins.

    How much hides depends on the layers: the least is that all but an instant does.
    """
    seconds = max(case.compute.max(), _ring(case).max())
    return Bound(seconds, "max(t, 2(n-1)/n·M/B)")


def _localsgd(case: Case) -> Bound:
    """Reduce every H-th step only."""
    seconds = case.compute.max() + _ring(case).max() / case.every
    return Bound(seconds, "t + 2(n-1)/n·M/(H·B)")


def _dpsgd(case: Case) -> Bound:
    """Send the model to all neighbors beside the gradient."""
    seconds = max(case.compute.max(), _mixing(case).max())
    return Bound(seconds, f"max(t, {_degree(case)}M/B)")


def _in_turn(case: Case) -> Bound | None:
    """Compute, then send to all out-neighbors and wait for all in-neighbors."""
    if case.settings.get("early_epochs"):
        return None  # sends otherwise at first
    seconds = (case.compute + _mixing(case)).max()
    return Bound(seconds, f"t + {_degree(case)}M/B")


def _osgp(case: Case) -> Bound | None:
    """Send every tau-th step, beside tau gradients; tau = 0 is SGP."""
    tau = int(case.settings["tau"])
    if tau == 0:
        return _in_turn(case)
    seconds = max(case.compute.max(), _mixing(case).max() / tau)
    rate = "B" if tau == 1 else f"({tau}B)"
    return Bound(seconds, f"max(t, {_degree(case)}M/{rate})")


def _ssgd(case: Case) -> Bound:
    """Send all gradients in, then, the last being there, n/k models out of a server.

    Whoever is answered last computes and sends its gradient after that. (A server that
    answers all at the same time, at equal shares, needs 2 n/k M/B.)
    """
    out, own = _served(case), _own(case)
    seconds = max(out + (case.compute + own).min(), (case.compute + 2 * own).max())
    return Bound(seconds, "t + (n/k + 1)·M/B")


def _odsgd(case: Case) -> Bound:
    """Do the same round beside the next gradient."""
    out, own = _served(case), _own(case)
    seconds = max(case.compute.max(), out + own.min(), 2 * own.max())
    return Bound(seconds, "max(t, (n/k + 1)·M/B)")


# ------------------------------------------------------------------ each on its own


def _asgd(case: Case) -> Bound:
    """Send a gradient in, then a model out; the servers' links carry all workers'."""
    rates = 1 / (case.compute + 2 * _own(case))
    shared = _served(case) / case.workers
    seconds = _together(rates, np.full((1, case.workers), shared))
    return Bound(seconds, "max(t + 2M/B, n/k·M/B)")


def _easgd(case: Case) -> Bound:
    """Send a model in, then a difference out, beside every H-th gradient."""
    t, h = case.compute, case.every
    rates = h / ((h - 1) * t + np.maximum(t, 2 * _own(case)))
    shared = _served(case) / case.workers / h
    seconds = _together(rates, np.full((1, case.workers), shared))
    if h == 1:
        return Bound(seconds, "max(t, 2M/B, n/k·M/B)")
    return Bound(seconds, "max(t, ((H-1)t + 2M/B)/H, n/k·M/(H·B))")


def _adpsgd(case: Case) -> Bound:
    """Compute, then move a model from and to a random neighbor, both ways at once.

    A replica is in one exchange at a time: per gradient in its own and, on average, in
    one that another worker starts.
    """
    seconds = _pairwise(case, 1, beside=False)
    return Bound(seconds, "max(t + M/B, 2M/B)")


def _lock_free(case: Case) -> Bound | None:
    """Do the same without locks: equal links are as busy; for others, no bound."""
    return None if case.links.uneven else _adpsgd(case)


def _overlapped(case: Case) -> Bound:
    """Exchange beside the gradient."""
    return Bound(_pairwise(case, 1, beside=True), "max(t, 2M/B)")


def _acid(case: Case) -> Bound:
    """Move, as `adpsgd`, a model and its momentum copy each way."""
    seconds = _pairwise(case, 2, beside=False)
    return Bound(seconds, "max(t + 2M/B, 4M/B)")


def _free(case: Case) -> Bound:
    """Compute on: on a slow network less is exchanged, and nobody waits."""
    return Bound(case.workers / float((1 / case.compute).sum()), "t")


RULES: dict[str, Callable[[Case], Bound | None]] = {
    "allreduce": _allreduce,
    "allreduce-bucketed": _bucketed,
    "localsgd": _localsgd,
    "dpsgd": _dpsgd,
    "dpsgd-atc": _in_turn,
    "ssgd": _ssgd,
    "odsgd": _odsgd,
    "asgd": _asgd,
    "dcasgd": _asgd,
    "easgd": _easgd,
    "eamsgd": _easgd,
    "sgp": _in_turn,
    "osgp": _osgp,
    "adpsgd": _adpsgd,
    "adpsgd-overlapped": _overlapped,
    "adpsgd-waitfree": _free,
    "adpsgd-delta": _lock_free,
    "acid": _acid,
    "swift": _free,
    "dasgd": _free,
}
"""Kind -> bound. None for postlocal, whose steps are of two kinds."""


# ------------------------------------------------------------------ traffic


def _ring(case: Case) -> Floats:
    """Return the seconds of every rank's link in a ring all-reduce."""
    n = case.ranks
    traffic = np.roll(np.eye(n), 1, axis=1) * 2 * (n - 1) / n
    return case.links.busy(traffic * case.model)


def _mixing(case: Case) -> Floats:
    """Return the seconds of every rank's link per step, mean over the graph's cycle."""
    traffic = np.zeros((case.ranks, case.ranks))
    if case.graph is not None:
        for phase in case.graph.phases:
            for rank, targets in enumerate(phase):
                traffic[rank, list(targets)] += 1 / case.graph.period
    return case.links.busy(traffic * case.model)


def _served(case: Case) -> float:
    """Return the seconds of the servers' links if every worker sends a model.

    The way back takes the same.
    """
    traffic = np.zeros((case.ranks, case.ranks))
    traffic[: case.workers, case.workers :] = case.model / case.servers
    return float(case.links.busy(traffic)[case.workers :].max())


def _own(case: Case) -> Floats:
    """Return the seconds that every worker, alone, needs to send to the servers."""
    seconds = np.zeros(case.workers)
    for worker in range(case.workers):
        traffic = np.zeros((case.ranks, case.ranks))
        traffic[worker, case.workers :] = case.model / case.servers
        seconds[worker] = case.links.busy(traffic).max()
    return seconds


def _pairwise(case: Case, models: int, *, beside: bool) -> float:
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
    rates = 1 / (np.maximum(t, own) if beside else t + own)
    return _together(rates, held.T + np.diag(own))


def _together(rates: Floats, costs: Floats) -> float:
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


def _degree(case: Case) -> str:
    once = case.graph is not None and case.graph.messages_per_step() == 1
    return "" if once else "deg·"
