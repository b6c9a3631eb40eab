"""The record of one rank while it runs: an HDF5 file, flushed twice a second."""

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import h5py
import msgspec
import numpy as np
from numpy.typing import NDArray

from dsgd_bench.errors import TraceError
from dsgd_bench.fabric import ledger
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.preflight import Verdict
from dsgd_bench.io.escape import utf8
from dsgd_bench.io.trial_folder import shard_of
from dsgd_bench.spec.trial import Trial
from dsgd_bench.trace import reading
from dsgd_bench.trace.checkpoint import Checkpoint
from dsgd_bench.trace.disk import Disk, why
from dsgd_bench.trace.judgments import Judgments

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
    progress : Verdict
        Whether a computing target answers, as the preflight found.
    epoch_samples : int
        Samples of one epoch.
    fabric : str
        ``"mpi"`` or ``"virtual"``.
    servers : int
        How many of the ranks, the last ones, are parameter servers.
    staleness : str
        What staleness means for this algorithm: a key of `algorithms.facts.STALENESS`.
    model_bytes : int
        Size of one model or gradient.
    optimum : float or None
        Lowest training loss, where it is known.
    """

    trial: Trial
    study: str
    provenance: dict[str, Any]
    progress: Verdict
    epoch_samples: int
    fabric: str
    servers: int
    staleness: str
    model_bytes: int
    optimum: float | None = None

    def table(self) -> dict[str, Any]:
        """Return the facts as JSON can hold them."""
        table: dict[str, Any] = utf8(
            asdict(self)
            | {
                "trial": json.loads(self.trial.to_json()),
                "progress": msgspec.to_builtins(self.progress),
            }
        )
        return table


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
    before : Checkpoint, optional
        The run so far, which the record begins with.

    Attributes
    ----------
    drained : dict
        `Ledger.drained`, where the run came to its end; set before `finish`.

    Raises
    ------
    TraceError
        If the file cannot be made or written.
    """

    def __init__(
        self,
        folder: Path,
        fabric: Fabric,
        facts: Facts,
        before: Checkpoint | None = None,
    ) -> None:
        columns = len(ledger.COLUMNS)
        empty = np.zeros((0, columns))
        self._before = before or Checkpoint(0, 0.0, {}, {}, empty)
        self._ledger, self._rank = fabric.ledger, fabric.rank
        self._threaded = fabric.kind == "mpi"
        self._path = shard_of(folder, fabric.rank)
        self.drained: dict[str, float] = {}
        self._ended = threading.Event()
        with self._explained():
            self._disk = Disk(self._path)
            self._file = h5py.File(self._disk, "w")
            self._file.attrs["facts"] = json.dumps(facts.table())
            self._file.attrs["rank"] = self._rank
            self._file.attrs["segments"] = json.dumps(self._before.segments)
            self._file.attrs["first_row"] = len(self._before.rows)
            self._file.attrs["interruptions"] = json.dumps(self._before.interruptions)
            self._rows = self._file.create_dataset(
                "rows", data=self._before.rows, maxshape=(None, columns), chunks=True
            )
            self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._explained(), self._disk:
            self._file.close()
            self._disk.check()
            if exception[0] is None:
                reading.seal(self._path)

    def _flush(self) -> None:
        """Hand all over to the system, or raise what kept earlier things from it."""
        self._file.flush()
        self._disk.check()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Flush the ledger's rows twice a second, beside the block, and at its end."""
        self._ledger.rows.clear()  # the warm-up's: making windows may outlast a flush
        thread = threading.Thread(target=self._flush_often, daemon=True)
        if self._threaded:
            thread.start()
        yield
        self._ended.set()
        if self._threaded:
            thread.join()
        if self._ledger.failure is not None:
            raise self._ledger.failure
        with self._explained():
            self._write_rows()
            self._file.attrs["origin"] = self._ledger.origin

    def _flush_often(self) -> None:
        while not self._ended.wait(FLUSH_PERIOD) and self._ledger.failure is None:
            started = ledger.monotonic()
            try:
                self._write_rows()
            except OSError as error:  # raised by the training thread, at its next step
                self._ledger.failure = TraceError(self._explain(error))
            self._ledger.flushing += ledger.monotonic() - started

    def _write_rows(self) -> None:
        rows = self._ledger.rows
        count = len(rows)  # the training thread may append meanwhile
        if count:
            before = self._rows.shape[0]
            self._rows.resize(before + count, axis=0)
            self._rows[before:] = rows[:count]
            self._flush()
            del rows[:count]

    def finish(
        self,
        judgments: Judgments,
        offset_start: tuple[float, float],
        offset_end: tuple[float, float],
    ) -> None:
        """Write what is known after the run: judgments, clock offsets, counts."""
        with self._explained():
            for each in fields(judgments):
                self._file[each.name] = getattr(judgments, each.name)
            self._file.attrs["offset_start"] = offset_start
            self._file.attrs["offset_end"] = offset_end
            self._file.attrs["drained"] = json.dumps(self._drained())
            self._file.attrs["counts"] = json.dumps(self._counts())
            pairs = np.array(sorted(self._exchanges().items()), np.int64)
            self._file["exchanges"] = pairs.reshape(-1, 2)
            self._flush()

    def checkpoint(
        self,
        arrays: Mapping[str, NDArray[Any]],
        copies: Mapping[str, NDArray[Any]],
        *,
        elapsed: float,
        origin: float,
        interruption: dict[str, Any],
    ) -> Checkpoint:
        """Return the run until now, to go on with later.

        Parameters
        ----------
        arrays, copies
            As in `Checkpoint`.
        elapsed : float
            Seconds until the last rank had stopped.
        origin : float
            Of this run, on rank 0's clock.
        interruption : dict
            When and where it was stopped.
        """
        before = self._before
        return Checkpoint(
            step=self._ledger.steps,
            elapsed=elapsed,
            arrays=dict(arrays),
            copies=dict(copies),
            rows=self._rows[()],
            segments=[*before.segments, (len(before.rows), origin)],
            counts=self._counts(),
            exchanges=self._exchanges(),
            interruptions=[*before.interruptions, interruption],
            drained=self._drained(),
        )

    def _drained(self) -> dict[str, float]:
        earlier = self._before.drained
        return {
            name: value + earlier.get(name, 0.0) for name, value in self.drained.items()
        }

    def _counts(self) -> dict[str, int]:
        return dict(self._ledger.counts + Counter(self._before.counts))

    def _exchanges(self) -> dict[int, int]:
        return dict(self._ledger.exchanges + Counter(self._before.exchanges))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TraceError(self._explain(error)) from None

    def _explain(self, error: OSError) -> str:
        return (
            f"rank {self._rank} cannot write its trace to {self._path} "
            f"({why(error)}): free some space there, or choose another --results folder"
        )


