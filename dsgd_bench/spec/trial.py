"""What can be asked for: trials, studies and machines, frozen.

The defaults stand here and nowhere else. Files are read, and combinations checked, in
`dsgd_bench.config`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from dsgd_bench.errors import ConfigError
from dsgd_bench.spec.network import NetworkSpec
from dsgd_bench.spec.ranges import (
    AnyNumber,
    Concentration,
    Copies,
    Count,
    Duration,
    Index,
    Many,
    NotNegative,
    Pause,
    Positive,
    Rank,
    Ranks,
    Rate,
    Seed,
    Share,
    ShareBelowOne,
    Slower,
    Variation,
)
from dsgd_bench.spec.strict import SAYS, exact, nearly

Pair = Annotated[
    str,
    Meta(pattern=r"\A[0-9]{1,9}-[0-9]{1,9}\Z", extra={SAYS: 'two ranks such as "0-1"'}),
]


class AlgorithmSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Which algorithm, with all its settings (lists as tuples).

    `rule` is the version of the algorithm's rule that is run, or was.
    """

    kind: str
    settings: dict[str, Any] = {}
    rule: Count = 1

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "settings", _tupled(self.settings))


class ScheduleSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """How the learning rate changes; times in epochs of all ranks together.

    ``constant``; ``step``: times `factor` at each of `at`; ``cosine``: from `lr` to 0
    over `length`; ``warmup-step``: rising linearly to `lr` over `warmup`, then as
    ``step``.
    """

    kind: Literal["constant", "step", "cosine", "warmup-step"] = "constant"
    at: Annotated[tuple[Positive, ...], Meta(max_length=1000)] = ()
    factor: Positive = 0.1
    length: NotNegative = 0.0
    warmup: NotNegative = 0.0


class OptimizerSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """The optimizer that every algorithm shares.

    `lr` is what the average model moves by for the mean gradient, in every algorithm;
    with `raw_lr` it is what the algorithm's own formula has.
    """

    lr: Positive = 0.1
    momentum: ShareBelowOne = 0.0
    nesterov: bool = False
    weight_decay: NotNegative = 0.0
    schedule: ScheduleSpec = ScheduleSpec()
    raw_lr: bool = False


class ShardsSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """How samples are dealt to the ranks; small `alpha` means uneven classes."""

    by: Literal["even", "dirichlet"] = "even"
    alpha: Concentration = 1.0


class ProblemSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Which problem, with all its settings; `batch` is per rank and step."""

    kind: str
    batch: Count = 32
    dtype: Literal["float32", "float64"] = "float32"
    shards: ShardsSpec = ShardsSpec()
    settings: dict[str, Any] = {}

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "settings", _tupled(self.settings))


class ComputeSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Real gradients, measured, or padded by sleep.

    ``emulated`` pads to `seconds` on average: to them always, or to times of that
    `distribution` with the coefficient of `variation`. ``resampled`` pads to times that
    are drawn from those in a `trace`: rank r draws from its rank r modulo its workers.

    They are computed on the host, or on a GPU; there matrices of float32 may be
    multiplied in less `precision`, and the sums are float32 all the same.
    """

    mode: Literal["measured", "emulated", "resampled"] = "measured"
    seconds: Pause = 0.0
    distribution: Literal["constant", "lognormal", "gamma"] = "constant"
    variation: Variation = 0.0
    trace: str = ""
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"


class SlowLinksSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Links that are slow, in software; no `ranks` and no `pairs` named means all.

    A message arrives `seconds` later than it has passed the link, which lets `rate`
    bit/s through each way; 0 means no delay, and no limit.
    """

    ranks: tuple[Rank, ...] = ()
    pairs: tuple[Pair, ...] = ()
    seconds: Pause = 0.0
    rate: Rate = 0.0

    @property
    def label(self) -> str:
        """The slow links in a few words, for tables; empty if there are none."""
        words = [_bits(self.rate)] if self.rate else []
        if self.seconds:
            words.append(f"{nearly(self.seconds * 1e3)} ms later")
        if not words:
            return ""
        named = [f"rank{'s' * (len(self.ranks) > 1)} {_listed(self.ranks)}"]
        named = named if self.ranks else []
        if self.pairs:
            named.append(f"pair{'s' * (len(self.pairs) > 1)} {_listed(self.pairs)}")
        where = f"links of {' and '.join(named)}" if named else "all links"
        return f"{where} {', '.join(words)}"


class SlowdownSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Who is slow, when, by how much; no `ranks` named means all of them.

    Mode ``minimum`` pads a step to `factor` times the emulated seconds, ``added``
    sleeps (`factor` - 1) times what the gradient took.
    """

    kind: Literal["none", "constant", "transient", "heavy-tailed"] = "none"
    ranks: tuple[Rank, ...] = ()
    factor: Slower = 1.0
    probability: Share = 0.0
    alpha: Positive = 1.5
    mode: Literal["minimum", "added"] = "minimum"
    links: SlowLinksSpec = SlowLinksSpec()


class BudgetSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """When a trial ends at the latest: the first of these that is used up.

    `steps` are per rank; `samples` and `epochs` are of all ranks together.
    """

    seconds: Duration | None = None
    steps: Many | None = None
    samples: Many | None = None
    epochs: Positive | None = None


class MeasureSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """The target on the average model, and how many copies of it are kept."""

    target_loss: AnyNumber | None = None
    target_accuracy: Share | None = None
    copies: Copies = 40


class Trial(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run, with every default filled in: all that a worker needs to know.

    With a `network` it is simulated in virtual time; without one it runs on MPI.
    """

    ranks: Ranks
    seed: Seed = 0
    repeat: Index = 0
    algorithm: AlgorithmSpec
    optimizer: OptimizerSpec = OptimizerSpec()
    problem: ProblemSpec
    compute: ComputeSpec = ComputeSpec()
    slowdown: SlowdownSpec = SlowdownSpec()
    budget: BudgetSpec
    measure: MeasureSpec = MeasureSpec()
    network: NetworkSpec | None = None

    def to_json(self) -> str:
        """Return the trial as JSON with sorted keys."""
        return msgspec.json.encode(self, order="sorted").decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "Trial":
        """Return the trial that `to_json` wrote.

        Raises
        ------
        ConfigError
            If the text is not a trial of this version.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f"this is not a trial as dsgd-bench writes it: {error}"
            ) from None

    def flat(self) -> dict[str, Any]:
        """Return every value under its dotted name, as study files name it."""
        names: dict[str, Any] = {}
        _flatten(self, "", names)
        for what in ("loss", "accuracy"):
            names[f"measure.target.{what}"] = names.pop(f"measure.target_{what}")
        return names


class Study(Struct, frozen=True):
    """Many trials that answer one question.

    Attributes
    ----------
    name, path : str, Path
        Stem of the file, and the file.
    trials : tuple of Trial
        In the order in which they run: shuffled, the same each time.
    excluded : tuple of (Trial, str)
        Trials that the study leaves out, with the reason.
    """

    name: str
    path: Path
    trials: tuple[Trial, ...]
    excluded: tuple[tuple[Trial, str], ...] = ()


def _bits(rate: float) -> str:
    """Return a rate in bit/s in words."""
    for unit, word in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        if rate >= unit:
            return f"{nearly(rate / unit)} {word}"
    return f"{exact(rate)} bit/s"


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _tuple(value: Any) -> Any:
    return tuple(_tuple(item) for item in value) if isinstance(value, list) else value


def _tupled(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: _tuple(value) for key, value in settings.items()}


def _flatten(value: Any, name: str, into: dict[str, Any]) -> None:
    """Add the leaves of a struct to `into`; settings lie beside the kind."""
    if isinstance(value, Struct):
        value = msgspec.structs.asdict(value)
    if not isinstance(value, dict):
        into[name] = value
        return
    for key, item in value.items():
        inner = name if key == "settings" else f"{name}.{key}" if name else key
        _flatten(item, inner, into)
