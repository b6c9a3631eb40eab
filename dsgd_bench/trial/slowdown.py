"""Who is slow, when and by how much: a pure function of (seed, rank, step).

Every algorithm of a repeat meets the same slowdowns, so comparisons are paired.
"""

import sys

from dsgd_bench import rng
from dsgd_bench.spec.trial import SlowdownSpec

LONGEST = 1000.0
"""A heavy tail is cut here: one draw in a million must not eat the whole budget."""


class Slowdown:
    """The slowdown schedule of one rank.

    ``constant``
        Every gradient of the chosen ranks takes `factor` times as long.
    ``transient``
        Each does with `probability`, independently (Hop and Prague use 1/n and 6).
    ``heavy-tailed``
        ``1 + (factor - 1) (U**(-1/alpha) - 1)`` with U uniform: a Pareto tail of index
        `alpha`, cut at `LONGEST`.

    Parameters
    ----------
    settings : SlowdownSpec
        Kind and numbers. No ranks named: all are meant.
    seed, rank : int
        Address of the random numbers.
    """

    def __init__(self, settings: SlowdownSpec, *, seed: int, rank: int) -> None:
        chosen = not settings.ranks or rank in settings.ranks
        self._kind = settings.kind if chosen else "none"
        self._settings = settings
        self._draws = rng.Draws(seed, "slowdown", rank)

    def factor(self, step: int) -> float:
        """Return how many times as long the gradient of `step` takes; at least 1."""
        s = self._settings
        if self._kind == "none":
            return 1.0
        if self._kind == "constant":
            return s.factor
        u = self._draws[step]
        if self._kind == "transient":
            return s.factor if u < s.probability else 1.0
        try:
            tail = (1.0 - u) ** (-1.0 / s.alpha) - 1.0
        except OverflowError:
            tail = sys.float_info.max
        return min(1.0 + (s.factor - 1.0) * float(tail), LONGEST)
