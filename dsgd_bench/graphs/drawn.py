"""Random graphs: a pure function of their name and the number of ranks.

The seed is part of the name, so trials with other seeds run on the same graph. What a
builder raises follows the graph's name in the sentence.
"""

from collections.abc import Iterable
from math import isqrt, log

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.errors import ConfigError
from dsgd_bench.graphs.base import Edges, Graph
from dsgd_bench.graphs.named import count_edges, whole
from dsgd_bench.rng import generator

SWAPS_PER_EDGE = 10
"""Swaps tried before a graph counts as random."""

DRAWS = 1000
"""Graphs drawn until one is connected."""

MOST_DRAWN = 500_000_000
"""Random numbers drawn for all those graphs; with fewer ranks than 1000 there are never
so many, and more would take longer than anybody waits for a plan."""

MOST_TRIES = 1_000_000
"""Swaps that are expected to be tried until a random graph is connected."""

PIECE = 2**22
"""Random numbers that are in memory at a time."""

Edge = tuple[int, int]

Ranks = NDArray[np.intp]
"""One end of each of many edges."""


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
    # Two neighbors each make rings, and one in sqrt(size) draws is a single ring.
    rounds = isqrt(size) if d == least else 1
    count_edges(d * size // 2, size, MOST_TRIES // (SWAPS_PER_EDGE * rounds))
    rng = generator(whole(seed, "seed"), f"graph random-regular:{d}", step=size)
    edges = [(r, (r + hop) % size) for hop in range(1, d // 2 + 1) for r in range(size)]
    if d % 2:
        edges += [(rank, rank + size // 2) for rank in range(size // 2)]
    while True:
        _swap(edges, size, rng)
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
    rng = generator(whole(seed, "seed"), f"graph erdos-renyi:{p!r}", step=size)
    pairs = size * (size - 1) // 2
    count_edges(int(2 * p * pairs), size)
    if pairs > MOST_DRAWN:
        raise ConfigError(
            f"needs {pairs:,} random numbers over {size} ranks, and the limit is "
            f"{MOST_DRAWN:,}: take fewer ranks, or a graph such as random-regular:4"
        )
    if size == 1:
        return Graph("", (((),),))
    draws = min(DRAWS, MOST_DRAWN // pairs)
    for _ in range(draws):
        low, high = _drawn_pairs(rng, size, p)
        if len(np.union1d(low, high)) < size:
            continue
        near = _sorted_edges(size, low, high)
        if _connected(near):
            return Graph("", (near,))
    raise ConfigError(
        f"was not connected in {draws} draws of {size} ranks: use a probability of "
        f"{min(1.0, log(size) / size + 0.01):.2f} or more"
    )


def _drawn_pairs(rng: np.random.Generator, size: int, p: float) -> tuple[Ranks, Ranks]:
    """Draw one number for each pair of ranks, row by row; return the pairs below p."""
    # where the row of each rank begins, in the order of np.triu_indices
    begins = np.cumsum([0, *range(size - 1, 0, -1)])
    pairs = int(begins[-1])
    found = [np.empty(0, np.intp)]
    for start in range(0, pairs, PIECE):
        count = min(PIECE, pairs - start)
        found.append(start + np.flatnonzero(rng.random(count) < p))
    places = np.concatenate(found)
    low = np.searchsorted(begins, places, side="right") - 1
    return low, places - begins[low] + low + 1


def _swap(edges: list[Edge], size: int, rng: np.random.Generator) -> None:
    """Swap the ends of random pairs of edges, in place; degrees stay."""
    there = {_numbered(*edge, size) for edge in edges}
    tries = SWAPS_PER_EDGE * len(edges)
    pairs = rng.integers(len(edges), size=(tries, 2)).tolist()
    for (k, m), turned in zip(pairs, (rng.random(tries) < 0.5).tolist(), strict=True):
        a, b = edges[k]
        c, d = reversed(edges[m]) if turned else edges[m]
        if a == d or c == b:
            continue
        one, other = _numbered(a, d, size), _numbered(c, b, size)
        if one == other or one in there or other in there:
            continue
        there -= {_numbered(a, b, size), _numbered(c, d, size)}
        there |= {one, other}
        edges[k], edges[m] = (a, d), (c, b)


def _numbered(one: int, other: int, size: int) -> int:
    """Return a number for an edge, the same in both directions."""
    return one * size + other if one < other else other * size + one


def _edges(size: int, edges: Iterable[Edge]) -> Edges:
    near: list[set[int]] = [set() for _ in range(size)]
    for i, j in edges:
        near[i].add(j)
        near[j].add(i)
    return tuple(tuple(sorted(ranks)) for ranks in near)


def _sorted_edges(size: int, low: Ranks, high: Ranks) -> Edges:
    """Do as `_edges`, for many edges that are each there once."""
    ends, others = np.append(low, high), np.append(high, low)
    others = others[np.lexsort((others, ends))]
    begins = np.cumsum(np.bincount(ends, minlength=size))[:-1]
    return tuple(tuple(part.tolist()) for part in np.split(others, begins))


def _connected(near: Edges) -> bool:
    found, edge = {0}, {0}
    while edge:
        edge = {j for i in edge for j in near[i]} - found
        found |= edge
    return len(found) == len(near)
