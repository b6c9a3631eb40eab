"""Traces whose every number follows from a few lines of arithmetic.

A toy cluster: a gradient takes `COMPUTE` seconds, on a slow rank s times that (the
excess is injected); every step moves a model for `MOVING` seconds and mixes for
`MIXING`. Whoever keeps step waits for the slowest rank; anything else waits for nobody.
The loss of the average model falls as exp(-samples / `FALL`). Staleness, traffic and
weights are what the rules say.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dsgd_bench import trace
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.algorithms.base import Algorithm
from dsgd_bench.analysis.comparison import keeps_step
from dsgd_bench.config.identity import trial_id
from dsgd_bench.spec.job import Job
from dsgd_bench.spec.machine import Machine
from dsgd_bench.spec.trial import (
    AlgorithmSpec,
    BudgetSpec,
    ComputeSpec,
    MeasureSpec,
    ProblemSpec,
    SlowdownSpec,
    Trial,
)
from dsgd_bench.trace.variables import STEP

COMPUTE, MOVING, MIXING, OTHER = 0.02, 0.001, 0.0005, 0.0005
BATCH, EPOCH, FALL = 32, 1440, 4000.0
MESSAGE = 2600.0
"""Bytes of one model."""

PROVENANCE: dict[str, Any] = {
    "time_utc": "2025-01-01T00:00:00Z",
    "host": {"name": "node1", "cpu": "a CPU", "cores_allowed": 16},
    "software": {"python": "3.12.1", "packages": {"numpy": "2.4.0"}},
    "mpi": {"library": "MPICH 5.0.2"},
    "oversubscribed": False,
}


def trial(
    kind: str = "allreduce",
    *,
    factor: float = 1.0,
    ranks: int = 4,
    repeat: int = 0,
    seconds: float = 4.0,
    target: float | None = 0.5,
    settings: dict[str, Any] | None = None,
) -> Trial:
    """Return a trial of the toy cluster; rank 0 is `factor` times slower."""
    return Trial(
        ranks=ranks,
        seed=repeat,
        repeat=repeat,
        algorithm=AlgorithmSpec(kind=kind, settings=settings or {}),
        problem=ProblemSpec(kind="softmax", batch=BATCH),
        compute=ComputeSpec(mode="emulated", seconds=COMPUTE),
        slowdown=SlowdownSpec(kind="constant", ranks=(0,), factor=factor),
        budget=BudgetSpec(seconds=seconds),
        measure=MeasureSpec(target_loss=target, copies=20),
    )


@dataclass
class Toy:
    """A trace in memory: what the analysis asks of `trace.Trace`, and no more."""

    trial: Trial
    arrays: dict[str, Any]
    status: str = "exhausted"
    reason: str = "the budget was used up"
    study: str = "toy"
    fabric: str = "mpi"
    epoch_samples: int = EPOCH
    model_bytes: int = int(MESSAGE)
    staleness: str = "none"
    optimum: float | None = None

    def __post_init__(self) -> None:
        self.provenance = dict(PROVENANCE)
        self.progress = {"thread": False, "pairs": {}}
        self.interruptions: list[dict[str, Any]] = []

    def __getitem__(self, name: str) -> Any:
        return self.arrays[name]


def run(of: Trial, *, noise: float = 0.0, moments: int = 20) -> Any:
    """Return a `Toy`, taken for the trace that a trial leaves on the toy cluster.

    `noise` stretches every second of the run, so that repeats differ.
    """
    algorithm = ALGORITHMS[of.algorithm.kind]
    servers = algorithm.servers(of.algorithm.settings, of.ranks)
    workers = of.ranks - servers
    seconds = of.budget.seconds or 1.0
    stretch, waits = 1.0 + noise, bool(keeps_step(algorithm.name))
    own = np.full(workers, COMPUTE)
    slow = [rank for rank in of.slowdown.ranks if rank < workers]
    own[slow] *= of.slowdown.factor
    extra = MOVING + MIXING + OTHER
    step = (np.full(workers, own.max()) if waits else own) + extra
    steps = np.maximum((seconds / (step * stretch)).astype(int), 1)
    others = np.setdiff1d(np.arange(workers), slow)
    late = waits & (own < own.max())
    spans = {
        "compute": np.full(workers, COMPUTE),
        "injected": own - COMPUTE,
        "waiting": step - extra - own,
        "transfer": np.full(workers, MOVING),
        "update": np.full(workers, MIXING),
        "snapshot": np.zeros(workers),
        "other": np.full(workers, OTHER),
        "overlapped": np.zeros(workers),
        "flushing": np.zeros(workers),
        "duration": step,
    }
    counts = {
        "waited_for": np.where(late, own.argmax(), np.nan),
        "staleness": _staleness(algorithm, of, others, workers),
        "weight": np.full(workers, 1.0 if "push-sum" in algorithm.traits else np.nan),
        "bytes_out": np.full(workers, MESSAGE * _models(algorithm, of, workers)),
        "messages_out": np.ones(workers),
        "samples": np.full(workers, float(BATCH)),
    }
    arrays = {name: _padded(x * stretch, steps) for name, x in spans.items()}
    arrays |= {name: _padded(x, steps) for name, x in counts.items()}
    arrays["start"] = _padded(step * stretch, steps) * np.arange(steps.max())
    arrays["age"] = arrays["staleness"]
    done = np.arange(steps.max()) + np.zeros((workers, 1))
    settles = "eventually-identical" in algorithm.traits
    arrays["delivered"] = np.where(settles, done, np.nan)
    arrays["bytes_in"] = arrays["bytes_out"]
    for name in (*spans, *counts, "start", "age", "delivered", "bytes_in"):
        arrays[name] = _with_servers(arrays[name], servers, name)
    served = [steps.sum() * 1.0] * servers
    arrays["steps_done"] = np.array([*steps, *served], float)
    arrays["samples_done"] = np.array([*steps * BATCH, *[0] * servers], float)
    arrays["elapsed"] = np.array([*steps * step * stretch, *[seconds] * servers])
    arrays["serves"] = np.repeat([0.0, 1.0], [workers, servers])
    pairs = np.zeros((of.ranks, of.ranks))
    if not waits and not servers:
        pairs[range(workers), range(workers)] = steps
    arrays["exchanges"] = pairs
    times = np.linspace(0.0, seconds, moments)
    rate = np.sum(BATCH / (step * stretch))
    arrays["moment_time"] = times
    arrays["moment_samples"] = times * rate
    arrays["loss_of_mean"] = 2.3 * np.exp(-times * rate / FALL)
    arrays["accuracy_of_mean"] = 1.0 - arrays["loss_of_mean"] / 2.4
    arrays["norm_of_mean"] = np.ones(moments)
    arrays["consensus_distance"] = np.zeros(moments) if waits else 0.1 + 0.0 * times
    arrays["consensus_distance"][-1] *= 1e-7 if settles else 1.0
    _fill(arrays, of.ranks, moments)
    status = "exhausted"
    if (arrays["loss_of_mean"] <= (of.measure.target_loss or 0.0)).any():
        status = "reached"
    return Toy(of, arrays, status, staleness=algorithm.staleness)


def _fill(arrays: dict[str, Any], ranks: int, moments: int) -> None:
    """Add what is missing, and steps that a rank did not take, as NaN."""
    width = max(table.shape[1] for name, table in arrays.items() if _is_step(name))
    sizes = {"rank": ranks, "partner": ranks, "step": width, "moment": moments}
    for name, (dimensions, _, _) in trace.VARIABLES.items():
        empty = np.full([sizes[dimension] for dimension in dimensions], np.nan)
        table = arrays.setdefault(name, empty)
        if _is_step(name):
            arrays[name] = np.hstack([table, empty[:, table.shape[1] :]])


def _is_step(name: str) -> bool:
    return trace.VARIABLES[name][0] == STEP


def _models(algorithm: Algorithm, of: Trial, workers: int) -> float:
    """Return the models that a worker sends per gradient; "e" is 1."""
    known = algorithm.sent(of.algorithm.settings, of.ranks)
    if known is not None:
        return known
    return {"dasgd": workers - 1.0, "swift": 2.0}.get(algorithm.name, 1.0)


def _staleness(
    algorithm: Algorithm, of: Trial, others: np.ndarray, workers: int
) -> np.ndarray:
    """Return the staleness of each worker's gradients, as the rules have it."""
    factor = of.slowdown.factor
    if algorithm.staleness == "none":
        return np.full(workers, np.nan)
    if keeps_step(algorithm.name):
        return np.ones(workers)
    if algorithm.staleness == "steps":
        return np.full(workers, factor)
    stale = np.full(workers, factor * (workers - 1.0))
    # a slow worker's gradients are rare: the others lack hardly any of them
    stale[others] = workers - 1.0 - (0.5 if factor > 1.0 else 0.0)
    return stale


