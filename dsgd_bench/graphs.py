"""Who may talk to whom: graphs, their mixing weights and their spectral gap.

Every graph is right for one, two and three ranks too: a rank is never its own neighbor
and never listed twice, which is where published implementations go wrong.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.errors import ConfigError


@dataclass(frozen=True)
class Graph:
    """An undirected graph over the ranks.

    Attributes
    ----------
    name : str
        Its name in `GRAPHS`.
    neighbors : tuple of tuples
        ``neighbors[rank]``: ascending ranks adjacent to `rank`, without itself.
    """

    name: str
    neighbors: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """Number of ranks."""
        return len(self.neighbors)

    def weights(self) -> NDArray[np.float64]:
        """Return the Metropolis-Hastings mixing matrix W, shape (size, size).

        ``W[i, j] = 1 / (1 + max(deg i, deg j))`` for neighbors, the rest on the
        diagonal: symmetric and doubly stochastic on every undirected graph.
        """
        w = np.zeros((self.size, self.size))
        for i, near in enumerate(self.neighbors):
            for j in near:
                w[i, j] = 1 / (1 + max(len(near), len(self.neighbors[j])))
            w[i, i] = 1 - w[i].sum()
        return w

    def spectral_gap(self) -> float:
        """Return 1 - |second largest eigenvalue| of `weights`; 1 for a single rank."""
        moduli = np.sort(np.abs(np.linalg.eigvalsh(self.weights())))
        return float(1 - moduli[-2]) if self.size > 1 else 1.0


def _from_hops(name: str, size: int, hops: list[int]) -> Graph:
    return Graph(
        name,
        tuple(
            tuple(sorted({(rank + hop) % size for hop in hops} - {rank}))
            for rank in range(size)
        ),
    )


def ring(size: int) -> Graph:
    """Every rank next to the one before and the one after it."""
    return _from_hops("ring", size, [-1, 1])


def complete(size: int) -> Graph:
    """Every rank next to every other."""
    return _from_hops("complete", size, list(range(1, size)))


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
            f"graph 'bipartite-exponential' needs an even number of ranks, not {size}: "
            "use an even number, or graph 'ring' or 'complete'"
        )
    hops = [1] + [2**i + 1 for i in range(1, max(size, 2).bit_length())]
    hops = [hop for hop in hops if 2 * hop <= size]
    return _from_hops("bipartite-exponential", size, hops + [-hop for hop in hops])


GRAPHS: dict[str, Callable[[int], Graph]] = {
    "ring": ring,
    "complete": complete,
    "bipartite-exponential": bipartite_exponential,
}


def make(name: str, size: int) -> Graph:
    """Build the graph called `name` over `size` ranks.

    Raises
    ------
    ConfigError
        If there is no such graph, or it cannot have that many ranks.
    """
    if name not in GRAPHS:
        near = get_close_matches(name, GRAPHS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ConfigError(
            f"graph '{name}' does not exist: choose one of {', '.join(GRAPHS)}{hint}"
        )
    return GRAPHS[name](size)
