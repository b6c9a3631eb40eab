"""What a graph is: its edges, its averaging weights, and how fast news spread on it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import chain
from operator import or_
from typing import overload

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.errors import ConfigError
from dsgd_bench.graphs import spectrum

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

Edges = tuple[Sequence[int], ...]
"""``edges[rank]``: ascending ranks that `rank` sends to, without itself."""

ITERATED = 256
"""Ranks from which a spectral gap is sought without the whole matrix, if it can be."""


class Others(Sequence[int]):
    """All ranks but one, ascending, in no memory: a complete graph has many of these.

    Parameters
    ----------
    rank : int
        Who is left out.
    size : int
        Number of ranks.
    """

    def __init__(self, rank: int, size: int) -> None:
        self._rank, self._size = rank, size

    def __iter__(self) -> Iterator[int]:
        yield from range(self._rank)
        yield from range(self._rank + 1, self._size)

    def __len__(self) -> int:
        return self._size - 1

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[int, ...]: ...
    def __getitem__(self, index: int | slice) -> int | tuple[int, ...]:
        if isinstance(index, slice):
            return tuple(self)[index]
        place = range(self._size - 1)[index]
        return place if place < self._rank else place + 1

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Others):
            return (self._rank, self._size) == (other._rank, other._size)
        return tuple(self) == other

    def __hash__(self) -> int:
        return hash(tuple(self))


@dataclass(frozen=True)
class Graph:
    """Who sends to whom, in each step of a cycle.

    Attributes
    ----------
    name : str
        Its name in studies, arguments included: ``"random-regular:4"``.
    phases : tuple of tuples
        ``phases[step % period][rank]``: ascending ranks that `rank` sends to in `step`,
        without itself. Most graphs have one phase.
    portions : tuple of tuples, optional
        ``portions[rank][k]``: share of its mass that `rank` sends to
        ``phases[0][rank][k]``. Without them all shares of a rank are equal.
    grid : tuple of int, optional
        Sizes of a closed grid on which all ranks, counted row by row, send equally far;
        empty if there is none.
    """

    name: str
    phases: tuple[Edges, ...]
    portions: tuple[tuple[float, ...], ...] | None = None
    grid: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of ranks."""
        return len(self.phases[0])

    @property
    def period(self) -> int:
        """Steps after which the graph repeats itself."""
        return len(self.phases)

    @property
    def changing(self) -> bool:
        """Whether different steps have different edges."""
        return self.period > 1

    @cached_property
    def directed(self) -> bool:
        """Whether an edge lacks its opposite, or shares are prescribed."""
        return self.portions is not None or self.phases != self._sources

    @cached_property
    def neighbors(self) -> Edges:
        """For every rank, ascending, those that it sends to in any step."""
        if self.period == 1:
            return self.phases[0]
        ranks = range(self.size)
        return tuple(
            tuple(sorted(set().union(*(phase[rank] for phase in self.phases))))
            for rank in ranks
        )

    @cached_property
    def _sources(self) -> tuple[Edges, ...]:
        found: list[Edges] = []
        for phase in self.phases:
            if isinstance(phase[0], Others):
                found.append(phase)  # every rank hears from all others, too
                continue
            senders: list[list[int]] = [[] for _ in phase]
            for rank, targets in enumerate(phase):
                for target in targets:
                    senders[target].append(rank)
            found.append(tuple(map(tuple, senders)))
        return tuple(found)

    def targets(self, rank: int, step: int = 0) -> Sequence[int]:
        """Return the ranks that `rank` sends to in `step`, ascending."""
        return self.phases[step % self.period][rank]

    def sources(self, rank: int, step: int = 0) -> Sequence[int]:
        """Return the ranks that `rank` receives from in `step`, ascending."""
        return self._sources[step % self.period][rank]

    def messages_per_step(self) -> float:
        """Return how many messages a rank sends in a step, on average."""
        edges = sum(len(targets) for phase in self.phases for targets in phase)
        return edges / (self.size * self.period)

    def weights(self) -> Matrix:
        """Return the Metropolis-Hastings weights W, shape (size, size).

        ``W[i, j] = 1 / (1 + max(deg i, deg j))`` for neighbors, the rest on the
        diagonal: symmetric and doubly stochastic on every undirected graph (L. Xiao,
        S. Boyd and S.-J. Kim, J. Parallel Distrib. Comput. 67, 2007). Do not write
        into it.

        Raises
        ------
        ConfigError
            If the graph is directed or changing.
        """
        return self._weights

    @cached_property
    def _weights(self) -> Matrix:
        w = np.zeros((self.size, self.size))
        for i in range(self.size):
            row = self.weights_of(i)
            w[i, list(row)] = list(row.values())
        w.flags.writeable = False
        return w

    def weights_of(self, rank: int) -> dict[int, float]:
        """Return a row of `weights`: by which weight `rank` averages whose model.

        Thousands of ranks have few neighbors each, and need no matrix for that.

        Raises
        ------
        ConfigError
            If the graph is directed or changing.
        """
        if self.directed or self.changing:
            kind = "directed" if self.directed else "changing"
            raise ConfigError(
                f"graph '{self.name}' is {kind} over {self.size} ranks and has no "
                "symmetric weights: use an undirected graph such as 'ring'"
            )
        near = self.neighbors[rank]
        row = {j: 1 / (1 + max(len(near), len(self.neighbors[j]))) for j in near}
        return {**row, rank: 1 - sum(row.values())}

    def shares(self, step: int = 0) -> Matrix:
        """Return the column-stochastic weights P of a step, shape (size, size).

        ``P[i, j]`` is the share of its mass that j sends to i, and keeps for i = j:
        1 / (1 + out-degree) each, unless a file says otherwise. Do not write into it.
        """
        return self._shares[step % self.period]

    @cached_property
    def _shares(self) -> tuple[Matrix, ...]:
        found = []
        for step in range(self.period):
            p = np.zeros((self.size, self.size))
            for j in range(self.size):
                sent = self._sent_by(j, step)
                p[list(sent), j] = list(sent.values())
            p.flags.writeable = False
            found.append(p)
        return tuple(found)

    def _sent_by(self, rank: int, step: int = 0) -> dict[int, float]:
        """Return a column of `shares`: which share of its mass goes to whom."""
        targets = self.phases[step][rank]
        equal = (1 / (1 + len(targets)),) * len(targets)
        sent = self.portions[rank] if self.portions else equal
        return {**dict(zip(targets, sent, strict=True)), rank: 1 - sum(sent)}

    def spectral_gap(self) -> float:
        """Return how much of the disagreement a step of averaging removes, 0 to 1.

        1 - |second largest eigenvalue|: of `weights` on an undirected graph; else of
        the product of all `shares` of a cycle, and then per step, as its geometric
        mean. 1 for a single rank and for exact averaging.
        """
        if self.size == 1:
            return 1.0
        if self.grid:
            sent = [self._sent_by(0, step) for step in range(self.period)]
            return 1 - spectrum.of_waves(sent, self.grid)
        if self.size >= ITERATED and not self.changing:
            found = spectrum.by_iteration(
                self._entries(), self.size, symmetric=not self.directed
            )
            if found is not None:
                return 1 - found
        if not (self.directed or self.changing):
            return 1 - spectrum.of_matrix(self.weights(), symmetric=True)
        cycle = reduce(lambda product, p: p @ product, self._shares)
        if np.ptp(cycle, axis=1).max() < spectrum.ROUNDING:
            return 1.0
        found = spectrum.of_matrix(cycle, symmetric=False)
        return float(1 - found ** (1 / self.period))

    def _entries(self) -> tuple[NDArray[np.intp], NDArray[np.intp], Vector]:
        """Return rows, columns and values of the weights of every step."""
        (phase,), ranks = self.phases, np.arange(self.size)
        degrees = np.array([len(targets) for targets in phase])
        senders = np.repeat(ranks, degrees)
        targets = np.fromiter(chain.from_iterable(phase), np.intp, len(senders))
        if self.portions:
            sent = np.fromiter(chain.from_iterable(self.portions), float, len(senders))
        else:
            most = degrees[senders]
            if not self.directed:
                most = np.maximum(most, degrees[targets])
            sent = 1 / (1 + most)
        kept = 1 - np.bincount(senders, sent, minlength=self.size)
        rows, columns = np.append(targets, ranks), np.append(senders, ranks)
        values = np.append(sent, kept)
        return rows, columns, values

    def check_reached(self) -> None:
        """Refuse a graph of one phase on which some rank never hears of some other.

        Raises
        ------
        ConfigError
            Naming the first of them. Where all hear of rank 0, and it of all, each
            hears of each: so it takes two walks, not one from each rank.
        """
        heard = self._walk(self.phases[0])
        hears = self._walk(self._sources[0])
        if len(hears) < self.size:
            raise ConfigError(self._cut(min(set(range(self.size)) - hears), 0))
        if len(heard) < self.size:
            raise ConfigError(self._cut(0, min(set(range(self.size)) - heard)))

    def _walk(self, edges: Edges) -> set[int]:
        """Return all ranks to which `edges` lead from rank 0, and rank 0."""
        found, edge = {0}, {0}
        while edge:
            edge = {other for rank in edge for other in edges[rank]} - found
            found |= edge
        return found

    def reach(self) -> int:
        """Return the dissemination time: steps until every rank has news of all.

        It holds from whatever step of the cycle one starts; 0 for a single rank.

        Raises
        ------
        ConfigError
            If some rank never hears of some other.
        """
        return self._reach

    @cached_property
    def _reach(self) -> int:
        return max(self._reach_from(start) for start in range(self.period))

    def _reach_from(self, start: int) -> int:
        everybody = (1 << self.size) - 1
        known = [1 << rank for rank in range(self.size)]  # bits: whom one has heard of
        steps = idle = 0
        while any(news != everybody for news in known):
            sources = self._sources[(start + steps) % self.period]
            before = known
            known = [
                reduce(or_, (before[source] for source in near), own)
                for near, own in zip(sources, before, strict=True)
            ]
            idle = idle + 1 if known == before else 0
            if idle == self.period:
                pairs = ((i, j) for j in range(self.size) for i in range(self.size))
                i, j = next((i, j) for i, j in pairs if not known[j] >> i & 1)
                raise ConfigError(self._cut(i, j))
            steps += 1
        return steps

    def _cut(self, i: int, j: int) -> str:
        return (
            f"graph '{self.name}' over {self.size} ranks never carries news from rank "
            f"{i} to rank {j}: add edges until every rank can reach every other"
        )