def _with_servers(table: np.ndarray, servers: int, name: str) -> np.ndarray:
    """Return the workers' rows with one row per server, which handles each message."""
    if not servers:
        return table
    handled = int(np.isfinite(table).sum())
    rows = np.full((len(table) + servers, max(handled, table.shape[1])), np.nan)
    rows[: len(table), : table.shape[1]] = table
    served = {"bytes_out": 1, "bytes_in": 1, "messages_out": 1, "waiting": 1}
    if name in served:
        rows[len(table) :, :handled] = np.nansum(table) / max(handled, 1) / servers
    elif name == "samples":
        rows[len(table) :] = 0.0
    return rows


def save(toy: Toy, study: Path) -> Path:
    """Write a trial's folder as a finished run leaves it; return the folder."""
    folder = study / trial_id(toy.trial)
    folder.mkdir(parents=True)
    Job(study.name, toy.trial, Machine()).write(folder / "job.json")
    with h5py.File(folder / "trace.h5", "w") as file:
        for name, values in toy.arrays.items():
            file[name] = values
        file.attrs.update(
            dsgd_schema_version=trace.SCHEMA,
            dsgd_trial=toy.trial.to_json(),
            dsgd_trial_id=trial_id(toy.trial),
            dsgd_study=study.name,
            dsgd_provenance=json.dumps(toy.provenance),
            dsgd_progress=json.dumps(toy.progress),
            dsgd_epoch_samples=toy.epoch_samples,
            dsgd_model_bytes=toy.model_bytes,
            dsgd_staleness=toy.staleness,
            dsgd_fabric=toy.fabric,
            dsgd_status=toy.status,
            dsgd_reason=toy.reason,
            dsgd_counts="{}",
            dsgd_interruptions=json.dumps(toy.interruptions),
        )
        if toy.optimum is not None:
            file.attrs["dsgd_optimum"] = toy.optimum
    (folder / "READY").touch()
    return folder


def _padded(each: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return one row per rank: its value in every step it took, then NaN."""
    taken = np.arange(steps.max()) < steps[:, None]
    return np.where(taken, each[:, None], np.nan)
