"""Who may talk to whom: graphs, their averaging weights and their spectral gap.

Every graph is right for one, two and three ranks too, or refuses them: a rank is never
its own neighbor and never listed twice, which is where published implementations go
wrong. A single rank has no neighbors on any graph.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from functools import cache, lru_cache

from dsgd_bench.errors import ConfigError
from dsgd_bench.graphs.base import Graph
from dsgd_bench.graphs.drawn import erdos_renyi, random_regular
from dsgd_bench.graphs.listed import file
from dsgd_bench.graphs.named import (
    bipartite_exponential,
    complete,
    exponential,
    hypercube,
    one_peer_exponential,
    ring,
    star,
    torus,
)

__all__ = ["EXAMPLES", "GRAPHS", "Graph", "make", "usage"]

GRAPHS: dict[str, Callable[..., Graph]] = {
    "ring": ring,
    "torus": torus,
    "hypercube": hypercube,
    "complete": complete,
    "star": star,
    "bipartite-exponential": bipartite_exponential,
    "exponential": exponential,
    "one-peer-exponential": one_peer_exponential,
    "random-regular": random_regular,
    "erdos-renyi": erdos_renyi,
    "file": file,
}
"""Name -> function of the number of ranks and the arguments in the name, as text."""

EXAMPLES = (
    *(name for name in GRAPHS if name not in ("random-regular", "erdos-renyi", "file")),
    "random-regular:3",
    "erdos-renyi:0.5",
)
"""One name for each of them that needs no file, for lists and tests."""


def usage(base: str) -> str:
    """Return how a graph's name is written, arguments in capitals."""
    words = base
    for parameter in list(_signature(base).parameters.values())[1:]:
        word = f":{parameter.name.upper()}"
        words += f"[{word}]" if parameter.default != parameter.empty else word
    return words


def make(name: str, size: int) -> Graph:
    """Build the graph called `name` over `size` ranks; every rank can be reached.

    Raises
    ------
    ConfigError
        If there is no such graph, or it cannot have that many ranks.
    """
    base, *words = name.split(":")
    if base not in GRAPHS:
        near = get_close_matches(base, GRAPHS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ConfigError(
            f"graph '{name}' does not exist: choose one of {', '.join(GRAPHS)}{hint}"
        )
    try:
        _signature(base).bind(size, *words)
    except TypeError:
        words = [""]
    if "" in words or (base == "file" and not words):
        raise ConfigError(
            f"graph '{name}' is incomplete or has too many arguments: "
            f"write {usage(base)}"
        )
    try:
        if base != "file":  # those are connected as they are built
            return _built(name, size)
        graph = replace(file(size, *words), name=name)
    except ConfigError as error:
        raise ConfigError(f"graph '{name}' {error}") from None
    graph.check_reached()
    return graph


@cache
def _signature(base: str) -> inspect.Signature:
    return inspect.signature(GRAPHS[base])


@lru_cache(maxsize=8)
def _built(name: str, size: int) -> Graph:
    """Build a graph that its name describes; one for all ranks of a process."""
    base, *words = name.split(":")
    return replace(GRAPHS[base](size, *words), name=name)
