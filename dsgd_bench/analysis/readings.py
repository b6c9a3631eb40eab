"""What one trace says, as plain numbers: times, spans, traffic, staleness, quality.

Only workers take gradients, so only they are counted; what servers send and receive is
told apart.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.analysis import speed
from dsgd_bench.analysis.rows import (
    SPANS,
    Quality,
    Staleness,
    Target,
    Times,
    Traffic,
    Weights,
)
from dsgd_bench.analysis.staleness import loose

if TYPE_CHECKING:
    from dsgd_bench.trace import Trace

BLOCKED = ("waiting", "transfer")
"""Spans in which the training thread does nothing for its own model."""
UNCOUNTED = 2.0**53
"""What no count reaches: from there on, a float cannot be counted up by one."""


def _workers(trace: "Trace") -> np.ndarray:
    """Return which ranks compute gradients, shape (ranks,)."""
    return np.asarray(trace["serves"] == 0.0)


def time_per_epoch(trace: "Trace") -> float | None:
    """Return the samples of an epoch over the summed rates of the workers, seconds.

    None for a crashed run, and where no worker took a step.
    """
    if trace.status == "crashed":
        return None
    works = _workers(trace)
    samples, elapsed = trace["samples_done"][works], trace["elapsed"][works]
    ran = np.isfinite(elapsed) & (elapsed > 0.0)
    samples, elapsed = samples[ran], elapsed[ran]
    known = ALGORITHMS.get(trace.trial.algorithm.kind)
    if known and known.synchronous and elapsed.size:
        # A worker that is some steps ahead at the end was not faster for that.
        elapsed = np.full_like(elapsed, elapsed.max())
    rate = float(np.sum(samples / elapsed))
    return trace.epoch_samples / rate if rate > 0.0 else None


def at_target(trace: "Trace") -> np.ndarray:
    """Return which evaluation points are at the target, shape (points,)."""
    measure, losses = trace.trial.measure, trace["loss_of_mean"]
    met = np.zeros(losses.shape, dtype=bool)
    if measure.target_loss is not None:
        met |= losses <= measure.target_loss
    if measure.target_accuracy is not None:
        met |= trace["accuracy_of_mean"] >= measure.target_accuracy
    return met


def target(trace: "Trace") -> Target:
    """Return the first evaluation point at the target, and its distance from the last.

    A crashed run has met nothing.
    """
    met = at_target(trace)
    if trace.status == "crashed" or not met.any():
        return Target()
    first = int(met.argmax())
    times, samples = trace["moment_time"], trace["moment_samples"]
    return Target(
        seconds=float(times[first]),
        epochs=float(samples[first]) / trace.epoch_samples,
        gap=float(times[first] - times[max(first - 1, 0)]),
    )


def times(trace: "Trace") -> Times:
    """Return time per epoch and step, seconds in each span, and who waits for whom."""
    works = _workers(trace)
    done = np.nan_to_num(trace["steps_done"][works])
    per_rank = {span: np.nansum(trace[span][works], axis=1) for span in SPANS}
    own = (per_rank["compute"] + per_rank["injected"]) / np.maximum(done, 1)
    blocked = sum(per_rank[span] for span in BLOCKED)
    spent = np.asarray(sum(per_rank.values()))
    shared = per_rank["waiting"] / np.where(spent > 0.0, spent, 1.0)
    waited = _finite(trace["waited_for"][works])
    waited = waited[(waited >= 0) & (waited < len(works))].astype(int)
    return Times(
        per_epoch=time_per_epoch(trace),
        per_step=speed.time_per_step(trace),
        seconds={span: float(per_rank[span].sum()) for span in SPANS},
        overlapped=float(np.nansum(trace["overlapped"][works], axis=1).mean()),
        blocked=float(np.mean(blocked)),
        steps_per_rank=tuple(int(count) for count in np.clip(done, 0, UNCOUNTED)),
        waiting_per_rank=tuple(shared.tolist()) if spent.any() else (),
        worst_rank=int(own.argmax()) if own.any() else None,
        waited_for=int(np.bincount(waited).argmax()) if waited.size else None,
    )


def traffic(trace: "Trace") -> Traffic:
    """Return bytes, messages and exchanges per gradient, of workers and of servers."""
    works = _workers(trace)
    gradients = float(np.nansum(trace["steps_done"][works]))
    counted = speed.counted_bytes(trace)
    if not gradients:
        return Traffic(trace.model_bytes, counted=counted)

    def per_gradient(name: str, ranks: np.ndarray) -> float | None:
        return float(np.nansum(trace[name][ranks])) / gradients if ranks.any() else None

    started = trace["exchanges"].sum(axis=1)  # of thousands of ranks: one copy only
    return Traffic(
        model_bytes=trace.model_bytes,
        bytes_out=per_gradient("bytes_out", works),
        messages=per_gradient("messages_out", works),
        server_out=per_gradient("bytes_out", ~works),
        server_in=per_gradient("bytes_in", ~works),
        exchanges=float(started[works].sum()) / gradients if works.any() else None,
        counted=counted,
    )


def staleness(trace: "Trace") -> Staleness:
    """Return how stale gradients and mixed models were."""
    works = _workers(trace)
    stale = trace["staleness"][works]
    known = np.isfinite(stale)
    means = np.where(known, stale, 0.0).sum(1) / np.maximum(known.sum(1), 1)
    created = trace["start"][works].copy()
    for span in ("snapshot", "compute", "injected"):
        created += trace[span][works]
    seen = trace["start"][works] + trace["duration"][works]
    lacking = loose(created, seen, trace["delivered"][works])
    mean, largest = _extent(stale)
    loose_mean, loose_largest = _extent(lacking)
    age_mean, age_largest = _extent(trace["age"][works])
    return Staleness(
        kind=trace.staleness,
        mean=mean,
        largest=largest,
        per_rank=tuple(means.tolist()) if known.any() else (),
        counts=_counted(stale[known]),
        loose_mean=loose_mean,
        loose_largest=loose_largest,
        age_mean=age_mean,
        age_largest=age_largest,
    )


def weights(trace: "Trace") -> Weights:
    """Return the extent of the push-sum weights, and how well they add up to n."""
    found = trace["weight"][_workers(trace)]
    together = found[:, np.isfinite(found).all(axis=0)]
    if not together.size:
        return Weights()
    ran = ALGORITHMS.get(trace.trial.algorithm.kind)
    departures = np.abs(together.sum(axis=0) / len(found) - 1)
    return Weights(
        least=float(np.nanmin(found)),
        most=float(np.nanmax(found)),
        departure=float(departures.max()) if ran and ran.synchronous else None,
    )


def quality(trace: "Trace") -> Quality:
    """Return what the evaluation says: the last values and the curve."""
    times, losses = trace["moment_time"], trace["loss_of_mean"]
    curve = zip(times.tolist(), losses.tolist(), strict=True)
    average, own = _excess(trace)
    return Quality(
        # A diverged run has no final loss, however fine an earlier one was.
        loss=None if trace.status == "diverged" else _last(losses),
        accuracy=_last(trace["accuracy_of_mean"]),
        distance=_last(trace["consensus_distance"]),
        widest=_extent(trace["consensus_distance"])[1],
        excess=average,
        own_excess=own,
        curve=tuple(point for point in curve if np.isfinite(point).all()),
    )


def _counted(values: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Return every value that occurs, ascending, and how often."""
    found, counts = np.unique(values.astype(np.int64), return_counts=True)
    return tuple(zip(found.tolist(), counts.tolist(), strict=True))


