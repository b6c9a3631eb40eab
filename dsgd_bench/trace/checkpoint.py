"""What a stopped trial needs to go on: one HDF5 file per rank, all of them or none.

The ranks write into a folder beside the last checkpoint; once all are done, rank 0 puts
it in its place. So a kill at any moment leaves a whole checkpoint, or none at all.
"""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import numpy as np
from numpy.typing import NDArray

from dsgd_bench.errors import TraceError
from dsgd_bench.fabric.columns import COLUMNS
from dsgd_bench.io.trial_folder import TrialFolder, shard_of, shards_in
from dsgd_bench.trace import disk, reading

SCHEMA = 2
"""Version of the format; another one is not read."""

Arrays = dict[str, NDArray[Any]]


class Facts(TypedDict):
    """All of a `Checkpoint` that is no array."""

    step: int
    elapsed: float
    segments: list[tuple[int, float]]
    counts: dict[str, int]
    exchanges: dict[int, int]
    interruptions: list[dict[str, Any]]
    drained: dict[str, float]


@dataclass(frozen=True)
class Checkpoint:
    """One rank between two runs of one trial.

    Attributes
    ----------
    step : int
        Steps that this rank has taken.
    elapsed : float
        Seconds of the run until the last rank had stopped: the clock goes on there.
    arrays : dict of str to array
        What the algorithm, the optimizer and the random streams kept.
    copies : dict of str to array
        Snapshots of the model, as their `pack` gives them.
    rows : array of shape (steps, columns)
        Rows of the ledger.
    segments : list of (int, float)
        For every run so far: its first row, and its origin on rank 0's clock.
    counts, exchanges : dict
        Of the ledger.
    interruptions : list of dict
        When and where every run so far was stopped.
    drained : dict
        Of all runs so far: `Ledger.drained`, added up.
    """

    step: int
    elapsed: float
    arrays: Arrays
    copies: Arrays
    rows: NDArray[np.float64]
    segments: list[tuple[int, float]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    exchanges: dict[int, int] = field(default_factory=dict)
    interruptions: list[dict[str, Any]] = field(default_factory=list)
    drained: dict[str, float] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        """All that is no array, ready for JSON."""
        return {
            "schema": SCHEMA,
            "step": self.step,
            "elapsed": self.elapsed,
            "segments": self.segments,
            "counts": self.counts,
            "exchanges": list(self.exchanges.items()),
            "interruptions": self.interruptions,
            "drained": self.drained,
        }


def write(folder: Path, rank: int, checkpoint: Checkpoint, *, trial: str) -> None:
    """Write one rank's part; it counts once `publish` was called.

    Its file says which rank of which `trial` it is of, as files may be exchanged.

    Raises
    ------
    TraceError
        If it cannot be written.
    """
    path = shard_of(TrialFolder(folder).checkpoint_part, rank)
    try:
        path.parent.mkdir(exist_ok=True)
        with disk.written(path) as file:
            file.attrs["facts"] = json.dumps(checkpoint.facts)
            file.attrs["rank"], file.attrs["trial"] = rank, trial
            file["rows"] = checkpoint.rows
            for group in ("arrays", "copies"):
                for name, array in getattr(checkpoint, group).items():
                    file[f"{group}/{name}"] = array
        reading.seal(path)
    except OSError as error:
        with suppress(OSError):
            path.unlink()  # others may need the room to say what they have to
        raise TraceError(
            f"rank {rank} cannot write its checkpoint to {path} ({disk.why(error)}): "
            'free some space there, or set when_stopped = "rerun" in the machine file'
        ) from None


def publish(folder: Path) -> None:
    """Put what all ranks have written in the place of the last checkpoint.

    Raises
    ------
    TraceError
        If something else is in its way.
    """
    home = TrialFolder(folder)
    place, part, old = home.checkpoint, home.checkpoint_part, home.checkpoint_old
    try:
        if place.exists():
            remove(old)
            place.rename(old)
        part.rename(place)
    except OSError as error:
        raise TraceError(
            f"the checkpoint {part} cannot take the place of {place} "
            f"({error}): remove what dsgd-bench has not written there"
        ) from None
    remove(old)


def find(folder: Path) -> Path | None:
    """Return the folder of the last whole checkpoint of a trial, if there is one."""
    return next((place for place in _whole(folder) if place.is_dir()), None)


def _whole(folder: Path) -> tuple[Path, Path]:
    """Return where a whole checkpoint may lie in a trial's folder."""
    home = TrialFolder(folder)
    return home.checkpoint, home.checkpoint_old


def read(place: Path, rank: int, *, trial: str) -> Checkpoint:
    """Read one rank's part of the checkpoint that `find` found.

    Raises
    ------
    TraceError
        If it is missing, broken, of another version, or of another rank or trial.
    """
    path = shard_of(place, rank)
    again = f"remove {place} to run the trial from its start"
    with reading.opened(path, again) as file:
        facts = json.loads(file.attrs["facts"])
        if facts.pop("schema") != SCHEMA:
            raise TraceError(f"{path} is of another version of dsgd-bench: {again}")
        owner = str(file.attrs["trial"]), int(file.attrs["rank"])
        # an earlier version had another id for the trial, and called the folder by it
        if owner not in {(trial, rank), (place.parent.name, rank)}:
            raise ValueError(f"it is of rank {owner[1]} of trial {owner[0]}")
        rows = reading.array(file["rows"])
        if rows.ndim != 2 or rows.shape[1] != len(COLUMNS):
            raise ValueError(f"its rows have the shape {rows.shape}")
        arrays, copies = (
            {name: reading.array(file[group][name]) for name in file.get(group, ())}
            for group in ("arrays", "copies")
        )
        facts["exchanges"] = dict(facts["exchanges"])
        facts = msgspec.convert(facts, Facts)
        return Checkpoint(rows=rows, arrays=arrays, copies=copies, **facts)


def tidy(folder: Path) -> None:
    """Remove what there is of a checkpoint that was never whole."""
    remove(TrialFolder(folder).checkpoint_part)


def discard(folder: Path) -> None:
    """Remove every checkpoint of a trial; killed meanwhile, leave none or all of it."""
    part = TrialFolder(folder).checkpoint_part
    remove(part)
    for place in _whole(folder):
        with suppress(OSError):  # there is none
            place.rename(part)
        remove(part)


def remove(place: Path) -> None:
    """Remove one checkpoint, whole or in part; what is not of it stays, in its folder.

    Of a link the link is removed, and nothing of what it leads to.
    """
    with suppress(OSError):  # not there, or no folder, or not only ours is in it
        if place.is_symlink():
            place.unlink()
            return
        for path in shards_in(place):
            path.unlink()
        place.rmdir()
