"""What a replay takes from a trace: the times of every step, and what was sent."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsgd_bench.analysis import readings, values
from dsgd_bench.errors import TraceError
from dsgd_bench.trace import Trace, open_trace
from dsgd_bench.trial.gradient_time import Times

WORK = ("update", "snapshot", "other")
"""Spans of a step that are the algorithm's own work on its rank."""

NOTEWORTHY = 1.05
"""A worker is slow that is this many times slower than the others; less is chance."""

NEEDED = (
    "compute",
    "injected",
    "transfer",
    "waiting",
    *WORK,
    "overlapped",
    "waited_for",
)
NEEDED_OF_RANKS = ("serves", "node_ranks", "elapsed", "samples_done")


@dataclass(frozen=True)
class Change:
    """What is different in a replay; by default nothing is.

    Attributes
    ----------
    fast : frozenset of int
        Workers that are no longer slow: nothing is injected, and if their gradients
        are slow even so, they take as long as those of the others in the median.
    network : float
        How many times faster the network is.
    links : bool
        Whether the links that the trial makes slow are slow.
    steady : bool
        Whether every gradient takes its worker's mean.
    work : bool
        Whether the algorithm's own work takes time.
    """

    fast: frozenset[int] = frozenset()
    network: float = 1.0
    links: bool = True
    steady: bool = False
    work: bool = True


class Record:
    """A run as a replay needs it.

    Parameters
    ----------
    path : Path
        Its trace.

    Attributes
    ----------
    trace : Trace
    workers : int
        Ranks that compute gradients: 0 to `workers` - 1.
    epoch : float
        Seconds per epoch.
    moving : float
        Seconds of moving data per step, beside the gradient or not.
    slowness : list of float
        By worker: how many times as long its gradients took, with what was injected,
        as those of the others, without; medians of workers, means of what was injected.

    Raises
    ------
    TraceError
        If there is no such trace, or what a replay needs is missing or impossible.
    """

    def __init__(self, path: Path) -> None:
        self.trace = trace = open_trace(path)
        _check(trace)
        self.workers = int((trace["serves"] == 0).sum())
        steps = [np.isfinite(row) for row in trace["compute"][: self.workers]]
        if not all(row.any() for row in steps):
            raise TraceError(
                f"{path} has a worker without a step: name the trace of a run in which "
                "all took steps"
            )

        def rows(name: str) -> list[Times]:
            return [trace[name][k][row] for k, row in enumerate(steps)]

        self._compute, self._injected = rows("compute"), rows("injected")
        self._work = [np.sum(each, 0) for each in zip(*map(rows, WORK), strict=True)]
        self.epoch = seconds_per_epoch(trace)
        self.moving = seconds_moving(trace)
        medians = np.array([np.median(row) for row in self._compute])
        others = [np.delete(medians, k) for k in range(self.workers)]
        typical = [np.median(rest) if rest.size else medians[0] for rest in others]
        self._mended = [
            float(t / m) if m > NOTEWORTHY * t else 1.0
            for t, m in zip(typical, medians, strict=True)
        ]
        self.slowness = [
            float((m + row.mean()) / t) if t else 1.0
            for m, row, t in zip(medians, self._injected, typical, strict=True)
        ]

    def times(self, worker: int, change: Change) -> Times:
        """Return the seconds of each gradient of a worker, own work included."""
        compute, work = self._compute[worker], self._work[worker]
        if change.steady:
            compute = np.full_like(compute, compute.mean())
            work = np.full_like(work, work.mean())
        if worker in change.fast:
            compute = compute * self._mended[worker]
        else:
            compute = compute + self._injected[worker]
        return compute + work if change.work else compute

    def waited_for(self, worker: int) -> float | None:
        """Return the seconds per epoch that the others waited for a worker, summed.

        None if the algorithm does not note for whom it waits.
        """
        trace = self.trace
        if np.isnan(trace["waited_for"]).all():
            return None
        waited = np.nansum(trace["waiting"][trace["waited_for"] == worker])
        epochs = trace["samples_done"].sum() / trace.epoch_samples
        return float(waited / epochs)


def seconds_per_epoch(trace: Trace) -> float:
    """Return the seconds that a run took per epoch, as reports have it."""
    return readings.time_per_epoch(trace) or math.nan


def seconds_moving(trace: Trace) -> float:
    """Return the mean seconds per worker's step that data were on their way."""
    mine = trace["serves"] == 0
    return float(np.nanmean(trace["transfer"][mine] + trace["overlapped"][mine]))


def _check(trace: Trace) -> None:
    missing = []
    for name in (*NEEDED, *NEEDED_OF_RANKS):
        try:
            trace[name]
        except TraceError:
            missing.append(name)
    if not trace.model_bytes:
        missing.append("dsgd_model_bytes")
    if missing:
        raise TraceError(
            f"{trace.path} lacks {', '.join(missing)}, which a replay needs: name the "
            "trace of a finished run of this version of dsgd-bench"
        )
    if trace.status == "crashed":
        raise TraceError(
            f"{trace.path} is that of a run that crashed: name the trace of a finished "
            "run"
        )
    for name, found, expected in values.impossible(trace):
        if name in (*NEEDED, *NEEDED_OF_RANKS):
            raise TraceError(
                f"{trace.path} has {found} in {name}, where there must be {expected}: "
                "it is damaged, so name another trace, or run the trial again"
            )
