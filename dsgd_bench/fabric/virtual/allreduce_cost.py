"""What an all-reduce costs, round by round, on nodes that share ports.

R. Thakur, R. Rabenseifner and W. Gropp, "Optimization of collective communication
operations in MPICH", IJHPCA 19 (2005). With n ranks and m bytes:

    ring                2 (n - 1) rounds of m / n bytes, always to the next rank
    recursive-doubling  log2 n rounds of m bytes, to partners 1, 2, 4, ... apart
    rabenseifner        a reduce-scatter by halving, m/2, m/4, ... bytes, then an
                        all-gather by doubling

Where n is no power of two the last two fold the extra ranks into others before, and
unfold them afterwards: two more rounds of m bytes. Adding up is not charged: memory is
quicker than networks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Round = tuple[NDArray[np.int64], NDArray[np.int64], float, int]
"""Who sends, to whom, which share of the model, and how often in a row."""

ALGORITHMS = ("ring", "recursive-doubling", "rabenseifner")


@dataclass(frozen=True)
class Links:
    """What a round costs.

    Attributes
    ----------
    nodes : array of shape (size,)
        Every rank's node.
    near : (float, float)
        Seconds, and seconds per byte, of a message within a node.
    seconds, per_byte : array of shape (size,)
        The same of the node of every rank, for messages between nodes: the slower end
        counts.
    """

    nodes: NDArray[np.int64]
    near: tuple[float, float]
    seconds: NDArray[np.float64]
    per_byte: NDArray[np.float64]

    def cost(
        self, sources: NDArray[np.int64], targets: NDArray[np.int64], nbytes: float
    ) -> NDArray[np.float64]:
        """Return the seconds of messages that go at once; those of a node share it."""
        nodes = self.nodes
        far = nodes[sources] != nodes[targets]
        count = int(nodes[-1]) + 1
        out = np.bincount(nodes[sources[far]], minlength=count)[nodes[sources]]
        into = np.bincount(nodes[targets[far]], minlength=count)[nodes[targets]]
        per_byte = np.maximum(
            out * self.per_byte[sources], into * self.per_byte[targets]
        )
        seconds = np.maximum(self.seconds[sources], self.seconds[targets])
        return np.where(
            far, seconds + nbytes * per_byte, self.near[0] + nbytes * self.near[1]
        )


def seconds(algorithm: str, nbytes: float, links: Links) -> NDArray[np.float64]:
    """Return when each rank is done, if all start together.

    Parameters
    ----------
    algorithm : str
        One of `ALGORITHMS`.
    nbytes : float
        Size of the model.
    links : Links
        What a round costs.
    """
    done = np.zeros(len(links.nodes))
    for sources, targets, share, times in ROUNDS[algorithm](len(links.nodes)):
        cost = links.cost(sources, targets, nbytes * share)
        for _ in range(times):
            sent = done[sources] + cost
            after = done.copy()
            after[sources] = np.maximum(after[sources], sent)  # busy until it has sent
            after[targets] = np.maximum(after[targets], sent)
            done = after
    return done


def _ring(size: int) -> Iterator[Round]:
    ranks = np.arange(size)
    after = (ranks + 1) % size
    yield ranks, after, 1 / size, 2 * (size - 1)


def _recursive_doubling(size: int) -> Iterator[Round]:
    yield from _folded(size, [(2**k, 1.0) for k in range(_log(size))])


def _rabenseifner(size: int) -> Iterator[Round]:
    # the largest messages go to the nearest partners
    halving = [(2**k, 0.5 ** (k + 1)) for k in range(_log(size))]
    yield from _folded(size, [*halving, *reversed(halving)])


def _folded(size: int, exchanges: list[tuple[int, float]]) -> Iterator[Round]:
    """Yield the rounds among a power of two of ranks, the others folded into them."""
    core = 2 ** _log(size)
    extra = np.arange(core, size)
    if len(extra):
        yield extra, extra - core, 1.0, 1
    ranks = np.arange(core)
    for distance, share in exchanges:
        yield ranks, ranks ^ distance, share, 1
    if len(extra):
        yield extra - core, extra, 1.0, 1


def _log(size: int) -> int:
    return size.bit_length() - 1


ROUNDS = {
    "ring": _ring,
    "recursive-doubling": _recursive_doubling,
    "rabenseifner": _rabenseifner,
}
