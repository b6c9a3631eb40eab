"""From a trace to one row of numbers, and from the rows of a point to one group.

A *row* is one run. A *group* is one point of the study: all runs that differ in nothing
but repeat and seed. Runs that failed stay in their group and are counted.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.algorithms.facts import Bound
from dsgd_bench.analysis import labels, readings, speed
from dsgd_bench.analysis.readings import SPANS
from dsgd_bench.analysis.statistics import Estimate, estimate, median
from dsgd_bench.config import naming
from dsgd_bench.config.identity import trial_id
from dsgd_bench.slowdowns import slow_ranks

if TYPE_CHECKING:
    from dsgd_bench.spec.trial import Trial
    from dsgd_bench.trace import Trace


@dataclass(frozen=True)
class Row:
    """Everything the report needs of one run; None where the run did not tell.

    Attributes
    ----------
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
    status, reason : str
        How the run ended; "crashed" also where no trace was left.
    target : str or None
        The target in words, such as "loss <= 0.3"; None where the trial has none.
    time_to_target : float or None
        Seconds from the common start to the first judged moment at the target.
    epochs_to_target : float or None
        Samples of all workers until then, over those of an epoch.
    target_gap : float or None
        Seconds between that moment and the one before: the target was met somewhere
        between them.
    time_per_epoch : float or None
        Training samples per epoch over the summed sample rates of the workers, seconds.
    seconds : dict
        Seconds in each of `SPANS`, summed over workers and steps.
    overlapped, blocked : float or None
        Seconds per worker: communication beside the gradient; `BLOCKED` spans.
    steps_per_rank : tuple of int
        Of the workers: one gradient each.
    waiting_per_rank : tuple of float
        Each worker's share of time that it waited.
    worst_rank, waited_for : int or None
        The worker with the most compute and injected time per step, and the rank that
        workers most often waited for.
    staleness_mean, staleness_max : float or None
        Of the gradients of all workers, as `staleness_kind` says.
    staleness_per_rank : tuple of float
        The mean of each worker's own gradients; empty where there is none.
    staleness_counts : tuple of (int, int)
        Every staleness that occurred, ascending, and how many gradients had it.
    loose_mean, loose_max : float or None
        The loose set-staleness, S_avg and S_max (`analysis.staleness.loose`).
    age_mean, age_max : float or None
        Own step minus that of the oldest model averaged in, over the steps that mix.
    weight_min, weight_max, weight_total : float or None
        Push-sum weights after a step; the largest departure of their sum over the
        workers from n, as a part of n, where all take their steps together.
    loss, accuracy, consensus_distance : float or None
        Of the average model (distance: of the replicas) at the last judged moment.
    distance_max : float or None
        The largest distance of the replicas at any judged moment.
    excess, own_excess : float or None
        Loss above the lowest one, of the average model and of the workers' own on
        average; the mean over the run. None where the lowest loss is unknown.
    model_bytes : int
        Size of one model; 0 if unknown.
    bytes_per_gradient, messages_per_step : float or None
        Handed over to be sent by a worker, per gradient.
    server_bytes_out, server_bytes_in : float or None
        Sent and received by all servers together, per gradient; None without servers.
    exchanges_per_gradient : float or None
        Pairwise exchanges started, per gradient.
    time_per_step : float or None
        n over the gradients per second of all n workers, seconds; the first steps, in
        which nothing is awaited, left out.
    bound : Bound or None
        The least time per step on links of the rates that the machine file names.
    links : str
        Those rates, in words; empty where unknown.
    counted_bytes : float or None
        Payload that the links' devices counted, over what the account of bytes says.
    interruptions : int
        How often the run was stopped and went on.
    curve : tuple of (float, float)
        (seconds, loss of the average model) at the judged moments.
    provenance, progress : dict
        As stored in the trace.
    """

    study: str
    trial_id: str
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
    status: str
    reason: str
    target: str | None
    fabric: str = ""
    staleness_kind: str = "none"
    model_bytes: int = 0
    time_to_target: float | None = None
    epochs_to_target: float | None = None
    target_gap: float | None = None
    time_per_epoch: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    overlapped: float | None = None
    blocked: float | None = None
    steps_per_rank: tuple[int, ...] = ()
    waiting_per_rank: tuple[float, ...] = ()
    worst_rank: int | None = None
    waited_for: int | None = None
    staleness_mean: float | None = None
    staleness_max: float | None = None
    staleness_per_rank: tuple[float, ...] = ()
    staleness_counts: tuple[tuple[int, int], ...] = ()
    loose_mean: float | None = None
    loose_max: float | None = None
    age_mean: float | None = None
    age_max: float | None = None
    weight_min: float | None = None
    weight_max: float | None = None
    weight_total: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    consensus_distance: float | None = None
    distance_max: float | None = None
    excess: float | None = None
    own_excess: float | None = None
    bytes_per_gradient: float | None = None
    messages_per_step: float | None = None
    server_bytes_out: float | None = None
    server_bytes_in: float | None = None
    exchanges_per_gradient: float | None = None
    time_per_step: float | None = None
    bound: Bound | None = None
    links: str = ""
    counted_bytes: float | None = None
    interruptions: int = 0
    curve: tuple[tuple[float, float], ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    progress: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool:
        """Whether the run met its target."""
        return self.time_to_target is not None

    @property
    def shares(self) -> dict[str, float]:
        """Return the share of each span in the workers' time; empty without steps."""
        return shares(self.seconds)

    @property
    def over_bound(self) -> float | None:
        """Time per step over its bound."""
        if self.time_per_step is None or self.bound is None:
            return None
        return self.time_per_step / self.bound.seconds

    @property
    def slow_ranks(self) -> int:
        """How many workers are slowed."""
        return len(self.slow)

    @property
    def workers(self) -> int:
        """Ranks that compute gradients: all but the servers."""
        return self.ranks - self.servers

    @property
    def gradients(self) -> int:
        """Gradients of all workers together."""
        return sum(self.steps_per_rank)


