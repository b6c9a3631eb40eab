"""What an algorithm is: a short generator, and the facts that tests and tables need.

1. An algorithm is a generator function ``name(x, worker, *, settings...)``.
2. Above the first ``yield`` it makes its buffers and windows; that is not timed.
3. It yields the model to be judged: first the initial one, then one per step; every
   rank of a synchronous algorithm yields equally often.
4. It reads gradients only through ``worker.gradient(x, out=g)``, moves models only
   through ``worker.update``, and reaches the others only through ``worker.fabric``;
   they keep the time and count the bytes.
5. At a ``yield`` the yielded array is whole; it is the algorithm's again afterwards.
6. When closed it leaves its ``with`` blocks and drains what is under way; then the
   array it was given holds this worker's final model.
"""

import inspect
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from msgspec import Meta

from dsgd_bench.arrays import Array
from dsgd_bench.fabric.base import Fabric

TRAITS = {
    "synchronous": "all ranks take equally many steps; same result on every fabric",
    "asynchronous": "nobody waits for all; steps per rank are a result",
    "keeps-mean": "the mean model moves by exactly -lr times the mean gradient",
    "agrees": "without gradients the replicas meet at their mean",
    "identical": "all replicas are equal after every step",
    "undirected": "needs an undirected graph",
}
"""Promises; each has a contract test that every algorithm claiming it must pass."""


class Worker(Protocol):
    """What an algorithm may ask of its rank."""

    rank: int
    size: int

    @property
    def fabric(self) -> Fabric: ...

    def gradient(self, x: Array, out: Array) -> float:
        """Compute the mean gradient of the next mini-batch at `x` into `out`."""

    def update(self, x: Array, g: Array) -> None:
        """Move `x` by the gradient `g` as the optimizer says, in place."""

    def descend(self, x: Array, g: Array) -> None:
        """Move `x` by -lr `g`, in place, without touching the optimizer's state."""

    def neighbors(self, graph: str) -> "Neighbors":
        """Return this rank's random neighbors in `graph`."""


class Neighbors(Protocol):
    """An endless random choice among the neighbors of one rank."""

    def draw(self) -> int | None:
        """Return a uniformly random neighbor, or None if there is none."""


NotNegative = Annotated[float, Meta(ge=0)]
"""Type of a setting that may be 0 but not less."""

Steps = Generator[Array, None, None]


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
    models_sent : float or None
        Models that a rank hands over to be sent per gradient (and as many that it
        receives), if there are others; None where their number is a result.
    steps : callable
        The generator function.
    """

    name: str
    paper: str
    traits: frozenset[str]
    vectors: int
    models_sent: float | None
    steps: Callable[..., Steps]

    @property
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
        """Whether all ranks take equally many steps."""
        return "synchronous" in self.traits


def algorithm(
    name: str,
    *,
    paper: str,
    traits: set[str],
    vectors: int,
    models_sent: float | None,
) -> Callable[[Callable[..., Steps]], Algorithm]:
    """Make a generator function an entry of the table; see `Algorithm`."""
    unknown = traits - TRAITS.keys()
    if unknown:
        raise ValueError(f"no such traits: {sorted(unknown)}; see TRAITS")
    facts = (name, paper, frozenset(traits), vectors, models_sent)
    return lambda steps: Algorithm(*facts, steps)
