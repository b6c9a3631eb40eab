"""From a trace to one row of numbers, and from the rows of a point to one group.

A *row* is one run. A *group* is one point of the study: all runs that differ in nothing
but repeat and seed. Runs that failed stay in their group and are counted.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dsgd_bench.analysis import labels
from dsgd_bench.analysis.statistics import Estimate, estimate, median

if TYPE_CHECKING:
    from dsgd_bench.config import Trial
    from dsgd_bench.trace import Trace

SPANS = ("compute", "injected", "waiting", "moving", "mixing", "copying", "other")
"""Where a step's time can go; the spans of a step add up to its duration."""
BLOCKED = ("waiting", "moving")
"""Spans in which the training thread does nothing for its own model."""


@dataclass(frozen=True)
class Row:
    """Everything the report needs of one run; None where the run did not tell.

    Attributes
    ----------
    factors : dict
        Every setting but repeat and seed, ``{"problem.batch": "32", ...}``: equal for
        the runs of one group.
    algorithm, label, slowdown : str
        Kind of the algorithm; kind and settings, and the slowdown, in words.
    slow_ranks, slow_factor : int, float or None
        Ranks slowed and how many times; `slow_factor` is 1 without slowdown, None where
        it is not one constant number.
    status, reason : str
        How the run ended; "crashed" also where no trace was left.
    target : str or None
        The target in words, such as "loss <= 0.3"; None where the trial has none.
    time_to_target : float or None
        Seconds from the common start to the first judged moment at the target.
    target_gap : float or None
        Seconds between that moment and the one before: the target was met somewhere
        between them.
    time_per_epoch : float or None
        Training samples per epoch over the summed sample rates of the ranks, seconds.
    seconds : dict
        Seconds in each of `SPANS`, summed over ranks and steps.
    hidden, blocked : float or None
        Seconds per rank: communication beside the gradient; `BLOCKED` spans.
    staleness_mean, staleness_max : float or None
        Changes of the own replica between reading a model and applying its gradient.
    loss, accuracy, replica_distance : float or None
        Of the average model (distance: of the replicas) at the last judged moment.
    bytes_per_step, messages_per_step : float or None
        Handed over to be sent, per step of one rank.
    exchanges_per_gradient : float or None
        Pairwise averagings started, per step.
    steps_per_rank : tuple of int
    worst_rank : int or None
        The rank with the most compute and injected time per step.
    waited_for : int or None
        The rank that others most often waited for.
    curve : tuple of (float, float)
        (seconds, loss of the average model) at the judged moments.
    provenance, progress : dict
        As stored in the trace.
    """

    study: str
    trial_id: str
    factors: Mapping[str, str]
    algorithm: str
    label: str
    slowdown: str
    slow_ranks: int
    slow_factor: float | None
    ranks: int
    repeat: int
    seed: int
    status: str
    reason: str
    target: str | None
    fabric: str = ""
    time_to_target: float | None = None
    target_gap: float | None = None
    time_per_epoch: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    hidden: float | None = None
    blocked: float | None = None
    staleness_mean: float | None = None
    staleness_max: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    replica_distance: float | None = None
    bytes_per_step: float | None = None
    messages_per_step: float | None = None
    exchanges_per_gradient: float | None = None
    steps_per_rank: tuple[int, ...] = ()
    worst_rank: int | None = None
    waited_for: int | None = None
    curve: tuple[tuple[float, float], ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    progress: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool:
        """Whether the run met its target."""
        return self.time_to_target is not None

    @property
    def shares(self) -> dict[str, float]:
        """Return the share of each span in the ranks' time; empty without steps."""
        return shares(self.seconds)


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
        """The share of each span in the time of all runs together."""
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
    """Return the row of one trace."""
    return labeled(
        trace.trial,
        study=trace.study,
        status=trace.status,
        reason=trace.reason,
        provenance=trace.provenance,
        progress=trace.progress,
        fabric=trace.fabric,
        **_times(trace),
        **_spans(trace),
        **_work(trace),
        **_judged(trace),
    )


def labeled(trial: "Trial", *, study: str, status: str, **measured: Any) -> Row:
    """Return a row of the trial's labels and whatever was `measured`.

    A run that left no trace has nothing but `status` and `reason`.
    """
    factors = labels.factors(trial)
    return Row(
        study=study,
        trial_id=trial.id,
        factors=factors,
        algorithm=trial.algorithm.kind,
        label=trial.label,
        slowdown=labels.slowdown(trial),
        slow_ranks=labels.slow_ranks(trial.slowdown, trial.ranks),
        slow_factor=labels.slow_factor(trial.slowdown),
        ranks=trial.ranks,
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
    """Return each span's part of the sum; empty where the sum is zero."""
    total = sum(seconds.values())
    return {span: seconds[span] / total for span in SPANS} if total > 0.0 else {}


def _times(trace: "Trace") -> dict[str, float | None]:
    """Return time to target and time per epoch; a crashed run has neither."""
    if trace.status == "crashed":
        return {"time_to_target": None, "time_per_epoch": None}
    samples, elapsed = trace["samples_done"], trace["elapsed"]
    ran = np.isfinite(elapsed) & (elapsed > 0.0)
    rate = float(np.sum(samples[ran] / elapsed[ran]))
    met, gap = _target(trace)
    return {
        "time_to_target": met,
        "target_gap": gap,
        "time_per_epoch": trace.epoch_samples / rate if rate > 0.0 else None,
    }


def _target(trace: "Trace") -> tuple[float | None, float | None]:
    """Return the first judged moment at the target, and its distance from the last."""
    measure, losses = trace.trial.measure, trace["loss_of_mean"]
    met = np.zeros(losses.shape, dtype=bool)
    if measure.target_loss is not None:
        met |= losses <= measure.target_loss
    if measure.target_accuracy is not None:
        met |= trace["accuracy_of_mean"] >= measure.target_accuracy
    if not met.any():
        return None, None
    first = int(met.argmax())
    times = trace["moment_time"]
    return float(times[first]), float(times[first] - times[max(first - 1, 0)])


def _spans(trace: "Trace") -> dict[str, Any]:
    """Return the seconds in each span, blocked and hidden time, and the worst rank."""
    per_rank = {span: np.nansum(trace[span], axis=1) for span in SPANS}
    steps = np.maximum(np.nan_to_num(trace["steps_done"]), 1)
    own = (per_rank["compute"] + per_rank["injected"]) / steps
    blocked = sum(per_rank[span] for span in BLOCKED)
    waited = trace["waited_for"][np.isfinite(trace["waited_for"])].astype(int)
    return {
        "seconds": {span: float(per_rank[span].sum()) for span in SPANS},
        "blocked": float(np.mean(blocked)),
        "hidden": float(np.nansum(trace["hidden"], axis=1).mean()),
        "worst_rank": int(own.argmax()) if own.any() else None,
        "waited_for": int(np.bincount(waited).argmax()) if waited.size else None,
    }


def _work(trace: "Trace") -> dict[str, Any]:
    """Return steps, traffic per step, exchanges per gradient and staleness."""
    done = tuple(int(n) for n in np.nan_to_num(trace["steps_done"]))
    steps = sum(done)
    staleness = _finite(trace["staleness"])

    def per_step(name: str) -> float | None:
        return float(np.nansum(trace[name])) / steps if steps else None

    return {
        "steps_per_rank": done,
        "bytes_per_step": per_step("bytes_out"),
        "messages_per_step": per_step("messages_out"),
        "exchanges_per_gradient": per_step("exchanges"),
        "staleness_mean": float(staleness.mean()) if staleness.size else None,
        "staleness_max": float(staleness.max()) if staleness.size else None,
    }


def _judged(trace: "Trace") -> dict[str, Any]:
    """Return what the judged moments say: the last values and the curve."""
    times, losses = trace["moment_time"], trace["loss_of_mean"]
    curve = zip(times.tolist(), losses.tolist(), strict=True)
    return {
        # A diverged run has no final loss, however fine an earlier one was.
        "loss": None if trace.status == "diverged" else _last(losses),
        "accuracy": _last(trace["accuracy_of_mean"]),
        "replica_distance": _last(trace["replica_distance"]),
        "curve": tuple(point for point in curve if np.isfinite(point).all()),
    }


def _finite(values: np.ndarray) -> np.ndarray:
    return np.asarray(values[np.isfinite(values)])


def _last(values: Sequence[float] | np.ndarray) -> float | None:
    """Return the last finite value, or None."""
    finite = _finite(np.asarray(values, dtype=np.float64))
    return float(finite[-1]) if finite.size else None
