"""What is known of one run, as records: asked, measured, and how it ended.

Every part is made by the module that measures it (`readings`, `speed`, `summary`), and
read by attribute, so the type checker finds a name that nobody has. What users see in
CSV, JSON and FOM lines are other, flat names: `report.measures` has them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from dsgd_bench.algorithms.facts import Bound
from dsgd_bench.analysis.origin import Origin

SPANS = ("compute", "injected", "waiting", "transfer", "update", "snapshot", "other")
"""Where a step's time can go; the spans of a step add up to its duration."""


@dataclass(frozen=True)
class Asked:
    """What a trial asks for, in the words of the report.

    Attributes
    ----------
    study, id : str
        Name of the study; id of the trial.
    factors : dict
        The value of every setting but repeat and seed, ``{"problem.batch": 32, ...}``:
        equal for the runs of one group.
    algorithm, label, slowdown : str
        Kind of the algorithm; kind and settings, and the slowdown, in words.
    settings : dict
        Settings of the algorithm that the study gave.
    slow : tuple of int
        The workers that are slowed.
    slow_factor : float or None
        How many times; 1 without slowdown, None where it is not one constant number.
    ranks, servers : int
        All ranks, and how many of them, the last ones, are parameter servers.
    repeat, seed : int
        Which of the runs of its group.
    target : str or None
        The target in words, such as "loss <= 0.3"; None where the trial has none.
    """

    study: str
    id: str
    factors: Mapping[str, Any]
    algorithm: str
    label: str
    slowdown: str
    settings: Mapping[str, Any]
    slow: tuple[int, ...]
    slow_factor: float | None
    ranks: int
    servers: int
    repeat: int
    seed: int
    target: str | None

    @property
    def slow_ranks(self) -> int:
        """How many workers are slowed."""
        return len(self.slow)

    @property
    def workers(self) -> int:
        """Ranks that compute gradients: all but the servers."""
        return self.ranks - self.servers


@dataclass(frozen=True)
class Target:
    """When a run met its target; all None where it did not.

    Attributes
    ----------
    seconds : float or None
        From the common start to the first evaluation point at the target.
    epochs : float or None
        Samples of all workers until then, over those of an epoch.
    gap : float or None
        Seconds between that point and the one before: the target was met somewhere
        between them.
    """

    seconds: float | None = None
    epochs: float | None = None
    gap: float | None = None


@dataclass(frozen=True)
class Times:
    """Where the time of the workers went.

    Attributes
    ----------
    per_epoch : float or None
        Training samples per epoch over the summed sample rates of the workers, seconds.
    per_step : float or None
        n over the gradients per second of all n workers, seconds; the first steps, in
        which nothing is awaited, left out.
    seconds : dict
        Seconds in each of `SPANS`, summed over workers and steps.
    overlapped, blocked : float or None
        Seconds per worker: communication beside the gradient; waiting and transfer.
    steps_per_rank : tuple of int
        Of the workers: one gradient each.
    waiting_per_rank : tuple of float
        Each worker's share of time that it waited.
    worst_rank, waited_for : int or None
        The worker with the most compute and injected time per step, and the rank that
        workers most often waited for.
    """

    per_epoch: float | None = None
    per_step: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    overlapped: float | None = None
    blocked: float | None = None
    steps_per_rank: tuple[int, ...] = ()
    waiting_per_rank: tuple[float, ...] = ()
    worst_rank: int | None = None
    waited_for: int | None = None

    @property
    def shares(self) -> dict[str, float]:
        """Return the share of each span in the workers' time; empty without steps."""
        return shares(self.seconds)

    @property
    def gradients(self) -> int:
        """Gradients of all workers together."""
        return sum(self.steps_per_rank)


@dataclass(frozen=True)
class Traffic:
    """What was sent, per gradient of a worker; None without gradients.

    Attributes
    ----------
    model_bytes : int
        Size of one model; 0 if unknown.
    bytes_out, messages : float or None
        Handed over to be sent by the workers.
    server_out, server_in : float or None
        Bytes sent and received by all servers together; None without servers.
    exchanges : float or None
        Pairwise exchanges started.
    counted : float or None
        Payload that the links' devices counted, over what the account of bytes says.
    """

    model_bytes: int = 0
    bytes_out: float | None = None
    messages: float | None = None
    server_out: float | None = None
    server_in: float | None = None
    exchanges: float | None = None
    counted: float | None = None


