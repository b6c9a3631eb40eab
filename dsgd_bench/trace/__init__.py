"""The record of a trial: one shard per rank while it runs, one trace file after.

Every rank appends to an HDF5 file of its own and flushes it twice a second, from a
thread, so a kill costs at most the last half second. `merge` makes one netCDF-4
compatible file of the shards, with dimension scales and units, that opens in h5py and
in ``xarray.open_dataset(path, engine="h5netcdf")``.
"""

import json
import os
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import h5py
import msgspec
import numpy as np
from numpy.typing import NDArray

from dsgd_bench.config import identity
from dsgd_bench.errors import TraceError
from dsgd_bench.io.escape import plain
from dsgd_bench.io.trial_folder import TRACE
from dsgd_bench.spec.trial import Trial
from dsgd_bench.trace import checkpoint, earlier, reading, shapes
from dsgd_bench.trace.memory import Packed, ShardKeeper
from dsgd_bench.trace.merging import merge, write_trace
from dsgd_bench.trace.shard import Facts, Shard, ShardWriter
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
    "write_trace",
]

FABRICS = ("mpi", "virtual")
STATUSES = ("reached", "exhausted", "diverged", "crashed")

Kind = TypeVar("Kind")


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
        What the variable of that name means: a key of `algorithms.facts.STALENESS`.
    interruptions : list of dict
        When and where the trial was stopped, to go on later.
    epoch_samples, model_bytes : int
        Samples of one epoch; size of one model or gradient, 0 if the file lacks it.
    optimum : float or None
        Lowest training loss, where it is known.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise TraceError(
                f"{path} does not exist: name a {TRACE} that dsgd-bench has written"
            )
        with reading.opened(path) as file:
            schema = file.attrs.get("dsgd_schema_version", "none")
            if schema not in earlier.READABLE:
                raise TraceError(
                    f"{path} has schema {plain(str(schema))}, this version of "
                    f"dsgd-bench reads 1 to {SCHEMA}: run again"
                )
            self._read_facts(dict(file.attrs))
            items = earlier.named(file, int(schema))
            shapes.check(items, self.trial.ranks)
            self._arrays = {
                name: np.asarray(item[()], np.float64)
                for name, item in items.items()
                if VARIABLES[name][0] != PAIR
            }
            kind = self.trial.algorithm.kind
            earlier.complete(self._arrays, int(schema), self.trial.ranks, kind)

    def _read_facts(self, facts: dict[str, Any]) -> None:
        self.trial = identity.today(Trial.from_json(facts["dsgd_trial"]))
        self.study = str(facts["dsgd_study"])
        self.status = str(facts["dsgd_status"])
        self.reason = str(facts["dsgd_reason"])
        self.fabric = str(facts["dsgd_fabric"])
        self.provenance = _decoded(facts["dsgd_provenance"], dict[str, Any])
        self.progress = _decoded(facts["dsgd_progress"], dict[str, Any])
        self.counts = _decoded(facts["dsgd_counts"], dict[str, int])
        self.interruptions = _decoded(
            facts.get("dsgd_interruptions", "[]"), list[dict[str, Any]]
        )
        if (self.fabric, self.status) not in product(FABRICS, STATUSES):
            raise ValueError("its dsgd_fabric or dsgd_status is none of ours")
        kind = self.trial.algorithm.kind
        self.staleness = str(facts.get("dsgd_staleness", earlier.family(kind)))
        self.epoch_samples = int(facts["dsgd_epoch_samples"])
        self.model_bytes = int(facts.get("dsgd_model_bytes", 0))
        lowest = facts.get("dsgd_optimum")
        self.optimum = None if lowest is None else float(lowest)
        if self.epoch_samples < 1 or self.model_bytes < 0:
            raise ValueError("its epoch has no samples, or its model no bytes")

    def __getitem__(self, name: str) -> NDArray[Any]:
        if VARIABLES.get(name, (STEP,))[0] != PAIR:
            if name not in self._arrays:
                raise TraceError(f"{self.path} lacks the variable {name}: run again")
            return self._arrays[name]
        with reading.opened(self.path) as file:
            if name not in file:
                raise TraceError(f"{self.path} lacks the variable {name}: run again")
            return reading.array(file[name])


def open_trace(path: str | os.PathLike[str]) -> Trace:
    """Read a merged trace.

    Raises
    ------
    TraceError
        If the file is missing, damaged, or of a later schema, or its variables are not
        of one number of ranks, steps and evaluation points.
    """
    return Trace(Path(path))


def _decoded(text: Any, kind: type[Kind]) -> Kind:
    """Return what a text in JSON says, if it is of a kind.

    Earlier versions wrote halves of letters into it, see `escape.utf8`.
    """
    return msgspec.convert(json.loads(text), kind)


def fabric_of(path: Path) -> str:
    """Return ``"mpi"`` or ``"virtual"``; nothing if the file cannot tell."""
    try:
        with reading.opened(path) as file:
            name = str(file.attrs["dsgd_fabric"])
    except TraceError:
        return ""
    return name if name in FABRICS else ""


def hdf5() -> tuple[str, bool]:
    """Return the versions of h5py and HDF5, and whether it is the parallel build."""
    versions = f"h5py {h5py.version.version} with HDF5 {h5py.version.hdf5_version}"
    return versions, bool(h5py.get_config().mpi)
