"""What is known about an algorithm besides its rule: everything that others ask of it.

Checks, expectations, bounds and tables ask here and know no algorithm by its name, so
that an algorithm is its own file and a line of the table. A fact that depends on what a
trial asks for is a function of its `Setup`; one that does not is a value.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.graphs import Graph

Floats = NDArray[np.float64]

TRAITS = {
    "synchronous": "all workers take equally many steps; same result on every fabric",
    "asynchronous": "no worker waits for all others; steps per worker are a result",
    "mean-preserving": "the mean model or center moves by -lr times the mean gradient",
    "consensus": "without gradients the replicas meet at their mean",
    "identical": "all replicas are equal after every step",
    "eventually-identical": "all replicas are equal once nothing is in flight",
    "push-sum": "numerators and weights are conserved; the model is their ratio",
    "center": "the model to be evaluated lies in parts on server ranks",
    "per-gradient-lr": "each gradient is applied alone: lr is divided by the workers",
    "undirected": "needs an undirected graph that does not change",
    "plain": "needs plain SGD: no momentum, weight decay or schedule",
    "own-momentum": "has a momentum of its own: the optimizer's must be off",
}
"""Promises; each has a contract test that every algorithm claiming it must pass."""

STALENESS = {
    "none": "every gradient is applied to the model that it was taken at",
    "gradients": "gradients of all workers applied between read and update (tau_t)",
    "versions": "versions of the model at the server between read and update",
    "steps": "own step minus the step stamp of the oldest message averaged in",
    "sets": "gradients that exist but that the model read lacked (S_t)",
}
"""What the staleness of a gradient means, by family of algorithms."""

WAITS_FOR = {
    "all": "every other worker, in every step or in every so many",
    "neighbors": "those that send to it in this step",
    "neighbors, late": "those that sent to it some steps ago",
    "servers": "the answer of its servers, and no other worker",
    "none": "no rank: on a slow network less is exchanged, or it waits for a link",
}
"""Whom a worker waits for."""

KEEP_STEP = {"all", "neighbors", "neighbors, late"}
"""Of `WAITS_FOR`, where one slow worker slows all in the end: messages that are late by
some steps absorb delays, but no worker that is always slow."""

CLAIMS = {
    "absorbs-delays": "random delays cost it no more than waiting for all does",
    "slow-network": "a paper compares it with all-reduce on a slow network",
}
"""What papers say of an algorithm that a study can look at."""


@dataclass(frozen=True)
class Setup:
    """An algorithm as one trial asks for it.

    Attributes
    ----------
    settings : mapping
        Of the algorithm, defaults filled in.
    graphs : mapping of str to Graph
        Over the workers, by the setting that names it.
    workers, servers : int
        Ranks that compute gradients, and ranks that serve.
    """

    settings: Mapping[str, Any]
    graphs: Mapping[str, Graph]
    workers: int
    servers: int

    @property
    def graph(self) -> Graph | None:
        """The first graph that the settings name; None for algorithms without one."""
        return next(iter(self.graphs.values()), None)

    @property
    def every(self) -> int:
        """Steps from one exchange to the next."""
        return max(int(self.settings.get("every", 1)), 1)


class Links(Protocol):
    """The links between the hosts of a run, as far as a bound asks."""

    @property
    def uneven(self) -> bool:
        """Whether the hosts of the ranks have links of different rates."""

    def busy(self, traffic: Floats) -> Floats:
        """Return the seconds of every rank's link, given bytes of (sender, target)."""

    def apart(self, nbytes: float) -> Floats:
        """Return the seconds of a message between each two ranks."""


@dataclass(frozen=True)
class Case:
    """One trial on known links.

    Attributes
    ----------
    setup : Setup
        What the trial asks of the algorithm.
    compute : array of shape (workers,)
        Seconds of a worker's gradient.
    model : float
        Bytes of a model.
    links : Links
        Of all ranks; servers are the last ones.
    """

    setup: Setup
    compute: Floats
    model: float
    links: Links

    @property
    def workers(self) -> int:
        """How many ranks compute gradients."""
        return self.setup.workers

    @property
    def servers(self) -> int:
        """How many ranks serve."""
        return self.setup.servers

    @property
    def ranks(self) -> int:
        """How many ranks there are."""
        return self.workers + self.servers

    @property
    def graph(self) -> Graph | None:
        """Who sends to whom, where the algorithm says."""
        return self.setup.graph

    @property
    def every(self) -> int:
        """Steps from one exchange to the next."""
        return self.setup.every


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
class PaperTimes:
    """What the slow-worker table of the AD-PSGD paper says of a family of algorithms.

    Attributes
    ----------
    name : str
        The family, as legends call it.
    seconds : mapping of float to float
        Seconds per epoch on the paper's machine, by slowdown of the one slow worker.
    """

    name: str
    seconds: Mapping[float, float]


@dataclass(frozen=True)
class OtherTraffic:
    """Where the paper's exchange sends another number of models than the one here.

    Attributes
    ----------
    models : float
        Models per gradient in the paper.
    why : str
        Why ours sends another number.
    """

    models: float
    why: str


Amount = float | Callable[[Setup], float]
"""A number, or how it follows from what a trial asks for."""

Range = tuple[float, float]
"""The least and the most."""

