"""What an algorithm is: a short generator, and the facts that tests and tables need.

1. An algorithm is a generator function ``name(x, worker, *, settings...)``.
2. Above the first ``yield`` it makes its buffers and windows; that is not timed.
3. It yields the model to be judged: first the initial one, then one per step; every
   worker of a synchronous algorithm yields equally often. A server yields its part of
   the center in an array of zeros, once per message served, and ends by itself when
   the last worker has left.
4. It reads gradients only through ``worker.gradient(x, out=g)``, moves models only
   through ``worker.update``, and reaches the others only through ``worker.fabric``;
   they keep the time and count the bytes.
5. At a ``yield`` the yielded array is whole; it is the algorithm's again afterwards.
6. When closed it leaves its ``with`` blocks and drains what is under way; then the
   array it was given holds this worker's final model.
7. It can be stopped between two steps and go on later: it is started with the model it
   ended with, counts from ``worker.state.step``, and finds what else it needs in
   ``worker.state.keep``.
"""

import inspect
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

from dsgd_bench import graphs
from dsgd_bench.arrays import Array
from dsgd_bench.errors import ConfigError
from dsgd_bench.exchanges.resumable import State
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.graphs import Graph

TRAITS = {
    "synchronous": "all workers take equally many steps; same result on every fabric",
    "asynchronous": "nobody waits for all; steps per worker are a result",
    "keeps-mean": "the mean model, or the center, moves by -lr times the mean gradient",
    "agrees": "without gradients the replicas meet at their mean",
    "identical": "all replicas are equal after every step",
    "drains": "all replicas are equal once what is under way has arrived",
    "push-sum": "numerators and weights are conserved; the model is their ratio",
    "center": "the model to be judged lies in parts on server ranks",
    "in-full": "every gradient moves a model in full: lr is divided by the workers",
    "undirected": "needs an undirected graph that does not change",
    "plain": "needs plain SGD: no momentum, weight decay or schedule",
    "own-momentum": "has a momentum of its own: the optimizer's must be off",
}
"""Promises; each has a contract test that every algorithm claiming it must pass."""


STALENESS = {
    "none": "every gradient is applied to the model that it was taken at",
    "gradients": "gradients of all workers applied between read and update (tau_t)",
    "versions": "versions of the model at the server between read and update",
    "steps": "own step minus the step stamp of the oldest message mixed in",
    "sets": "gradients that exist but that the model read lacked (S_t)",
}
"""What the staleness of a gradient means, by family of algorithms."""


class Worker(Protocol):
    """What an algorithm may ask of its rank.

    Attributes
    ----------
    rank, size : int
        Who this is and how many ranks there are, servers included.
    workers : int
        Ranks that compute gradients: the first ones; servers are the last.
    serves : bool
        Whether this rank is a server.
    epochs : float
        Epochs done by all workers together, as far as this rank knows; for a
        synchronous algorithm the same on every rank in the same step.
    lead : int
        Steps by which a worker may be ahead of rank 0: 1 where all meet in every step.
        A synchronous algorithm that meets less often, or only its neighbors, sets it.
    lr : float
        The learning rate now, divided by the workers for algorithms ``in-full``.
    state : State
        What must survive a stop, and the steps taken before.
    """

    rank: int
    size: int
    workers: int
    serves: bool
    epochs: float
    lead: int
    state: State

    @property
    def lr(self) -> float: ...

    @property
    def fabric(self) -> Fabric: ...

    def gradient(
        self, x: Array, out: Array, ready: Callable[[slice], None] | None = None
    ) -> float:
        """Compute the mean gradient of the next mini-batch at `x` into `out`.

        `ready` is called with every part of `out`, from its end to its start, once it
        is final; where computing is emulated or slowed down, as late as that has it.
        """

    def update(self, x: Array, g: Array) -> None:
        """Move `x` by the gradient `g` as the optimizer says, in place."""

    def descend(self, x: Array, g: Array, scale: float = 1.0) -> None:
        """Move `x` by -`scale` lr `g`, in place; the optimizer's state stays."""

    def graph(self, name: str, *, late: int = 0) -> Graph:
        """Return a graph over the workers whose messages a synchronous step awaits.

        `late` is the number of steps that a message may take; from it and the graph
        follows how far ahead of each other ranks may be when a run ends.
        """

    def neighbors(self, graph: str) -> "Neighbors":
        """Return this rank's random neighbors in `graph`."""


class Neighbors(Protocol):
    """An endless random choice among the neighbors of one rank."""

    def draw(self) -> int | None:
        """Return a uniformly random neighbor, or None if there is none."""