@dataclass(frozen=True)
class Group:
    """The runs of one point, combined: counts, medians and intervals.

    Attributes
    ----------
    rows : tuple of Row
        All runs, failed ones included, by repeat.
    """

    rows: tuple[Row, ...]

    @property
    def first(self) -> Row:
        """The run whose labels speak for all."""
        return self.rows[0]

    @property
    def reached(self) -> int:
        """How many runs met the target."""
        return sum(row.reached for row in self.rows)

    @property
    def statuses(self) -> Counter[str]:
        """How many runs ended in which way."""
        return Counter(row.status for row in self.rows)

    @property
    def times(self) -> tuple[float, ...]:
        """Seconds to the target of the runs that met it."""
        return self.values("time_to_target")

    @property
    def time_to_target(self) -> Estimate | None:
        """The median over the runs that met the target, seconds."""
        return estimate(self.times)

    @property
    def time_per_epoch(self) -> Estimate | None:
        """The median over all runs that took steps, seconds."""
        return estimate(self.values("time_per_epoch"))

    @property
    def shares(self) -> dict[str, float]:
        """The share of each span in the workers' time of all runs together."""
        total: Counter[str] = Counter()
        for row in self.rows:
            total.update(dict(row.seconds))
        return shares(total)

    def values(self, name: str) -> tuple[float, ...]:
        """Return the known values of one row attribute, a number per run."""
        found = (getattr(row, name) for row in self.rows)
        return tuple(float(value) for value in found if value is not None)

    def median(self, name: str) -> float | None:
        """Return the median of one row attribute over the runs that have it."""
        values = self.values(name)
        return median(values) if values else None

    def maximum(self, name: str) -> float | None:
        """Return the largest value of one row attribute over the runs that have it."""
        return max(self.values(name), default=None)


def summarize(trace: "Trace") -> Row:
    """Return the row of one trace, whatever it holds."""
    with np.errstate(all="ignore"):  # a damaged one has infinities
        measured = readings.read(trace) | speed.read(trace)
    return labeled(
        trace.trial,
        study=trace.study,
        status=trace.status,
        reason=trace.reason,
        provenance=trace.provenance,
        progress=trace.progress,
        fabric=trace.fabric,
        staleness_kind=trace.staleness,
        model_bytes=trace.model_bytes,
        interruptions=len(trace.interruptions),
        **measured,
    )


def labeled(trial: "Trial", *, study: str, status: str, **measured: Any) -> Row:
    """Return a row of the trial's labels and whatever was `measured`.

    A run that left no trace has nothing but `status` and `reason`.
    """
    factors = labels.factors(trial)
    if measured.get("links"):
        factors["links"] = measured["links"]
    algorithm = ALGORITHMS.get(trial.algorithm.kind)
    settings = trial.algorithm.settings
    servers = algorithm.servers(settings, trial.ranks) if algorithm else 0
    return Row(
        study=study,
        trial_id=trial_id(trial),
        factors=factors,
        algorithm=trial.algorithm.kind,
        label=naming.label(trial.algorithm),
        slowdown=labels.slowdown(trial),
        settings=settings,
        slow=slow_ranks(trial.slowdown, trial.ranks - servers),
        slow_factor=labels.slow_factor(trial.slowdown),
        ranks=trial.ranks,
        servers=servers,
        repeat=trial.repeat,
        seed=trial.seed,
        status=status,
        target=labels.target(trial.measure),
        **measured,
    )


def combine(rows: Iterable[Row]) -> list[Group]:
    """Return one group per study and point, rows by repeat, in order of appearance."""
    found: dict[object, list[Row]] = {}
    for row in rows:
        point = tuple(sorted(row.factors.items()))
        found.setdefault((row.study, row.fabric, point), []).append(row)
    return [
        Group(tuple(sorted(same, key=lambda row: (row.repeat, row.seed))))
        for same in found.values()
    ]


def shares(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return each span's part of the sum; empty where the sum is zero, or no number."""
    total = sum(seconds.values())
    if not 0.0 < total < inf:
        return {}
    return {span: seconds[span] / total for span in SPANS}
