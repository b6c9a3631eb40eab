"""From the shards of the ranks to one netCDF-4 compatible file."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dsgd_bench.errors import TraceError
from dsgd_bench.fabric.columns import COLUMNS, SPANS
from dsgd_bench.host import placement
from dsgd_bench.host.placement import Arranged
from dsgd_bench.io import files
from dsgd_bench.io.trial_folder import SHARDS, TRACE, rank_of, shards_in
from dsgd_bench.spec.trial import Trial
from dsgd_bench.trace import disk, reading
from dsgd_bench.trace.judgments import Judgments
from dsgd_bench.trace.shard import Shard
from dsgd_bench.trace.staleness import staleness
from dsgd_bench.trace.variables import PAIR, RANK, SCHEMA, STEP, VARIABLES

AGAIN = "run the trial again"

LARGE, RANKS_PER_SHARD = 2**24, 8
"""Numbers of a trace that are held in memory in any case; ranks per shard that is
readable, beyond which no larger trace is."""

PACKED = {"compression": "gzip", "shuffle": True}

Arrays = dict[str, NDArray[np.float64]]
"""Variables by name, as they will be stored."""


def merge(folder: Path, *, crashed: str = "") -> Path:
    """Make ``trace.h5`` of the shards in `folder`; return its path.

    Parameters
    ----------
    folder : Path
        The trial's folder.
    crashed : str
        Why the run ended, if it did not end by itself.

    Raises
    ------
    TraceError
        If not a single shard can be read, they are not of one trial, or the file cannot
        be written.
    """
    with reading.reading(folder, AGAIN):
        return _merge(folder, crashed)


def _merge(folder: Path, crashed: str) -> Path:
    shards, missing = _read_shards(folder)
    if missing and not crashed:
        raise TraceError(
            f"no readable shard of rank {', '.join(map(str, missing))} in {folder}: "
            "is it on a file system that all ranks share?"
        )
    return write_trace(folder, shards, crashed=crashed)


def write_trace(folder: Path, shards: dict[int, Shard], *, crashed: str = "") -> Path:
    """Make ``trace.h5`` of shards that are in memory; return its path.

    Parameters
    ----------
    folder : Path
        The trial's folder.
    shards : dict of int to Shard
        The shards of ranks, at least one.
    crashed : str
        Why the run ended, if it did not end by itself.

    Raises
    ------
    TraceError
        If the file cannot be written.
    """
    facts = next(iter(shards.values())).facts
    arrays = _assemble(shards, facts)
    status, reason = _status(arrays, Trial.from_json(json.dumps(facts["trial"])))
    attributes = {
        "Conventions": "CF-1.11",
        "title": f"dsgd_bench trace of study {facts['study']}",
        "source": "dsgd_bench",
        "dsgd_schema_version": SCHEMA,
        "dsgd_trial": json.dumps(facts["trial"]),
        "dsgd_trial_id": folder.name,
        "dsgd_study": facts["study"],
        "dsgd_provenance": json.dumps(facts["provenance"]),
        "dsgd_progress": json.dumps(facts["progress"]),
        "dsgd_epoch_samples": facts["epoch_samples"],
        "dsgd_fabric": facts["fabric"],
        "dsgd_staleness": facts["staleness"],
        "dsgd_model_bytes": facts["model_bytes"],
        "dsgd_status": "crashed" if crashed else status,
        "dsgd_reason": crashed or reason,
        "dsgd_counts": json.dumps(_sum_counts(shards)),
        "dsgd_interruptions": json.dumps(next(iter(shards.values())).interruptions),
    }
    if (optimum := facts.get("optimum")) is not None:
        attributes["dsgd_optimum"] = optimum
    path = folder / TRACE
    try:
        with files.replacing(path) as scratch:
            _write(scratch, arrays, _exchanges(shards), attributes)
            reading.seal(scratch)
    except OSError as error:
        raise TraceError(
            f"cannot write {path} ({disk.why(error)}): free some space there, or "
            "choose another --results folder"
        ) from None
    return path


def _read_shards(folder: Path) -> tuple[dict[int, Shard], list[int]]:
    """Read every shard that can be read; name the ranks whose shard cannot."""
    shards: dict[int, Shard] = {}
    for path in sorted(shards_in(folder)):
        if (rank := rank_of(path)) is not None:
            with suppress(TraceError):  # counted as missing below
                shards[rank] = Shard.read(path)
    if not shards:
        raise TraceError(f"there is no readable shard {SHARDS} in {folder}: run again")
    facts = next(iter(shards.values())).facts
    ranks = int(facts["trial"]["ranks"])
    strange = any(_trial(shard.facts) != _trial(facts) for shard in shards.values())
    if strange or max(shards) >= ranks:
        raise TraceError(f"shards {SHARDS} in {folder} are not of one trial: {AGAIN}")
    _check_size(shards, ranks)
    return shards, [rank for rank in range(ranks) if rank not in shards]


def _trial(facts: dict[str, Any]) -> list[Any]:
    """Return what the ranks of one trial agree on: rank 0 alone knows all the rest."""
    return [facts[name] for name in ("trial", "study", "fabric", "servers")]


def _check_size(shards: dict[int, Shard], ranks: int) -> None:
    """Refuse far more ranks than have left a shard: that number must be damaged."""
    steps = max(shard.steps for shard in shards.values())
    numbers = ranks * max(steps, 1) * len(COLUMNS)
    if numbers > LARGE and ranks > RANKS_PER_SHARD * len(shards):
        raise ValueError(f"the trial has {ranks} ranks, and {len(shards)} left a shard")


def _sum_counts(shards: dict[int, Shard]) -> dict[str, int]:
    total: dict[str, int] = {}
    for shard in shards.values():
        for name, count in shard.counts.items():
            total[name] = total.get(name, 0) + count
    return total


def _assemble(shards: dict[int, Shard], facts: dict[str, Any]) -> Arrays:
    """Stack the ranks' columns, padded with NaN, on the common clock."""
    ranks = facts["trial"]["ranks"]
    steps = max(shard.steps for shard in shards.values())
    arrays = {name: np.full((ranks, steps), np.nan) for name in COLUMNS}
    late = _lateness(shards)
    for rank, shard in shards.items():
        for name, column in shard.columns.items():
            on_clock = name in ("start", "meeting_start", "meeting_end")
            arrays[name][rank, : shard.steps] = column + late[rank] * on_clock
    _split_meetings(arrays)
    arrays["staleness"] = staleness(facts["staleness"], arrays)
    spent = sum(arrays[name] for name in SPANS)
    arrays["other"] = arrays["duration"] - spent
    _add_ranks(arrays, shards, ranks)
    _add_places(arrays, placement.read(facts["provenance"].get("placement")))
    arrays["serves"] = np.zeros(ranks)
    arrays["serves"][ranks - facts["servers"] :] = 1.0
    _add_moments(arrays, shards, ranks)
    return arrays


