"""The kinds of slowdown, one class each: its settings, its factor, its words.

Whatever asks about a slowdown (a check, a bound, a model, a table) asks its kind here.
"""

import sys
from abc import ABC, abstractmethod
from typing import ClassVar

from dsgd_bench.spec.strict import exact
from dsgd_bench.spec.trial import SlowdownSpec

LONGEST = 1000.0
"""A heavy tail is cut here: one draw in a million must not eat the whole budget."""

QUANTILES = 10_000
"""Points at which a mean without a closed form is summed."""


class Kind(ABC):
    """What one kind of slowdown does to the gradients of the slow ranks.

    Parameters
    ----------
    spec : SlowdownSpec
        The numbers; those that are not among `settings` are not read.
    """

    settings: ClassVar[tuple[str, ...]] = ("ranks", "factor", "mode")
    """The keys of ``[slowdown]`` that count, besides ``kind`` and ``links``."""

    random: ClassVar[bool] = True
    """Whether the factor differs from step to step."""

    def __init__(self, spec: SlowdownSpec) -> None:
        self.spec = spec

    @property
    def slows(self) -> bool:
        """Whether any gradient takes longer."""
        return self.spec.factor != 1.0

    @property
    def constant(self) -> float | None:
        """The factor of every step; None where it is random."""
        return None if self.slows else 1.0

    @property
    def longest(self) -> float:
        """The largest factor that a step can have."""
        return self.spec.factor

    @property
    def missing(self) -> str:
        """The key that this kind cannot do without and that is not set; or ``""``."""
        return ""

    @property
    def words(self) -> str:
        """When a step is slow, for tables: what follows ``6x``; or ``""``."""
        return ""

    def slowest(self, ranks: int) -> float:
        """Return the expected factor of the slowest of so many slow ranks in a step.

        That of one rank is the mean of its factors.
        """
        del ranks  # the same factor for all, unless a kind knows better
        return self.factor(0.0)

    @abstractmethod
    def factor(self, u: float) -> float:
        """Return how many times as long a gradient takes; at least 1.

        Parameters
        ----------
        u : float
            A number that is uniform in [0, 1), the step's own.
        """


class NoSlowdown(Kind):
    """Every gradient takes its own time."""

    settings = ()
    random = False
    slows = False
    longest = 1.0

    def factor(self, u: float) -> float:
        """Return 1."""
        del u
        return 1.0


class Constant(Kind):
    """Every gradient of the slow ranks takes `factor` times as long."""

    random = False

    @property
    def constant(self) -> float:
        """The factor."""
        return self.spec.factor

    def factor(self, u: float) -> float:
        """Return the factor."""
        del u
        return self.spec.factor


class Transient(Kind):
    """A gradient is slow with `probability`, independently of all others.

    Hop (Luo et al., ASPLOS 2019) and Prague (Luo et al., ASPLOS 2020) use a probability
    of 1/n and a factor of 6.
    """

    settings = (*Kind.settings, "probability")

    @property
    def missing(self) -> str:
        """``probability`` where it is 0."""
        return "" if self.spec.probability else "probability"

    @property
    def words(self) -> str:
        """The probability."""
        return f"with probability {exact(self.spec.probability)}"

    def slowest(self, ranks: int) -> float:
        """Return it: one slow rank is enough."""
        some = 1.0 - (1.0 - self.spec.probability) ** ranks
        return 1.0 + (self.spec.factor - 1.0) * some

    def factor(self, u: float) -> float:
        """Return the factor with `probability`, else 1."""
        return self.spec.factor if u < self.spec.probability else 1.0


class HeavyTailed(Kind):
    """A gradient's factor is random, with a Pareto tail of index `alpha`.

    It is ``1 + (factor - 1) (U**(-1/alpha) - 1)`` with U uniform, cut at `LONGEST`.
    """

    settings = (*Kind.settings, "alpha")
    longest = LONGEST

    @property
    def words(self) -> str:
        """The index of the tail."""
        return f"with tail {exact(self.spec.alpha)}"

    def slowest(self, ranks: int) -> float:
        """Return it, from `QUANTILES` of the largest of so many uniform numbers.

        A sum, as the cut leaves no closed form worth reading.
        """
        middles = ((i + 0.5) / QUANTILES for i in range(QUANTILES))
        return sum(self.factor(q ** (1.0 / ranks)) for q in middles) / QUANTILES

    def factor(self, u: float) -> float:
        """Return the factor that belongs to ``U = 1 - u``."""
        try:
            tail = (1.0 - u) ** (-1.0 / self.spec.alpha) - 1.0
        except OverflowError:
            tail = sys.float_info.max
        return min(1.0 + (self.spec.factor - 1.0) * float(tail), LONGEST)


KINDS: dict[str, type[Kind]] = {
    "none": NoSlowdown,
    "constant": Constant,
    "transient": Transient,
    "heavy-tailed": HeavyTailed,
}
"""What ``slowdown.kind`` can be."""


def kind_of(spec: SlowdownSpec) -> Kind:
    """Return the kind of a slowdown, with its settings.

    Raises
    ------
    KeyError
        If `KINDS` lacks it, which `dsgd_bench.config` refuses.
    """
    return KINDS[spec.kind](spec)
