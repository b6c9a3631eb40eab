"""Who sees which training samples, and in which order.

Every answer is a pure function of (seed, rank, step): the same for every algorithm, so
comparisons are paired, and a restart needs no saved state.
"""

from functools import lru_cache
from heapq import heapify, heapreplace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dsgd_bench import rng
from dsgd_bench.errors import ConfigError
from dsgd_bench.problems.base import Problem

SHARDS = ("even", "dirichlet")
"""Ways to deal the samples out among the ranks."""

Indices = NDArray[np.intp]
"""Positions of training samples."""


class Batches:
    """The batches of one rank.

    ``"even"``: each epoch, one permutation of all samples, common to all ranks, is
    dealt out round by round. In round k, rank r takes part r of the k-th slice of
    ``ranks * batch`` samples: n ranks with batch b see, round by round, what one rank
    with batch ``n * b`` sees. What is left of an epoch after its last full round is
    dropped; the next epoch has another permutation.

    ``"dirichlet"``: every rank keeps the shard that `dirichlet` gives it, shuffles it
    each time it has been through, and drops what is left after the last full batch. A
    shard smaller than one batch is shuffled for every batch and repeated to fill it.

    Parameters
    ----------
    problem : Problem
        Where the samples are counted and, for ``"dirichlet"``, labeled.
    ranks, rank : int
        Number of ranks, and which of them this is.
    batch : int
        Samples of one batch of one rank.
    shards_by : str
        One of `SHARDS`.
    alpha : float
        Concentration for ``"dirichlet"``: small is uneven.
    seed : int
        Seed of the trial.

    Attributes
    ----------
    rounds : int
        Rounds, of one batch on every rank, that make one epoch of all samples.

    Raises
    ------
    ConfigError
        Where the samples do not suffice, labels are missing, or a value is impossible.
    """

    def __init__(  # noqa: PLR0913 (the address of a batch takes them all)
        self,
        problem: Problem,
        *,
        ranks: int,
        rank: int,
        batch: int,
        shards_by: str = "even",
        alpha: float = 1.0,
        seed: int = 0,
    ) -> None:
        _check(problem, ranks, batch, shards_by, alpha)
        self.rounds = max(1, problem.samples // (ranks * batch))
        self._batch = batch
        self._seed = seed
        self._epoch = -1
        self._order: Indices = np.empty(0, np.intp)
        self._shard: Indices | None = None  # all samples
        samples, self._dealt, self._part = problem.samples, ranks, rank
        if shards_by == "dirichlet" and problem.labels is not None:
            labels = np.ascontiguousarray(problem.labels, np.int64).tobytes()
            self._shard = _shards(labels, ranks, alpha, seed)[rank]
            samples, self._dealt, self._part = len(self._shard), 1, 0
        self._samples, self._rank = samples, rank
        self._own_rounds = max(1, samples // (self._dealt * batch))

    def indices(self, step: int) -> Indices:
        """Return the training samples of one step, shape (batch,); a read-only view."""
        epoch, k = divmod(step, self._own_rounds)
        if epoch != self._epoch:
            self._order = self._shuffled(epoch)
            self._epoch = epoch
        start = (k * self._dealt + self._part) * self._batch
        return self._order[start : start + self._batch]

    def _shuffled(self, epoch: int) -> Indices:
        if self._shard is None:
            return _common_order(self._samples, self._seed, epoch)
        random = rng.generator(self._seed, "batches", self._rank, epoch)
        order = random.permutation(self._shard)
        if len(order) < self._batch:
            order = np.resize(order, self._batch)
        order.setflags(write=False)
        return order


@lru_cache(maxsize=4)  # simulated, thousands of ranks in one process share an order
def _common_order(samples: int, seed: int, epoch: int) -> Indices:
    """Return all samples in the order of one epoch; read-only."""
    order = rng.generator(seed, "batches", 0, epoch).permutation(samples)
    order.setflags(write=False)
    return order


@lru_cache(maxsize=1)  # likewise
def _shards(labels: bytes, ranks: int, alpha: float, seed: int) -> list[Indices]:
    random = rng.generator(seed, "shards")
    return dirichlet(np.frombuffer(labels, np.int64), ranks, alpha, random)


def dirichlet(
    labels: NDArray[np.int64], ranks: int, alpha: float, random: np.random.Generator
) -> list[Indices]:
    """Split the samples among the ranks, each class in proportions of its own.

    The proportions of every class are drawn from a symmetric Dirichlet distribution
    (T. Hsu, H. Qi and M. Brown, "Measuring the effects of non-identical data
    distribution for federated visual classification", 2019, in the per-class form of
    M. Yurochkin et al., ICML 2019). A rank left without samples gets one of the
    largest shard.

    Parameters
    ----------
    labels : NDArray[numpy.int64]
        Class of each sample, shape (samples,).
    ranks : int
        Number of shards, at most the number of samples.
    alpha : float
        Concentration: 0.1 leaves most of a class on one or two ranks, 100 is nearly
        even.
    random : numpy.random.Generator
        Source of the proportions and of who gets which sample.

    Returns
    -------
    list of NDArray[numpy.intp]
        Ascending positions for each rank; together every sample exactly once.
    """
    shards: list[list[int]] = [[] for _ in range(ranks)]
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        shares = random.dirichlet(np.full(ranks, alpha))
        inner = np.rint(np.cumsum(shares)[:-1] * len(members)).astype(int).tolist()
        for shard, (start, end) in zip(
            shards, pairwise([0, *inner, len(members)]), strict=True
        ):
            shard.extend(members[start:end].tolist())
    largest = [(-len(shard), rank) for rank, shard in enumerate(shards)]
    heapify(largest)  # the first of the largest; a search for each would take minutes
    for shard in shards:
        if not shard:
            length, giver = largest[0]
            shard.append(shards[giver].pop())
            heapreplace(largest, (length + 1, giver))
    return [np.sort(np.array(shard, np.intp)) for shard in shards]


def _check(
    problem: Problem, ranks: int, batch: int, shards_by: str, alpha: float
) -> None:
    if shards_by not in SHARDS:
        raise ConfigError(
            f"problem.shards.by is {shards_by!r}; use one of: {', '.join(SHARDS)}"
        )
    if batch < 1:
        raise ConfigError(f"problem.batch is {batch}; it must be at least 1")
    if shards_by == "even" and ranks * batch > problem.samples:
        most = problem.samples // ranks
        lower = f"lower the batch to at most {most}, or " if most else ""
        raise ConfigError(
            f"{ranks} ranks with problem.batch = {batch} need {ranks * batch} samples "
            f"a round and the problem has {problem.samples}; {lower}take fewer ranks "
            "or more samples"
        )
    if shards_by == "even":
        return
    if problem.labels is None:
        raise ConfigError(
            "problem.shards.by = 'dirichlet' needs samples with classes, which this "
            "problem does not have; use 'even', or the problem softmax or mlp"
        )
    if not (0 < alpha < np.inf):
        raise ConfigError(
            f"problem.shards.alpha is {alpha!r}; it must be positive and finite"
        )
    if ranks > problem.samples:
        raise ConfigError(
            f"{ranks} ranks cannot share the {problem.samples} samples of the problem; "
            "take fewer ranks or more samples"
        )
