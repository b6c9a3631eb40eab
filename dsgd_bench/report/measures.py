"""The numbers of a run under the names by which CSV, JSON and FOM lines call them.

Those names are flat and stay as they are, whatever becomes of the records behind them:
users' scripts read them.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dsgd_bench.analysis.rows import Measure, Row


@dataclass(frozen=True)
class Exported:
    """One number that is exported.

    Attributes
    ----------
    name, unit : str
        As users see them.
    of : callable
        The number of a row, None where it has none.
    """

    name: str
    unit: str
    of: Measure

    @property
    def header(self) -> str:
        """Name and unit, as the header of a CSV file has them."""
        return f"{self.name} [{self.unit}]"


LOSS = Exported("loss", "1", lambda row: row.quality.loss)
ACCURACY = Exported("accuracy", "1", lambda row: row.quality.accuracy)
STALENESS = Exported("staleness_mean", "count", lambda row: row.staleness.mean)
BYTES = Exported("bytes_per_gradient", "byte", lambda row: row.traffic.bytes_out)

FIGURES = (
    Exported("time_per_epoch", "s", lambda row: row.times.per_epoch),
    LOSS,
    ACCURACY,
    STALENESS,
    BYTES,
)
"""What FOM lines print of a run as it is, where the run has it."""

MEDIANS = (
    Exported("epochs_to_target", "1", lambda row: row.target.epochs),
    Exported("gradients", "count", lambda row: row.times.gradients),
    LOSS,
    Exported("excess", "1", lambda row: row.quality.excess),
    Exported("own_excess", "1", lambda row: row.quality.own_excess),
    ACCURACY,
    Exported("consensus_distance", "1", lambda row: row.quality.distance),
    STALENESS,
    Exported("loose_mean", "count", lambda row: row.staleness.loose_mean),
    Exported("age_mean", "count", lambda row: row.staleness.age_mean),
    Exported("blocked", "s", lambda row: row.times.blocked),
    Exported("overlapped", "s", lambda row: row.times.overlapped),
    BYTES,
    Exported("messages_per_step", "count", lambda row: row.traffic.messages),
    Exported("exchanges_per_gradient", "count", lambda row: row.traffic.exchanges),
    Exported("server_bytes_out", "byte", lambda row: row.traffic.server_out),
    Exported("server_bytes_in", "byte", lambda row: row.traffic.server_in),
    Exported("time_per_step", "s", lambda row: row.times.per_step),
    Exported("over_bound", "1", lambda row: row.over_bound),
    Exported("counted_bytes", "1", lambda row: row.traffic.counted),
)
"""Exported as medians over the runs of a point."""

MAXIMA = (
    Exported("staleness_max", "count", lambda row: row.staleness.largest),
    Exported("loose_max", "count", lambda row: row.staleness.loose_largest),
    Exported("age_max", "count", lambda row: row.staleness.age_largest),
    Exported("distance_max", "1", lambda row: row.quality.widest),
    Exported("weight_max", "1", lambda row: row.weights.most),
)
"""Exported as the largest values over the runs of a point."""

RUN: Mapping[str, Callable[[Row], Any]] = {
    "trial_id": lambda row: row.trial.id,
    "slow": lambda row: row.trial.slow,
    "slow_factor": lambda row: row.trial.slow_factor,
    "ranks": lambda row: row.trial.ranks,
    "servers": lambda row: row.trial.servers,
    "repeat": lambda row: row.trial.repeat,
    "seed": lambda row: row.trial.seed,
    "status": lambda row: row.status,
    "reason": lambda row: row.reason,
    "fabric": lambda row: row.fabric,
    "model_bytes": lambda row: row.traffic.model_bytes,
    "time_to_target": lambda row: row.target.seconds,
    "epochs_to_target": lambda row: row.target.epochs,
    "target_gap": lambda row: row.target.gap,
    "time_per_epoch": lambda row: row.times.per_epoch,
    "seconds": lambda row: row.times.seconds,
    "overlapped": lambda row: row.times.overlapped,
    "blocked": lambda row: row.times.blocked,
    "steps_per_rank": lambda row: row.times.steps_per_rank,
    "waiting_per_rank": lambda row: row.times.waiting_per_rank,
    "worst_rank": lambda row: row.times.worst_rank,
    "waited_for": lambda row: row.times.waited_for,
    "staleness_mean": lambda row: row.staleness.mean,
    "staleness_max": lambda row: row.staleness.largest,
    "staleness_per_rank": lambda row: row.staleness.per_rank,
    "loose_mean": lambda row: row.staleness.loose_mean,
    "loose_max": lambda row: row.staleness.loose_largest,
    "age_mean": lambda row: row.staleness.age_mean,
    "age_max": lambda row: row.staleness.age_largest,
    "weight_min": lambda row: row.weights.least,
    "weight_max": lambda row: row.weights.most,
    "weight_total": lambda row: row.weights.departure,
    "loss": lambda row: row.quality.loss,
    "accuracy": lambda row: row.quality.accuracy,
    "consensus_distance": lambda row: row.quality.distance,
    "distance_max": lambda row: row.quality.widest,
    "excess": lambda row: row.quality.excess,
    "own_excess": lambda row: row.quality.own_excess,
    "bytes_per_gradient": lambda row: row.traffic.bytes_out,
    "messages_per_step": lambda row: row.traffic.messages,
    "server_bytes_out": lambda row: row.traffic.server_out,
    "server_bytes_in": lambda row: row.traffic.server_in,
    "exchanges_per_gradient": lambda row: row.traffic.exchanges,
    "time_per_step": lambda row: row.times.per_step,
    "bound": lambda row: asdict(row.limits.bound) if row.limits.bound else None,
    "links": lambda row: row.limits.links,
    "counted_bytes": lambda row: row.traffic.counted,
    "interruptions": lambda row: row.interruptions,
    "provenance": lambda row: row.provenance,
    "progress": lambda row: row.progress,
}
"""What JSON has of one run; not what its point says, nor its curve and its counts."""
