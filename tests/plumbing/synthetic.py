"""Traces whose every number follows from a few lines of arithmetic.

A toy cluster: a gradient takes `COMPUTE` seconds, on a slow rank s times that (the
excess is injected); every step moves a model for `MOVING` seconds and mixes for
`MIXING`. AllReduce waits for the slowest rank; anything else waits for nobody. The loss
of the average model falls as exp(-samples / `FALL`).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dsgd_bench import trace
from dsgd_bench.config import (
    AlgorithmSpec,
    BudgetSpec,
    ComputeSpec,
    MeasureSpec,
    ProblemSpec,
    SlowdownSpec,
    Trial,
)
from dsgd_bench.specs import Job, Machine

COMPUTE, MOVING, MIXING, OTHER = 0.02, 0.001, 0.0005, 0.0005
BATCH, EPOCH, FALL = 32, 1440, 4000.0
MESSAGE = 2600.0
"""Bytes per step and rank."""

PROVENANCE = {
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
) -> Trial:
    """Return a trial of the toy cluster; rank 0 is `factor` times slower."""
    return Trial(
        ranks=ranks,
        seed=repeat,
        repeat=repeat,
        algorithm=AlgorithmSpec(kind=kind),
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

    def __post_init__(self) -> None:
        self.provenance = dict(PROVENANCE)
        self.progress = {"thread": False, "pairs": {}}

    def __getitem__(self, name: str) -> Any:
        return self.arrays[name]


def run(of: Trial, *, noise: float = 0.0, moments: int = 20) -> Toy:
    """Return the trace that the trial would leave on the toy cluster.

    `noise` stretches every second of the run, so that repeats differ.
    """
    stretch = 1.0 + noise
    own = np.full(of.ranks, COMPUTE)
    own[list(of.slowdown.ranks)] *= of.slowdown.factor
    waits = of.algorithm.kind == "allreduce"
    extra = MOVING + MIXING + OTHER
    step = (np.full(of.ranks, own.max()) if waits else own) + extra
    step = step * stretch
    seconds = of.budget.seconds or 1.0
    steps = np.maximum((seconds / step).astype(int), 1)
    arrays = {name: np.full(0, np.nan) for name in trace.VARIABLES}
    spans = {
        "compute": np.full(of.ranks, COMPUTE),
        "injected": own - COMPUTE,
        "waiting": step / stretch - extra - own,
        "moving": np.full(of.ranks, MOVING),
        "mixing": np.full(of.ranks, MIXING),
        "copying": np.zeros(of.ranks),
        "other": np.full(of.ranks, OTHER),
        "hidden": np.zeros(of.ranks),
        "flushing": np.zeros(of.ranks),
        "duration": step / stretch,
    }
    for name, each in spans.items():
        arrays[name] = _padded(each * stretch, steps)
    others = np.arange(of.ranks) != 0
    arrays["waited_for"] = _padded(np.where(waits & others, 0.0, np.nan), steps)
    arrays["staleness"] = _padded(np.full(of.ranks, 0.0 if waits else 1.5), steps)
    arrays["bytes_out"] = _padded(np.full(of.ranks, MESSAGE), steps)
    arrays["messages_out"] = _padded(np.ones(of.ranks), steps)
    arrays["steps_done"] = steps.astype(float)
    arrays["samples_done"] = steps * float(BATCH)
    arrays["elapsed"] = steps * step
    arrays["exchanges"] = np.diag(np.zeros(of.ranks) if waits else steps * 1.0)
    times = np.linspace(0.0, seconds, moments)
    arrays["moment_time"] = times
    arrays["loss_of_mean"] = 2.3 * np.exp(-times * np.sum(BATCH / step) / FALL)
    arrays["accuracy_of_mean"] = 1.0 - arrays["loss_of_mean"] / 2.4
    arrays["replica_distance"] = np.zeros(moments) if waits else 0.1 + 0.0 * times
    status = "exhausted"
    if (arrays["loss_of_mean"] <= (of.measure.target_loss or 0.0)).any():
        status = "reached"
    return Toy(of, arrays, status)


def save(toy: Toy, study: Path) -> Path:
    """Write a trial's folder as a finished run leaves it; return the folder."""
    folder = study / toy.trial.id
    folder.mkdir(parents=True)
    Job(study.name, toy.trial, Machine()).write(folder / "job.json")
    with h5py.File(folder / "trace.h5", "w") as file:
        for name, values in toy.arrays.items():
            file[name] = values
        file.attrs.update(
            dsgd_schema_version=trace.SCHEMA,
            dsgd_trial=toy.trial.to_json(),
            dsgd_trial_id=toy.trial.id,
            dsgd_study=study.name,
            dsgd_provenance=json.dumps(toy.provenance),
            dsgd_progress=json.dumps(toy.progress),
            dsgd_epoch_samples=toy.epoch_samples,
            dsgd_fabric=toy.fabric,
            dsgd_status=toy.status,
            dsgd_reason=toy.reason,
            dsgd_counts="{}",
        )
    (folder / "READY").touch()
    return folder


def _padded(each: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return one row per rank: its value in every step it took, then NaN."""
    taken = np.arange(steps.max()) < steps[:, None]
    return np.where(taken, each[:, None], np.nan)