@dataclass(frozen=True)
class Staleness:
    """How old gradients and mixed models were.

    Attributes
    ----------
    kind : str
        What staleness means for this algorithm: a key of `algorithms.facts.STALENESS`.
    mean, largest : float or None
        Of the gradients of all workers.
    per_rank : tuple of float
        The mean of each worker's own gradients; empty where there is none.
    counts : tuple of (int, int)
        Every staleness that occurred, ascending, and how many gradients had it.
    loose_mean, loose_largest : float or None
        The loose set-staleness, S_avg and S_max (`analysis.staleness.loose`).
    age_mean, age_largest : float or None
        Own step minus that of the oldest model averaged in, over the steps that mix.
    """

    kind: str = "none"
    mean: float | None = None
    largest: float | None = None
    per_rank: tuple[float, ...] = ()
    counts: tuple[tuple[int, int], ...] = ()
    loose_mean: float | None = None
    loose_largest: float | None = None
    age_mean: float | None = None
    age_largest: float | None = None


@dataclass(frozen=True)
class Weights:
    """Push-sum weights after a step; None for algorithms without.

    Attributes
    ----------
    least, most : float or None
        Of all workers and steps.
    departure : float or None
        The largest departure of their sum over the workers from n, as a part of n,
        where all take their steps together.
    """

    least: float | None = None
    most: float | None = None
    departure: float | None = None


@dataclass(frozen=True)
class Quality:
    """How good the models were at the evaluation points.

    Attributes
    ----------
    loss, accuracy, distance : float or None
        Of the average model, and the consensus distance, at the last point.
    widest : float or None
        The largest consensus distance at any point.
    excess, own_excess : float or None
        Loss above the lowest one, of the average model and of the workers' own on
        average; the mean over the run. None where the lowest loss is unknown.
    curve : tuple of (float, float)
        (seconds, loss of the average model) at the points.
    """

    loss: float | None = None
    accuracy: float | None = None
    distance: float | None = None
    widest: float | None = None
    excess: float | None = None
    own_excess: float | None = None
    curve: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Limits:
    """What the machine allows, as far as its machine file tells.

    Attributes
    ----------
    bound : Bound or None
        The least time per step on links of the rates that the machine file names.
    links : str
        Those rates, in words; empty where unknown.
    """

    bound: Bound | None = None
    links: str = ""


@dataclass(frozen=True)
class Row:
    """Everything the report needs of one run; None where the run did not tell.

    Attributes
    ----------
    trial : Asked
        What was asked.
    status, reason : str
        How the run ended; "crashed" also where no trace was left.
    fabric : str
        ``"mpi"`` or ``"virtual"``.
    interruptions : int
        How often the run was stopped and went on.
    provenance, progress : dict
        As stored in the trace.
    origin : Origin
        What is reckoned with of the provenance.
    target, times, traffic, staleness, weights, quality, limits
        What was measured.
    """

    trial: Asked
    status: str
    reason: str
    fabric: str = ""
    interruptions: int = 0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    progress: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin = field(default_factory=Origin)
    target: Target = Target()
    times: Times = Times()
    traffic: Traffic = Traffic()
    staleness: Staleness = Staleness()
    weights: Weights = Weights()
    quality: Quality = Quality()
    limits: Limits = Limits()

    @property
    def reached(self) -> bool:
        """Whether the run met its target."""
        return self.target.seconds is not None

    @property
    def over_bound(self) -> float | None:
        """Time per step over its bound."""
        if self.times.per_step is None or self.limits.bound is None:
            return None
        return self.times.per_step / self.limits.bound.seconds


Measure = Callable[[Row], float | None]
"""A number of a run: ``lambda row: row.staleness.mean``."""


def seconds_to_target(row: Row) -> float | None:
    """Return the seconds to the target."""
    return row.target.seconds


def per_epoch(row: Row) -> float | None:
    """Return the seconds of an epoch."""
    return row.times.per_epoch


def per_step(row: Row) -> float | None:
    """Return the seconds of a step of all workers."""
    return row.times.per_step


def shares(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return each span's part of the sum; empty where the sum is zero, or no number."""
    total = sum(seconds.values())
    if not 0.0 < total < inf:
        return {}
    return {span: seconds[span] / total for span in SPANS}