def _lateness(shards: dict[int, Shard]) -> dict[int, NDArray[np.float64]]:
    """Return for every step of each rank how much later than the first its clock began.

    A trial that was stopped and went on consists of several runs.
    """
    late = {rank: np.zeros(shard.steps) for rank, shard in shards.items()}
    for runs in zip(*(shard.segments for shard in shards.values()), strict=False):
        zero = min((at for _, at in runs if np.isfinite(at)), default=0.0)
        for rank, (first, at) in zip(shards, runs, strict=True):
            late[rank][first:] = at - zero if np.isfinite(at) else 0.0
    return late


def _split_meetings(arrays: Arrays) -> None:
    """Divide the time in collectives into waiting for the last rank and transfer."""
    entered, left = arrays.pop("meeting_start"), arrays.pop("meeting_end")
    met = np.isfinite(entered).all(axis=0)
    if not met.any():
        return
    last = np.where(met, entered, 0.0).argmax(axis=0)
    latest = np.where(met, entered[last, np.arange(len(last))], np.nan)
    waited = np.clip(latest - entered, 0.0, left - entered)
    waited[:, ~met] = 0.0
    arrays["waiting"] += waited
    arrays["transfer"] -= waited
    late = (waited > 0) & met
    arrays["waited_for"] = np.where(late, last, arrays["waited_for"])


def _add_ranks(arrays: Arrays, shards: dict[int, Shard], ranks: int) -> None:
    names = [name for name, (dims, _, _) in VARIABLES.items() if dims == RANK]
    for name in names:
        arrays[name] = np.full(ranks, np.nan)
    for rank, shard in shards.items():
        columns = shard.columns
        arrays["steps_done"][rank] = shard.steps
        arrays["samples_done"][rank] = columns["samples"].sum()
        if shard.steps:
            arrays["elapsed"][rank] = columns["start"][-1] + columns["duration"][-1]
        arrays["clock_offset_start"][rank] = shard.offset_start[0]
        arrays["clock_offset_end"][rank] = shard.offset_end[0]
        arrays["clock_error"][rank] = max(shard.offset_start[1], shard.offset_end[1])
        for name, value in shard.drained.items():
            arrays[name][rank] = value


def _exchanges(shards: dict[int, Shard]) -> dict[int, NDArray[np.int64]]:
    """Return the pairs of (partner, count) of every rank that started exchanges."""
    found = {rank: shard.data.get("exchanges", ()) for rank, shard in shards.items()}
    return {rank: np.asarray(pairs) for rank, pairs in found.items() if len(pairs)}


