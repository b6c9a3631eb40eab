"""The lines of MLPerf's loggers, so that its tools can read a trial.

Own benchmark names, and own keys behind ``dsgd_``: nothing here is an MLPerf result.
Format and keys: github.com/mlcommons/logging, rule set for training. A trial's trace
has its own clock; it is laid on the wall clock where its provenance was taken, right
before the ranks were set up, to the second. Setting up takes no time in these lines.
"""

import calendar
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dsgd_bench.analysis import labels
from dsgd_bench.analysis.rows import Row
from dsgd_bench.analysis.summary import summarize
from dsgd_bench.config import naming
from dsgd_bench.config.identity import trial_id

if TYPE_CHECKING:
    from dsgd_bench.trace import Trace

PREFIX = ":::MLLOG"
POINT, START, END = "POINT_IN_TIME", "INTERVAL_START", "INTERVAL_END"


def lines(trace: "Trace") -> Iterator[str]:
    """Yield the log of one finished trial, by time.

    Parameters
    ----------
    trace : Trace
        A merged trace.
    """
    log, row = _Log(_wall_clock(trace)), summarize(trace)
    yield from _set_up(log, trace)
    yield log.event(START, "run_start", 0.0)
    yield from _blocks(log, trace)
    end = _end(trace)
    success = row.reached or (row.trial.target is None and trace.status != "diverged")
    status = "success" if success else "aborted"
    yield log.event(END, "run_stop", end, status=status)
    for key, value in _outcome(row).items():
        yield log.event(POINT, key, end, value)


@dataclass(frozen=True)
class _Log:
    """Makes lines; `zero` is the wall-clock time of the common start, in seconds."""

    zero: float

    def event(
        self, kind: str, key: str, seconds: float, value: Any = None, **metadata: Any
    ) -> str:
        content = {
            "namespace": "",
            "time_ms": round(1000 * (self.zero + seconds)),
            "event_type": kind,
            "key": key,
            "value": value,
            "metadata": {"file": "dsgd_bench", "lineno": 0, **metadata},
        }
        return f"{PREFIX} {json.dumps(content)}"


def _set_up(log: _Log, trace: "Trace") -> Iterator[str]:
    trial = trace.trial
    workers = int((trace["serves"] == 0.0).sum())
    library = labels.fact(trace.provenance, "mpi_library")
    submission = {
        "submission_benchmark": f"dsgd_{trial.problem.kind}",
        "submission_division": "open",
        "submission_org": "dsgd_bench",
        "submission_platform": f"{trial.ranks} ranks, {library or trace.fabric}",
        "submission_status": "research",
    }
    choices = {
        "seed": trial.seed,
        "global_batch_size": trial.problem.batch * workers,
        "opt_name": "sgd",
        "opt_base_learning_rate": trial.optimizer.lr,
        "train_samples": trace.epoch_samples,
        "dsgd_trial": trial_id(trial),
        "dsgd_algorithm": naming.label(trial.algorithm),
        "dsgd_slowdown": labels.slowdown(trial),
        "dsgd_target": labels.target(trial.measure),
    }
    # the key is required, its value is the truth: warm-up steps fill caches on purpose
    yield log.event(POINT, "cache_clear", 0.0, False)
    yield log.event(START, "init_start", 0.0)
    for key, value in (submission | choices).items():
        yield log.event(POINT, key, 0.0, value)
    yield log.event(END, "init_stop", 0.0)


def _blocks(log: _Log, trace: "Trace") -> Iterator[str]:
    """Yield a block from each evaluation point to the next, and what was found there.

    Evaluation takes no time: it happens after the clock has stopped.
    """
    times, samples = trace["moment_time"], trace["moment_samples"]
    accuracy, losses = trace["accuracy_of_mean"], trace["loss_of_mean"]
    for k in range(len(times)):
        epochs = float(samples[k]) / trace.epoch_samples
        done = {"samples_count": int(samples[k]), "epoch_num": round(epochs, 6)}
        if k:
            yield log.event(START, "block_start", times[k - 1], **done)
            yield log.event(END, "block_stop", times[k], **done)
        yield log.event(START, "eval_start", times[k], **done)
        if np.isfinite(accuracy[k]):
            found = float(accuracy[k])
            yield log.event(POINT, "eval_accuracy", times[k], found, **done)
        if np.isfinite(losses[k]):
            yield log.event(POINT, "dsgd_loss", times[k], float(losses[k]), **done)
        yield log.event(END, "eval_stop", times[k], **done)


def _end(trace: "Trace") -> float:
    """Return when the run ended: its last step, or the last models were whole."""
    ends = [*trace["elapsed"], *trace["moment_time"]]
    return float(np.nanmax(ends, initial=0.0))


def _outcome(row: Row) -> dict[str, float]:
    found = {
        "dsgd_time_to_target": row.target.seconds,
        "dsgd_time_per_epoch": row.times.per_epoch,
        "dsgd_staleness_mean": row.staleness.mean,
        "dsgd_staleness_max": row.staleness.largest,
        "dsgd_bytes_per_gradient": row.traffic.bytes_out,
        "dsgd_waiting": row.times.shares.get("waiting"),
    }
    return {key: value for key, value in found.items() if value is not None}


def _wall_clock(trace: "Trace") -> float:
    """Return the time of the common start in seconds since the epoch, 0 if unknown."""
    stamp = labels.fact(trace.provenance, "time_utc")
    if not isinstance(stamp, str):
        return 0.0
    return float(calendar.timegm(time.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ")))