def _excess(trace: "Trace") -> tuple[float | None, float | None]:
    """Return how far losses were above the lowest one: of the average, of own models.

    The average over the run is over gradients: straight lines between the
    evaluation points.
    """
    done, lowest = trace["moment_samples"], trace.optimum
    if lowest is None or len(done) < 2 or done[-1] <= done[0]:
        return None, None

    def above(losses: np.ndarray) -> float | None:
        if not np.isfinite(losses).all():
            return None
        return float(np.trapezoid(losses - lowest, done) / (done[-1] - done[0]))

    own = trace["local_loss"]
    evaluated = own[np.isfinite(own[:, 0])]
    average = above(trace["loss_of_mean"])
    return average, above(evaluated.mean(axis=0)) if len(evaluated) else None


def _finite(values: np.ndarray) -> np.ndarray:
    return np.asarray(values[np.isfinite(values)])


def _extent(values: np.ndarray) -> tuple[float | None, float | None]:
    """Return mean and maximum of the finite values, or None twice."""
    finite = _finite(values)
    return (float(finite.mean()), float(finite.max())) if finite.size else (None, None)


def _last(values: Sequence[float] | np.ndarray) -> float | None:
    """Return the last finite value, or None."""
    finite = _finite(np.asarray(values, dtype=np.float64))
    return float(finite[-1]) if finite.size else None