@dataclass(frozen=True)
class Shard:
    """One rank's record, in memory.

    Attributes
    ----------
    facts : dict
        `Facts.table` of the trial.
    rows : array of shape (steps, columns)
        Rows of the ledger.
    data : dict of str to array
        Judgments by name, and pairs of (partner, exchanges); empty if the run was not
        evaluated.
    counts : dict
        Of the ledger.
    offset_start, offset_end : (float, float)
        Of the clock from rank 0's, before and after the run, and their uncertainty.
    drained : dict
        `Ledger.drained`.
    segments : list of (int, float)
        Of every run: its first row, and its origin on rank 0's clock.
    interruptions : list of dict
        When and where the trial was stopped.
    """

    facts: dict[str, Any]
    rows: NDArray[np.float64]
    data: dict[str, NDArray[Any]]
    counts: dict[str, int]
    offset_start: tuple[float, float]
    offset_end: tuple[float, float]
    drained: dict[str, float]
    segments: list[tuple[int, float]]
    interruptions: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "Shard":
        """Read what a `ShardWriter` has flushed.

        Raises
        ------
        TraceError
            If the file is missing or damaged, or bears the name of another rank.
        """
        with reading.opened(path) as file:
            attributes = dict(file.attrs)
            owner = int(attributes["rank"])
            if shard_of(path.parent, owner) != path:
                raise ValueError(f"it is of rank {owner}")
            return cls._of(
                attributes, {name: reading.array(file[name]) for name in file}
            )

    @classmethod
    def _of(cls, attributes: dict[str, Any], data: dict[str, NDArray[Any]]) -> "Shard":
        def listed(name: str) -> Any:
            return json.loads(attributes.get(name, "[]"))

        rows = data.pop("rows")
        if rows.ndim != 2 or rows.shape[1] != len(ledger.COLUMNS):
            raise ValueError(f"its rows have the shape {rows.shape}")
        facts = json.loads(attributes["facts"])
        Trial.from_json(json.dumps(facts["trial"]))
        offset_start, offset_end = (
            (float(offset), float(error))
            for offset, error in (
                attributes.get(name, (0.0, 0.0))
                for name in ("offset_start", "offset_end")
            )
        )
        origin = float(attributes.get("origin", np.nan))
        origin -= (offset_start[0] + offset_end[0]) / 2  # on rank 0's clock
        first = int(attributes.get("first_row", 0))
        return cls(
            facts=facts,
            rows=rows.astype(np.float64, copy=False),
            data=data,
            counts=json.loads(attributes.get("counts", "{}")),
            offset_start=offset_start,
            offset_end=offset_end,
            drained=json.loads(attributes.get("drained", "{}")),
            segments=[*map(tuple, listed("segments")), (first, origin)],
            interruptions=listed("interruptions"),
        )

    @property
    def columns(self) -> dict[str, NDArray[np.float64]]:
        """The rows by what they tell, as views of shape (steps,)."""
        return dict(zip(ledger.COLUMNS, self.rows.T, strict=True))

    @property
    def steps(self) -> int:
        """How many rows there are."""
        return len(self.rows)

    @property
    def complete(self) -> bool:
        """Whether the run was evaluated: the last thing that is written."""
        return "exchanges" in self.data
