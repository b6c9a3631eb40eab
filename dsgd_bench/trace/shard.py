"""The record of one rank while it runs: an HDF5 file, flushed twice a second."""

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from dsgd_bench import clock
from dsgd_bench.config import Trial
from dsgd_bench.errors import TraceError
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.judge import Judgments

FLUSH_PERIOD = 0.5
"""Seconds between two flushes of a shard."""


@dataclass(frozen=True)
class Facts:
    """What a trace says about its trial before the first step.

    Attributes
    ----------
    trial : Trial
        What was run.
    study : str
        Name of its study.
    provenance : dict
        Where and with what it was run.
    progress : dict
        Whether a computing target answers: the preflight's verdict.
    epoch_samples : int
        Samples of one epoch.
    fabric : str
        ``"mpi"`` or ``"virtual"``.
    servers : int
        How many of the ranks, the last ones, are parameter servers.
    staleness : str
        What staleness means for this algorithm: a key of `algorithms.base.STALENESS`.
    model_bytes : int
        Size of one model or gradient.
    """

    trial: Trial
    study: str
    provenance: dict[str, Any]
    progress: dict[str, Any]
    epoch_samples: int
    fabric: str
    servers: int
    staleness: str
    model_bytes: int


def shard_path(folder: Path, rank: int) -> Path:
    """Return where `rank` records its steps."""
    return folder / f"rank-{rank:04d}.h5"


class ShardWriter:
    """The record of one rank while it runs.

    Parameters
    ----------
    folder : Path
        The trial's folder.
    fabric : Fabric
        This rank; its ledger is what is written.
    facts : Facts
        Written first, so that a killed run explains itself.

    Raises
    ------
    TraceError
        If the file cannot be made or written.
    """

    def __init__(self, folder: Path, fabric: Fabric, facts: Facts) -> None:
        self._ledger, self._rank = fabric.ledger, fabric.rank
        self._threaded = fabric.kind == "mpi"
        self._path = shard_path(folder, fabric.rank)
        self._error: OSError | None = None
        self._ended = threading.Event()
        columns = len(clock.COLUMNS)
        with self._explained():
            self._file = h5py.File(self._path, "w", locking=False)
            self._file.attrs["facts"] = json.dumps(
                asdict(facts) | {"trial": json.loads(facts.trial.to_json())}
            )
            self._rows = self._file.create_dataset(
                "rows", (0, columns), float, maxshape=(None, columns), chunks=True
            )
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._explained():
            self._file.close()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Flush the ledger's rows twice a second, beside the block, and at its end."""
        thread = threading.Thread(target=self._flush_often, daemon=True)
        if self._threaded:
            thread.start()
        yield
        self._ended.set()
        if self._threaded:
            thread.join()
        with self._explained():
            if self._error is not None:
                raise self._error
            self._write_rows()
            self._file.attrs["origin"] = self._ledger.origin

    def _flush_often(self) -> None:
        while not self._ended.wait(FLUSH_PERIOD) and self._error is None:
            started = clock.monotonic()
            try:
                self._write_rows()
            except OSError as error:  # raised again where the training thread sees it
                self._error = error
                print(self._explain(error), file=sys.stderr, flush=True)
            self._ledger.flushing += clock.monotonic() - started

    def _write_rows(self) -> None:
        rows = self._ledger.rows
        count = len(rows)  # the training thread may append meanwhile
        if count:
            before = self._rows.shape[0]
            self._rows.resize(before + count, axis=0)
            self._rows[before:] = rows[:count]
            self._file.flush()
            del rows[:count]

    def finish(
        self,
        judgments: Judgments,
        offset_start: tuple[float, float],
        offset_end: tuple[float, float],
    ) -> None:
        """Write what is known after the run: judgments, clock offsets, counts."""
        ledger = self._ledger
        with self._explained():
            for field in fields(judgments):
                self._file[field.name] = getattr(judgments, field.name)
            self._file.attrs["offset_start"] = offset_start
            self._file.attrs["offset_end"] = offset_end
            self._file.attrs["counts"] = json.dumps(ledger.counts)
            pairs = np.array(sorted(ledger.exchanges.items()), np.int64).reshape(-1, 2)
            self._file["exchanges"] = pairs
            self._file.flush()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TraceError(self._explain(error)) from None

    def _explain(self, error: OSError) -> str:
        why = os.strerror(error.errno) if error.errno else error
        return (
            f"rank {self._rank} cannot write its trace to {self._path} "
            f"({why}): free some space there, or choose another --results folder"
        )


class Shard:
    """One rank's record, as far as it was flushed; read into memory."""

    def __init__(self, path: Path) -> None:
        with h5py.File(path, "r", locking=False) as file:
            self.facts: dict[str, Any] = json.loads(file.attrs["facts"])
            rows = file["rows"][()]
            self.columns = dict(zip(clock.COLUMNS, rows.T, strict=True))
            self.steps = len(rows)
            self.data = {name: file[name][()] for name in file if name != "rows"}
            self.counts: dict[str, int] = json.loads(file.attrs.get("counts", "{}"))
            self.offset_start = tuple(file.attrs.get("offset_start", (0.0, 0.0)))
            self.offset_end = tuple(file.attrs.get("offset_end", (0.0, 0.0)))
            self.origin = float(file.attrs.get("origin", np.nan))

    @property
    def complete(self) -> bool:
        """Whether the run was judged: the last thing that is written."""
        return "exchanges" in self.data
