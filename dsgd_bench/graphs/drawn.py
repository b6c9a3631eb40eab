"""Random graphs: a pure function of their name and the number of ranks.

The seed is part of the name, so trials with other seeds run on the same graph. What a
builder raises follows the graph's name in the sentence.
"""

from collections.abc import Iterable
from math import log

import numpy as np

from dsgd_bench import streams
from dsgd_bench.errors import ConfigError
from dsgd_bench.graphs.base import Edges, Graph
from dsgd_bench.graphs.named import whole

SWAPS_PER_EDGE = 10
"""Swaps tried before a graph counts as random."""

DRAWS = 1000
"""Graphs drawn until one is connected."""

Edge = tuple[int, int]


def random_regular(size: int, degree: str, seed: str = "0") -> Graph:
    """Every rank next to equally many others, drawn at random; connected.

    A circulant graph whose edges (a, b), (c, d) become (a, d), (c, b), again and again,
    wherever that makes no loop and no double edge (the switching chain of regular
    graphs), until it is both well mixed and connected.

    Raises
    ------
    ConfigError
        If there is no connected graph of that degree over so many ranks.
    """
    d = whole(degree, "degree")
    if size == 1:
        return Graph("", (((),),))
    if d >= size:
        raise ConfigError(
            f"needs more than {d} ranks, not {size}: use degree {size - 1} or less"
        )
    least = min(2, size - 1)
    if d < least:
        raise ConfigError(
            f"cannot connect {size} ranks: use a degree from {least} to {size - 1}"
        )
    if d * size % 2:
        raise ConfigError(
            f"needs an even number of ranks, not {size}: use an even number, or degree "
            f"{d - 1} or {d + 1}"
        )
    rng = streams.generator(whole(seed, "seed"), f"graph random-regular:{d}", step=size)
    edges = [(r, (r + hop) % size) for hop in range(1, d // 2 + 1) for r in range(size)]
    if d % 2:
        edges += [(rank, rank + size // 2) for rank in range(size // 2)]
    while True:
        _swap(edges, rng)
        near = _edges(size, edges)
        if _connected(near):
            return Graph("", (near,))


def erdos_renyi(size: int, probability: str, seed: str = "0") -> Graph:
    """Any two ranks are neighbors with a given probability; connected.

    Drawn anew until it is connected.

    Raises
    ------
    ConfigError
        If the probability is none, or too low for a connected graph.
    """
    try:
        p = float(probability)
    except ValueError:
        p = 0.0
    if not 0 < p <= 1:
        raise ConfigError(
            f"has probability '{probability}': give it a number above 0 and at most 1"
        )
    rng = streams.generator(whole(seed, "seed"), f"graph erdos-renyi:{p!r}", step=size)
    low, high = np.triu_indices(size, k=1)
    for _ in range(DRAWS):
        drawn = rng.random(len(low)) < p
        edges = zip(low[drawn].tolist(), high[drawn].tolist(), strict=True)
        if drawn.sum() < size - 1:
            continue
        near = _edges(size, edges)
        if _connected(near):
            return Graph("", (near,))
    raise ConfigError(
        f"was not connected in {DRAWS} draws of {size} ranks: use a probability of "
        f"{min(1.0, log(size) / size + 0.01):.2f} or more"
    )


def _swap(edges: list[Edge], rng: np.random.Generator) -> None:
    """Swap the ends of random pairs of edges, in place; degrees stay."""
    there = {frozenset(edge) for edge in edges}
    tries = SWAPS_PER_EDGE * len(edges)
    pairs = rng.integers(len(edges), size=(tries, 2)).tolist()
    for (k, m), turned in zip(pairs, (rng.random(tries) < 0.5).tolist(), strict=True):
        a, b = edges[k]
        c, d = reversed(edges[m]) if turned else edges[m]
        new = frozenset((a, d)), frozenset((c, b))
        if a == d or c == b or new[0] == new[1] or there & set(new):
            continue
        there -= {frozenset((a, b)), frozenset((c, d))}
        there |= set(new)
        edges[k], edges[m] = (a, d), (c, b)


def _edges(size: int, edges: Iterable[Edge]) -> Edges:
    near: list[set[int]] = [set() for _ in range(size)]
    for i, j in edges:
        near[i].add(j)
        near[j].add(i)
    return tuple(tuple(sorted(ranks)) for ranks in near)


def _connected(near: Edges) -> bool:
    found, edge = {0}, {0}
    while edge:
        edge = {j for i in edge for j in near[i]} - found
        found |= edge
    return len(found) == len(near)
