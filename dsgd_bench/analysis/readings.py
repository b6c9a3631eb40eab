"""What one trace says, as plain numbers: times, spans, traffic, staleness, quality.

Only workers take gradients, so only they are counted; what servers send and receive is
told apart.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.analysis.staleness import loose

if TYPE_CHECKING:
    from dsgd_bench.trace import Trace

SPANS = ("compute", "injected", "waiting", "transfer", "update", "snapshot", "other")
"""Where a step's time can go; the spans of a step add up to its duration."""
BLOCKED = ("waiting", "transfer")
"""Spans in which the training thread does nothing for its own model."""
UNCOUNTED = 2.0**53
"""What no count reaches: from there on, a float cannot be counted up by one."""


def read(trace: "Trace") -> dict[str, Any]:
    """Return every measured attribute of a `summary.Row` that the trace tells."""
    return {
        **times(trace),
        **_spans(trace),
        **_traffic(trace),
        **_staleness(trace),
        **_judged(trace),
        **_excess(trace),
    }


def _workers(trace: "Trace") -> np.ndarray:
    """Return which ranks compute gradients, shape (ranks,)."""
    return np.asarray(trace["serves"] == 0.0)


def times(trace: "Trace") -> dict[str, float | None]:
    """Return time and epochs to target, time per epoch; none for a crashed run."""
    if trace.status == "crashed":
        return {}
    works = _workers(trace)
    samples, elapsed = trace["samples_done"][works], trace["elapsed"][works]
    ran = np.isfinite(elapsed) & (elapsed > 0.0)
    samples, elapsed = samples[ran], elapsed[ran]
    known = ALGORITHMS.get(trace.trial.algorithm.kind)
    if known and known.synchronous and elapsed.size:
        # Whoever is some steps ahead at the end was not faster for that.
        elapsed = np.full_like(elapsed, elapsed.max())
    rate = float(np.sum(samples / elapsed))
    return {
        **_target(trace),
        "time_per_epoch": trace.epoch_samples / rate if rate > 0.0 else None,
    }


def at_target(trace: "Trace") -> np.ndarray:
    """Return which judged moments are at the target, shape (moments,)."""
    measure, losses = trace.trial.measure, trace["loss_of_mean"]
    met = np.zeros(losses.shape, dtype=bool)
    if measure.target_loss is not None:
        met |= losses <= measure.target_loss
    if measure.target_accuracy is not None:
        met |= trace["accuracy_of_mean"] >= measure.target_accuracy
    return met


def _target(trace: "Trace") -> dict[str, float | None]:
    """Return the first judged moment at the target, and its distance from the last."""
    met = at_target(trace)
    if not met.any():
        return {}
    first = int(met.argmax())
    times, samples = trace["moment_time"], trace["moment_samples"]
    return {
        "time_to_target": float(times[first]),
        "target_gap": float(times[first] - times[max(first - 1, 0)]),
        "epochs_to_target": float(samples[first]) / trace.epoch_samples,
    }


def _spans(trace: "Trace") -> dict[str, Any]:
    """Return steps, seconds in each span, blocked and overlapped time, who waits."""
    works = _workers(trace)
    done = np.nan_to_num(trace["steps_done"][works])
    per_rank = {span: np.nansum(trace[span][works], axis=1) for span in SPANS}
    own = (per_rank["compute"] + per_rank["injected"]) / np.maximum(done, 1)
    blocked = sum(per_rank[span] for span in BLOCKED)
    spent = np.asarray(sum(per_rank.values()))
    shared = per_rank["waiting"] / np.where(spent > 0.0, spent, 1.0)
    waited = _finite(trace["waited_for"][works])
    waited = waited[(waited >= 0) & (waited < len(works))].astype(int)
    return {
        "steps_per_rank": tuple(int(count) for count in np.clip(done, 0, UNCOUNTED)),
        "seconds": {span: float(per_rank[span].sum()) for span in SPANS},
        "blocked": float(np.mean(blocked)),
        "overlapped": float(np.nansum(trace["overlapped"][works], axis=1).mean()),
        "waiting_per_rank": tuple(shared.tolist()) if spent.any() else (),
        "worst_rank": int(own.argmax()) if own.any() else None,
        "waited_for": int(np.bincount(waited).argmax()) if waited.size else None,
    }


