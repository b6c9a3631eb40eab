"""Who is slow, when and by how much: a pure function of (seed, rank, step).

Every algorithm of a repeat meets the same slowdowns, so comparisons are paired.
"""

from dsgd_bench import rng
from dsgd_bench.slowdowns.kinds import NoSlowdown, kind_of
from dsgd_bench.spec.trial import SlowdownSpec


def slow_ranks(spec: SlowdownSpec, workers: int) -> tuple[int, ...]:
    """Return which of the workers, the first ranks, are slow; naming none means all."""
    if not kind_of(spec).slows:
        return ()
    return tuple(r for r in range(workers) if r in spec.ranks or not spec.ranks)


class Slowdown:
    """The slowdown schedule of one rank.

    Parameters
    ----------
    spec : SlowdownSpec
        Kind and numbers. No ranks named: all are meant.
    seed, rank : int
        Address of the random numbers.
    """

    def __init__(self, spec: SlowdownSpec, *, seed: int, rank: int) -> None:
        chosen = not spec.ranks or rank in spec.ranks
        self._kind = kind_of(spec) if chosen else NoSlowdown(spec)
        self._draws = rng.Draws(seed, "slowdown", rank)

    def factor(self, step: int) -> float:
        """Return how many times as long the gradient of `step` takes; at least 1."""
        return self._kind.factor(self._draws[step] if self._kind.random else 0.0)
