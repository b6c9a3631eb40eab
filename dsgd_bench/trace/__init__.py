"""The record of a trial: one shard per rank while it runs, one trace file after.

Every rank appends to an HDF5 file of its own and flushes it twice a second, from a
thread, so a kill costs at most the last half second. `merge` makes one netCDF-4
compatible file of the shards, with dimension scales and units, that opens in h5py and
in ``xarray.open_dataset(path, engine="h5netcdf")``.
"""

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dsgd_bench.config import Trial
from dsgd_bench.errors import TraceError
from dsgd_bench.trace import checkpoint
from dsgd_bench.trace.memory import Packed, ShardKeeper
from dsgd_bench.trace.merging import merge, write_trace
from dsgd_bench.trace.shard import Facts, Shard, ShardWriter, shard_path
from dsgd_bench.trace.variables import PAIR, SCHEMA, STEP, VARIABLES

__all__ = [
    "SCHEMA",
    "VARIABLES",
    "Facts",
    "Packed",
    "Shard",
    "ShardKeeper",
    "ShardWriter",
    "Trace",
    "checkpoint",
    "fabric_of",
    "hdf5",
    "merge",
    "open_trace",
    "shard_path",
    "write_trace",
]


class Trace:
    """A merged trace, read into memory, but for what there is of pairs of ranks.

    Attributes
    ----------
    path : Path
        Where it lies.
    trial : Trial
        What was run.
    study, status, reason, fabric : str
        As written in the file.
    provenance, progress, counts : dict
        As written in the file.
    staleness : str
        What the variable of that name means: a key of `algorithms.base.STALENESS`.
    interruptions : list of dict
        When and where the trial was stopped, to go on later.
    epoch_samples, model_bytes : int
        Samples of one epoch; size of one model or gradient, 0 if the file lacks it.
    optimum : float or None
        Lowest training loss, where it is known.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with h5py.File(path, "r", locking=False) as file:
                facts = dict(file.attrs)
                self._arrays = {
                    name: file[name][()]
                    for name, (dimensions, _, _) in VARIABLES.items()
                    if name in file and dimensions != PAIR
                }
        except FileNotFoundError:
            raise TraceError(
                f"{path} does not exist: name a trace.h5 that dsgd-bench has written"
            ) from None
        except OSError as error:
            raise TraceError(f"{path} cannot be read ({error}): run again") from None
        if facts.get("dsgd_schema_version") != SCHEMA:
            raise TraceError(
                f"{path} has schema {facts.get('dsgd_schema_version', 'none')}, this "
                f"version of dsgd-bench reads {SCHEMA}: run again"
            )
        self.trial = Trial.from_json(facts["dsgd_trial"])
        self.study = str(facts["dsgd_study"])
        self.status = str(facts["dsgd_status"])
        self.reason = str(facts["dsgd_reason"])
        self.fabric = str(facts["dsgd_fabric"])
        self.provenance: dict[str, Any] = json.loads(facts["dsgd_provenance"])
        self.progress: dict[str, Any] = json.loads(facts["dsgd_progress"])
        self.counts: dict[str, int] = json.loads(facts["dsgd_counts"])
        self.interruptions: list[dict[str, Any]] = json.loads(
            facts.get("dsgd_interruptions", "[]")
        )
        self.staleness = str(facts["dsgd_staleness"])
        self.epoch_samples = int(facts["dsgd_epoch_samples"])
        self.model_bytes = int(facts.get("dsgd_model_bytes", 0))
        lowest = facts.get("dsgd_optimum")
        self.optimum = None if lowest is None else float(lowest)

    def __getitem__(self, name: str) -> NDArray[Any]:
        if VARIABLES.get(name, (STEP,))[0] != PAIR:
            values: NDArray[Any] = self._arrays[name]
            return values
        with h5py.File(self.path, "r", locking=False) as file:
            return np.asarray(file[name])


def open_trace(path: str | os.PathLike[str]) -> Trace:
    """Read a merged trace.

    Raises
    ------
    TraceError
        If the file is missing, truncated, or of another schema.
    """
    return Trace(Path(path))


def fabric_of(path: Path) -> str:
    """Return ``"mpi"`` or ``"virtual"``; nothing if the file cannot tell."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return str(file.attrs["dsgd_fabric"])
    except (OSError, KeyError):
        return ""


def hdf5() -> tuple[str, bool]:
    """Return the versions of h5py and HDF5, and whether it is the parallel build."""
    versions = f"h5py {h5py.version.version} with HDF5 {h5py.version.hdf5_version}"
    return versions, bool(h5py.get_config().mpi)