def _traffic(trace: "Trace") -> dict[str, float | None]:
    """Return bytes, messages and exchanges per gradient, of workers and of servers."""
    works = _workers(trace)
    gradients = float(np.nansum(trace["steps_done"][works]))
    if not gradients:
        return {}

    def per_gradient(name: str, ranks: np.ndarray) -> float | None:
        return float(np.nansum(trace[name][ranks])) / gradients if ranks.any() else None

    started = trace["exchanges"].sum(axis=1)  # of thousands of ranks: one copy only
    return {
        "bytes_per_gradient": per_gradient("bytes_out", works),
        "messages_per_step": per_gradient("messages_out", works),
        "server_bytes_out": per_gradient("bytes_out", ~works),
        "server_bytes_in": per_gradient("bytes_in", ~works),
        "exchanges_per_gradient": float(started[works].sum()) / gradients
        if works.any()
        else None,
    }


def _staleness(trace: "Trace") -> dict[str, Any]:
    """Return how stale gradients and mixed models were, and the push-sum weights."""
    works = _workers(trace)
    stale, weights = trace["staleness"][works], trace["weight"][works]
    known = np.isfinite(stale)
    means = np.where(known, stale, 0.0).sum(1) / np.maximum(known.sum(1), 1)
    age, created = trace["age"][works], trace["start"][works].copy()
    for span in ("snapshot", "compute", "injected"):
        created += trace[span][works]
    seen = trace["start"][works] + trace["duration"][works]
    lacking = loose(created, seen, trace["delivered"][works])
    together = weights[:, np.isfinite(weights).all(axis=0)]
    ran = ALGORITHMS.get(trace.trial.algorithm.kind)
    sums = together.sum(axis=0) if ran and ran.synchronous else np.empty(0)
    mean, largest = _extent(stale)
    loose_mean, loose_max = _extent(lacking)
    age_mean, age_max = _extent(age)
    return {
        "staleness_mean": mean,
        "staleness_max": largest,
        "staleness_per_rank": tuple(means.tolist()) if known.any() else (),
        "staleness_counts": _counted(stale[known]),
        "loose_mean": loose_mean,
        "loose_max": loose_max,
        "age_mean": age_mean,
        "age_max": age_max,
        "weight_min": float(np.nanmin(weights)) if together.size else None,
        "weight_max": float(np.nanmax(weights)) if together.size else None,
        "weight_total": float(np.abs(sums / len(weights) - 1).max())
        if sums.size
        else None,
    }


def _judged(trace: "Trace") -> dict[str, Any]:
    """Return what the judged moments say: the last values and the curve."""
    times, losses = trace["moment_time"], trace["loss_of_mean"]
    curve = zip(times.tolist(), losses.tolist(), strict=True)
    return {
        # A diverged run has no final loss, however fine an earlier one was.
        "loss": None if trace.status == "diverged" else _last(losses),
        "accuracy": _last(trace["accuracy_of_mean"]),
        "consensus_distance": _last(trace["consensus_distance"]),
        "distance_max": _extent(trace["consensus_distance"])[1],
        "curve": tuple(point for point in curve if np.isfinite(point).all()),
    }


def _counted(values: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Return every value that occurs, ascending, and how often."""
    found, counts = np.unique(values.astype(np.int64), return_counts=True)
    return tuple(zip(found.tolist(), counts.tolist(), strict=True))


def _excess(trace: "Trace") -> dict[str, float | None]:
    """Return how far losses were above the lowest one, on average over the run.

    The average is over gradients: straight lines between the judged moments.
    """
    done = trace["moment_samples"]
    if trace.optimum is None or len(done) < 2 or done[-1] <= done[0]:
        return {}
    own = trace["local_loss"]
    judged = own[np.isfinite(own[:, 0])]
    curves = {"excess": trace["loss_of_mean"]}
    if len(judged):
        curves["own_excess"] = judged.mean(axis=0)
    return {
        name: float(np.trapezoid(losses - trace.optimum, done) / (done[-1] - done[0]))
        for name, losses in curves.items()
        if np.isfinite(losses).all()
    }


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
