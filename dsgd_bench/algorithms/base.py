"""What an algorithm is: a short generator, and the facts that tests and tables need.

1. An algorithm is a generator function ``name(x, worker, *, settings...)``.
2. Above the first ``yield`` it makes its buffers and windows; that is not timed.
3. It yields the model to be evaluated: first the initial one, then one per step; every
   worker of a synchronous algorithm yields equally often. A server yields its part of
   the center in an array of zeros, once per message served, and ends by itself when
   the last worker has left.
4. It reads gradients only through ``worker.gradient(x, out=g)``, moves models only
   through ``worker.update``, and reaches the others only through ``worker.fabric``;
   they keep the time and count the bytes.
5. At a ``yield`` the yielded array is whole; it is the algorithm's again afterwards.
6. When closed it leaves its ``with`` blocks and receives what is in flight; then the
   array it was given holds this worker's final model.
7. It can be stopped between two steps and go on later: it is started with the model it
   ended with, counts from ``worker.state.step``, and finds what else it needs in
   ``worker.state.keep``.
"""

import inspect
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Protocol

from dsgd_bench import graphs
from dsgd_bench.algorithms.facts import Facts, Setup
from dsgd_bench.arrays import Array
from dsgd_bench.errors import ConfigError
from dsgd_bench.exchanges.resumable import State
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.graphs import Graph
from dsgd_bench.spec.ranges import GraphName, Servers


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
    lr : float
        The learning rate now; for algorithms with the trait ``per-gradient-lr``
        divided by the workers.
    state : State
        What must survive a stop, and the steps taken before.
    updating : context manager
        Arithmetic on models in its ``with`` block is booked as `update`, as that of
        `update` and `descend` is; on the training thread only.
    optimizer : Optimizer
        For what updates on a thread of its own and books that itself.
    """

    rank: int
    size: int
    workers: int
    serves: bool
    epochs: float
    state: State

    @property
    def lr(self) -> float:
        """The learning rate now, see above."""

    @property
    def optimizer(self) -> "Optimizer":
        """The update without its account, for a thread of one's own that books it."""

    @property
    def updating(self) -> AbstractContextManager[None]:
        """A ``with`` block of arithmetic on models; see above."""

    @property
    def fabric(self) -> Fabric:
        """The way of this rank to the others."""

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

    def graph(self, name: str) -> Graph:
        """Return a graph over the workers."""

    def neighbors(self, graph: str) -> "Neighbors":
        """Return this rank's random neighbors in `graph`."""


class Optimizer(Protocol):
    """How a gradient moves a model, without any account."""

    def update(self, x: Array, g: Array) -> None:
        """Move `x` by the gradient `g`, in place."""


class Neighbors(Protocol):
    """An endless random choice among the neighbors of one rank."""

    def draw(self) -> int | None:
        """Return a uniformly random neighbor, or None if there is none."""


Steps = Generator[Array, None, None]


@dataclass(frozen=True, kw_only=True)
class Algorithm(Facts):
    """One entry of the table: the generator function and what is known about it.

    Attributes
    ----------
    name : str
        What configurations call it.
    steps : callable
        The generator function.
    """

    name: str
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

    def today(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return settings that an earlier version wrote in those of this one."""
        found = dict(settings)
        for name, convert in self.former_settings.items():
            if name in found:
                found |= convert(found.pop(name))
        return found

    def servers(self, settings: Mapping[str, Any], ranks: int) -> int:
        """Return how many of the `ranks` are servers; a single rank is none."""
        given = next(
            (
                settings.get(key, default)
                for key, (type_, default) in self.settings.items()
                if type_ == Servers
            ),
            0,
        )
        return 0 if ranks == 1 else int(given)

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
        for key, (type_, default) in self.settings.items():
            name = settings.get(key, default)
            if type_ == GraphName and name:
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

    def setup(self, settings: Mapping[str, Any], ranks: int) -> Setup:
        """Return what a trial of so many ranks asks for, defaults filled in.

        Raises
        ------
        ConfigError
            As `graphs`.
        """
        defaults = {name: default for name, (_, default) in self.settings.items()}
        servers = self.servers(settings, ranks)
        graphs = self.graphs(settings, ranks)
        return Setup({**defaults, **settings}, graphs, ranks - servers, servers)

    def sent(self, settings: Mapping[str, Any], ranks: int) -> float | None:
        """Return the models that a rank sends per gradient on average; None: a result.

        Raises
        ------
        ConfigError
            As `graphs`.
        """
        least, most = self.models(self.setup(settings, ranks))
        return most if least == most else None


def algorithm(name: str, facts: Facts) -> Callable[[Callable[..., Steps]], Algorithm]:
    """Make a generator function an entry of the table; see `Facts`."""
    known = {field.name: getattr(facts, field.name) for field in fields(facts)}
    return lambda steps: Algorithm(name=name, steps=steps, **known)
