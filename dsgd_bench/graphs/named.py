"""Graphs that their name describes: no random draw, no file.

A builder takes the number of ranks and the arguments that follow the name in a study,
as text. What it raises follows the graph's name in the sentence.
"""

from collections.abc import Iterable
from math import isqrt

import numpy as np

from dsgd_bench.errors import ConfigError
from dsgd_bench.graphs.base import Graph, Others

MOST_EDGES = 4_000_000
"""Edges of all steps of a cycle, which take some hundred bytes each."""

DIGITS = 18
"""Of a whole number in a graph's name."""


def from_hops(size: int, *phases: Iterable[int]) -> Graph:
    """Return the graph on which every rank sends equally far ahead, phase by phase.

    Raises
    ------
    ConfigError
        If it has more than `MOST_EDGES` edges.
    """
    steps = [sorted({hop % size for hop in hops} - {0}) for hops in phases]
    count_edges(size * sum(map(len, steps)), size)
    ranks = np.arange(size)[:, None]
    targets = [np.sort((ranks + np.array(hops, int)) % size) for hops in steps]
    rows = tuple(tuple(map(tuple, phase.tolist())) for phase in targets)
    return Graph("", rows, grid=(size,))


def whole(word: str, what: str) -> int:
    """Read a whole number.

    Raises
    ------
    ConfigError
        If it is none.
    """
    if not (word.isascii() and word.isdigit() and len(word) <= DIGITS):
        raise ConfigError(
            f"has {what} '{word[:40]}': give it a whole number of at most {DIGITS} "
            "digits"
        )
    return int(word)


def count_edges(edges: int, size: int, most: int = MOST_EDGES) -> None:
    """Refuse a graph with more edges than `most`, before they are made.

    Raises
    ------
    ConfigError
        With both numbers.
    """
    if edges > most:
        raise ConfigError(
            f"has about {edges:,} edges over {size} ranks, and the limit is {most:,}: "
            "take fewer ranks, or a graph with fewer neighbors"
        )


def ring(size: int) -> Graph:
    """Every rank next to the one before and the one after it."""
    return from_hops(size, (-1, 1))


def torus(size: int, shape: str = "") -> Graph:
    """Every rank next to four others on a closed grid of rows and columns.

    The shape is written 2x4; without one the grid is as square as the number of ranks
    allows, which for a prime number is a single row, that is a ring.

    Raises
    ------
    ConfigError
        If the shape is not one, or has another number of ranks.
    """
    rows = max(r for r in range(1, isqrt(size) + 1) if size % r == 0)
    columns = size // rows
    if shape:
        words = shape.split("x")
        if len(words) != 2:
            raise ConfigError(f"has shape '{shape}': write ROWSxCOLUMNS, such as 2x4")
        asked = whole(words[0], "rows"), whole(words[1], "columns")
        if asked[0] * asked[1] != size:
            raise ConfigError(
                f"has {asked[0] * asked[1]} ranks, not {size}: use a shape of {size}, "
                f"such as {rows}x{columns}, or leave it out"
            )
        rows, columns = asked
    near = []
    for rank in range(size):
        row, column = divmod(rank, columns)
        vertical = {(row + hop) % rows * columns + column for hop in (-1, 1)}
        across = {row * columns + (column + hop) % columns for hop in (-1, 1)}
        near.append(tuple(sorted((vertical | across) - {rank})))
    return Graph("", (tuple(near),), grid=(rows, columns))


def hypercube(size: int) -> Graph:
    """Every rank next to those whose number differs in one binary digit.

    Raises
    ------
    ConfigError
        If `size` is not a power of two.
    """
    if size & (size - 1):
        below = 1 << (size.bit_length() - 1)
        raise ConfigError(
            f"needs a power of two of ranks, not {size}: use {below} or {2 * below}, "
            "or graph 'torus'"
        )
    bits = [1 << k for k in range(size.bit_length() - 1)]
    near = tuple(tuple(sorted(rank ^ bit for bit in bits)) for rank in range(size))
    return Graph("", (near,), grid=(2,) * len(bits) or (1,))


def complete(size: int) -> Graph:
    """Every rank next to every other."""
    return Graph("", (tuple(Others(rank, size) for rank in range(size)),), grid=(size,))


def star(size: int) -> Graph:
    """Rank 0 next to every other rank, and no other edges."""
    center = tuple(range(1, size))
    return Graph("", ((center, *((0,) for _ in center)),))


def exponential(size: int) -> Graph:
    """Every rank sends 1, 2, 4, 8, ... hops ahead, in every step; directed."""
    return from_hops(size, [1 << k for k in range((size - 1).bit_length())])


def one_peer_exponential(size: int, peers: str = "1") -> Graph:
    """Every rank sends one power of two ahead, the next one in each step; directed.

    With p peers, in step i of a cycle to the ranks ``j (p + 1)**i`` ahead, j = 1 ... p
    (M. Assran, N. Loizou, N. Ballas and M. Rabbat, ICML 2019, arXiv:1811.10792). For a
    power of p + 1 ranks a cycle of steps averages exactly.

    Raises
    ------
    ConfigError
        If `peers` is no whole number above 0.
    """
    p = whole(peers, "peers")
    if not p:
        raise ConfigError("has no peers: give it at least 1")
    p = min(p, max(1, size - 1))  # more are the same others again
    strides = [1]
    while strides[-1] * (p + 1) < size:
        strides.append(strides[-1] * (p + 1))
    return from_hops(size, *([j * s for j in range(1, p + 1)] for s in strides))


def bipartite_exponential(size: int) -> Graph:
    """Even ranks next to odd ranks at 1, 3, 5, 9, ... hops either way.

    The graph of AD-PSGD's fast runs (arXiv:1710.06952). Printed there are hops of
    2**i + 1 from i = 0; 2 is even and would join two ranks of one side, so the first
    hop is 1. Hops go no further than half way around.

    Raises
    ------
    ConfigError
        If `size` is odd and above 1: the two sides would touch.
    """
    if size > 1 and size % 2:
        raise ConfigError(
            f"needs an even number of ranks, not {size}: use an even number, or graph "
            "'ring' or 'complete'"
        )
    hops = [1] + [2**i + 1 for i in range(1, max(size, 2).bit_length())]
    hops = [hop for hop in hops if 2 * hop <= size]
    return from_hops(size, hops + [-hop for hop in hops])