Steps = Generator[Array, None, None]


Sent = float | Literal["graph"] | Callable[[Mapping[str, Any], int], float] | None
"""How many models a rank sends per gradient; see `Algorithm`."""


def once_in_a_while(settings: Mapping[str, Any], _workers: int) -> float:
    """Return the models sent by an algorithm that sends one every so many steps."""
    return float(1 / settings["every"])


@dataclass(frozen=True)
class Algorithm:
    """One entry of the table: the generator function and what is known about it.

    Attributes
    ----------
    name, paper : str
        What configurations call it, and where the rule stands.
    traits : frozenset of str
        Promises out of `TRAITS`.
    vectors : int
        Vectors of the model's size that a rank holds.
    models_sent : float, "graph" or None
        Models that a rank hands over to be sent per gradient (and as many that it
        receives), if there are others; ``"graph"``: one to each neighbor in the setting
        of that name; a function of all settings and the number of workers; None where
        their number is a result.
    staleness : str
        What the staleness of its gradients means, out of `STALENESS`.
    steps : callable
        The generator function.
    """

    name: str
    paper: str
    traits: frozenset[str]
    vectors: int
    models_sent: Sent
    staleness: str
    steps: Callable[..., Steps]

    @cached_property
    def settings(self) -> dict[str, tuple[Any, Any]]:
        """Keyword-only arguments of the generator: name -> (type, default)."""
        return {
            name: (parameter.annotation, parameter.default)
            for name, parameter in inspect.signature(self.steps).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }

    @property
    def summary(self) -> str:
        """First line of the module docstring."""
        doc = inspect.getdoc(inspect.getmodule(self.steps)) or ""
        return doc.partition("\n")[0]

    @property
    def synchronous(self) -> bool:
        """Whether all workers take equally many steps."""
        return "synchronous" in self.traits

    def servers(self, settings: Mapping[str, Any], ranks: int) -> int:
        """Return how many of the `ranks` are servers; a single rank is none."""
        if "servers" not in self.settings or ranks == 1:
            return 0
        return int(settings.get("servers", self.settings["servers"][1]))

    def graphs(self, settings: Mapping[str, Any], ranks: int) -> dict[str, Graph]:
        """Build the graphs over the workers that the settings name, by setting.

        Raises
        ------
        ConfigError
            If there is no such graph over so many workers, or the algorithm cannot run
            on it; the sentence names the setting.
        """
        found = {}
        workers = ranks - self.servers(settings, ranks)
        for key, (_, default) in self.settings.items():
            name = settings.get(key, default)
            if is_graph(key) and name:
                try:
                    found[key] = self._accept(graphs.make(name, workers))
                except ConfigError as error:
                    raise ConfigError(f"algorithm.{key}: {error}") from None
        return found

    def _accept(self, graph: Graph) -> Graph:
        if "undirected" in self.traits and (graph.directed or graph.changing):
            kind = "directed" if graph.directed else "changing"
            raise ConfigError(
                f"{self.name} cannot run on graph '{graph.name}', which is {kind} over "
                f"{graph.size} workers: use an undirected one that does not change, "
                "such as 'ring' or 'complete'"
            )
        return graph

    def sent(self, settings: Mapping[str, Any], ranks: int) -> float | None:
        """Return the models that a rank sends per gradient on average; None: a result.

        Raises
        ------
        ConfigError
            As `graphs`.
        """
        if ranks == 1:
            return 0.0
        if self.models_sent == "graph":
            return self.graphs(settings, ranks)["graph"].messages_per_step()
        if callable(self.models_sent):
            defaults = {name: default for name, (_, default) in self.settings.items()}
            workers = ranks - self.servers(settings, ranks)
            return self.models_sent({**defaults, **settings}, workers)
        return self.models_sent


def is_graph(setting: str) -> bool:
    """Say whether the values of a setting of this name are names of graphs."""
    return setting == "graph" or setting.endswith("_graph")


def algorithm(
    name: str,
    *,
    paper: str,
    traits: set[str],
    vectors: int,
    models_sent: Sent,
    staleness: str = "none",
) -> Callable[[Callable[..., Steps]], Algorithm]:
    """Make a generator function an entry of the table; see `Algorithm`."""
    unknown = sorted(traits - TRAITS.keys()) + sorted({staleness} - STALENESS.keys())
    if unknown:
        raise ValueError(f"no such traits: {unknown}; see TRAITS and STALENESS")
    facts = (name, paper, frozenset(traits), vectors, models_sent, staleness)
    return lambda steps: Algorithm(*facts, steps)