def _add_places(arrays: Arrays, places: Sequence[Arranged]) -> None:
    """Note where each rank ran; the cores themselves are in the provenance."""
    for rank, place in enumerate(places):
        arrays["node"][rank] = place.node
        arrays["node_rank"][rank] = place.node_rank
        arrays["node_ranks"][rank] = place.node_ranks
        arrays["shares_core"][rank] = float(place.shares)


def _add_moments(arrays: Arrays, shards: dict[int, Shard], ranks: int) -> None:
    complete = {rank: shard for rank, shard in shards.items() if shard.complete}
    whole = len(complete) == ranks
    count = len(complete[0].data["copy_time"]) if whole else 0
    stacked = {
        name: np.array([complete[rank].data[name] for rank in range(ranks)])
        if whole
        else np.full((ranks, 0), np.nan)
        for name in (field.name for field in fields(Judgments))
    }
    for name in ("copy_time", "local_loss", "local_accuracy"):
        arrays[name] = stacked[name]
    evaluated_by = np.arange(count) % ranks
    for name in ("loss_of_mean", "accuracy_of_mean", "norm_of_mean"):
        arrays[name] = stacked[name][evaluated_by, np.arange(count)]
    works, evaluated = arrays["serves"] == 0, arrays["serves"] == arrays["serves"].max()
    squared = stacked["distance_squared"][works].mean(0)
    # below zero only in a damaged shard: kept as it is for verification to refuse
    arrays["consensus_distance"] = np.copysign(np.sqrt(np.abs(squared)), squared)
    arrays["moment_time"] = np.median(stacked["copy_time"][evaluated], axis=0)
    arrays["moment_samples"] = np.zeros(count)
    for shard in complete.values() if whole else ():
        arrays["moment_samples"] += _samples_copied(shard)


def _samples_copied(shard: Shard) -> NDArray[np.float64]:
    """Return the samples in a rank's snapshots, shape (points,), on its own clock.

    Snapshots are taken between steps: those whose middle lies before are in them.
    """
    columns = shard.columns
    middles = columns["start"] + columns["duration"] / 2
    steps = np.searchsorted(middles, shard.data["copy_time"])
    return np.append(0.0, np.cumsum(columns["samples"]))[steps]


def _status(arrays: Arrays, trial: Trial) -> tuple[str, str]:
    loss, accuracy = arrays["loss_of_mean"], arrays["accuracy_of_mean"]
    if len(loss) == 0:
        return "crashed", "the models were not evaluated"
    if not np.isfinite(loss[-1]):
        return "diverged", "the loss of the average model is not finite"
    measure = trial.measure
    hit = np.zeros(len(loss), bool)
    if measure.target_loss is not None:
        hit |= loss <= measure.target_loss
    if measure.target_accuracy is not None:
        hit |= accuracy >= measure.target_accuracy
    if hit.any():
        return "reached", f"target reached after {arrays['moment_time'][hit][0]:.3g} s"
    return "exhausted", "the budget was used up"


def _write(
    path: Path,
    arrays: Arrays,
    exchanges: dict[int, NDArray[np.int64]],
    attributes: dict[str, Any],
) -> None:
    """Write a netCDF-4 compatible file: dimension scales, units, fill values."""
    ranks, steps = arrays["start"].shape
    sizes = {
        "rank": ranks,
        "partner": ranks,
        "step": steps,
        "moment": arrays["moment_time"].shape[0],
    }
    with disk.written(path) as file:
        file.attrs.update(attributes)
        for name, size in sizes.items():
            file[name] = np.arange(size)
            file[name].make_scale(name)
            file[name].attrs["units"] = "1"
            file[name].attrs["long_name"] = name
        for name, (dims, units, meaning) in VARIABLES.items():
            if dims == PAIR:
                variable = _pairs(file, name, exchanges, ranks)
            else:
                packed = PACKED if dims == STEP and arrays[name].size else {}
                variable = file.create_dataset(
                    name, data=arrays[name], fillvalue=np.nan, **packed
                )
            variable.attrs["units"] = units
            variable.attrs["long_name"] = meaning
            for axis, dim in enumerate(dims):
                variable.dims[axis].attach_scale(file[dim])


def _pairs(
    file: h5py.File, name: str, pairs: dict[int, NDArray[np.int64]], ranks: int
) -> h5py.Dataset:
    """Write what ranks have in pairs, row by row: of thousands, most have nothing."""
    variable = file.create_dataset(
        name, (ranks, ranks), np.float64, chunks=(1, ranks), fillvalue=0.0, **PACKED
    )
    for rank, found in pairs.items():
        row = np.zeros(ranks)
        row[found[:, 0]] = found[:, 1]
        variable[rank] = row
    return variable
