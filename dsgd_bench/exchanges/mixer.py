"""Models averaged with those of all neighbors: x_i <- sum_j w_ij x_j, step by step."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from dsgd_bench.arrays import Array, Scratch, axpy, finish
from dsgd_bench.exchanges.neighbors import Exchange
from dsgd_bench.fabric.base import Fabric, Resource, check_vector
from dsgd_bench.graphs import Graph


class Mixer(Resource):
    """Averages by the Metropolis-Hastings weights of an undirected graph.

    Parameters
    ----------
    fabric : Fabric
        This rank's fabric.
    like : array of shape (dim,)
        A model, for shape and type.
    graph : Graph
        Neighbors and weights; one buffer per neighbor is kept.
    """

    def __init__(self, fabric: Fabric, like: Array, graph: Graph) -> None:
        check_vector(like)
        self._fabric = fabric
        self._weights = graph.weights_of(fabric.rank)
        neighbors = graph.neighbors[fabric.rank]
        self._theirs = [(np.empty_like(like), rank) for rank in neighbors]
        self._neighbors = neighbors
        self._scratch = Scratch(like)
        self._exchange = Exchange(fabric)

    def mix(self, x: Array) -> None:
        """Compute ``x_i <- sum_j w_ij x_j`` in place; neighbors wait for each other."""
        self._exchange.run([(x, rank) for rank in self._neighbors], self._theirs)
        self._combine(x)

    @contextmanager
    def overlapped(self, x: Array) -> Iterator[None]:
        """Send `x` on entry, average it on exit, in place; the block may read it."""
        sends = [(x, rank) for rank in self._neighbors]
        with self._exchange.overlapped(sends, self._theirs):
            yield
        self._combine(x)

    def _combine(self, x: Array) -> None:
        fabric = self._fabric
        with fabric.ledger.updating:
            x *= self._weights[fabric.rank]
            for theirs, rank in self._theirs:
                axpy(self._weights[rank], theirs, x, self._scratch)
            finish(x)

    def close(self) -> None:
        """Give the channel back; collective."""
        self._exchange.close()