Former = Callable[[Any], Mapping[str, Any]]
"""From the value of a setting that earlier versions had to settings of today."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What an algorithm says of itself.

    Attributes
    ----------
    paper : str
        Where the rule stands.
    traits : set of str
        Promises out of `TRAITS`.
    vectors : int
        Vectors of the model's size that a rank holds.
    waits_for : str
        Out of `WAITS_FOR`.
    models_sent : float, pair or callable
        Models that a worker hands over to be sent per gradient, if there are others;
        the least and the most where their number is a result, with no end where it is
        that of its exchanges.
    staleness : str
        What the staleness of its gradients means, out of `STALENESS`.
    staleness_limits : pair or callable
        The least and the most that staleness can be after the warm-up.
    max_skew : int or callable
        Steps by which a worker of a synchronous algorithm may be ahead of another.
    bound : callable, optional
        Case to the least time per step; None where none is known.
    all_reduced : float or callable
        Share of the models sent that an all-reduce sums: a ring puts 2(n - 1)/n of
        those on the links.
    warm_up : int or callable
        Steps at the start that are those of another algorithm.
    summed : int or callable
        Gradients that travel in one message as their sum.
    weighted : bool or callable
        Whether push-sum divides by weights that it records.
    one_sided : bool
        Whether exchanges are booked, both ways, by the worker that starts them alone.
    loses_messages : bool
        Whether messages may be lost unread: newer ones replace them, or they arrive
        after the last read, and are in no receiver's account.
    in_turn : bool
        Whether a one-sided exchange runs on the thread that computes, where it waits
        for those that hold a replica of the two.
    overlapped_form_of : str
        The algorithm that exchanges after the gradient, or in every step, where this
        one overlaps the same exchange with it, or exchanges more rarely.
    other_traffic : OtherTraffic, optional
        Where the paper sends another number of models.
    claims : set of str
        Out of `CLAIMS`.
    paper_times : PaperTimes, optional
        What the AD-PSGD paper measured with a slow worker.
    reference : bool
        Whether other algorithms are compared with this one.
    former_settings : mapping
        Settings that earlier versions had: name -> what returns today's for a value.
    rule : int
        Version of the rule. A change that gives the same trial other numbers raises it:
        results of the rule before are then neither taken for those of this one, nor
        pooled with them.
    """

    paper: str
    traits: AbstractSet[str]
    vectors: int
    waits_for: str
    models_sent: float | Range | Callable[[Setup], float | Range]
    staleness: str = "none"
    staleness_limits: Range | Callable[[Setup], Range] = (0.0, inf)
    max_skew: Amount = 1
    bound: Callable[[Case], Bound | None] | None = None
    all_reduced: Amount = 0.0
    warm_up: Amount = 0
    summed: Amount = 1
    weighted: Amount = True
    one_sided: bool = False
    loses_messages: bool = False
    in_turn: bool = False
    overlapped_form_of: str = ""
    other_traffic: OtherTraffic | None = None
    claims: AbstractSet[str] = frozenset()
    paper_times: PaperTimes | None = None
    reference: bool = False
    former_settings: Mapping[str, Former] = field(default_factory=dict)
    rule: int = 1

    def __post_init__(self) -> None:
        unknown = [
            *sorted(self.traits - TRAITS.keys()),
            *sorted(self.claims - CLAIMS.keys()),
            *sorted({self.staleness} - STALENESS.keys()),
            *sorted({self.waits_for} - WAITS_FOR.keys()),
        ]
        if unknown:
            raise ValueError(
                f"no such facts: {unknown}; see TRAITS, CLAIMS, STALENESS and "
                "WAITS_FOR in dsgd_bench.algorithms.facts"
            )

    @property
    def synchronous(self) -> bool:
        """Whether all workers take equally many steps."""
        return "synchronous" in self.traits

    @property
    def keeps_step(self) -> bool:
        """Whether one slow worker slows all in the end."""
        return self.waits_for in KEEP_STEP

    def models(self, setup: Setup) -> Range:
        """Return the fewest and the most models that a worker sends per gradient."""
        if setup.workers + setup.servers == 1:
            return 0.0, 0.0
        sent = self.models_sent
        found = sent(setup) if callable(sent) else sent
        return found if isinstance(found, tuple) else (float(found), float(found))

    def stale(self, setup: Setup) -> Range:
        """Return the least and the most that staleness can be after the warm-up."""
        limits = self.staleness_limits
        return limits(setup) if callable(limits) else limits


def amount(fact: Amount, setup: Setup) -> float:
    """Return what a fact is for a setup."""
    return fact(setup) if callable(fact) else fact


def to_neighbors(setup: Setup) -> float:
    """Return the models of a worker that sends one to each of its neighbors."""
    graph = setup.graph
    return 0.0 if graph is None else graph.messages_per_step()


def once_in_a_while(setup: Setup) -> float:
    """Return the models sent by an algorithm that sends one every so many steps."""
    return 1.0 / setup.every


def within_reach(setup: Setup) -> int:
    """Return the max skew of workers that wait for the neighbors' newest messages.

    A rank that has ended a step has had news of all others within the dissemination
    time of the graph.
    """
    return max([1, *(graph.reach() for graph in setup.graphs.values())])


def rarely(setup: Setup) -> int:
    """Return the max skew of workers that meet every so many steps."""
    return setup.every
