"""The trials of a results folder: where they lie, which they are, what is ours.

A trial's folder ``RESULTS/STUDY/ID`` tells how far it is, see `io.trial_folder`:
``READY`` means finished, whatever else lies there; ``ERROR`` says in a sentence why it
failed, ``STOPPED`` that it was stopped on purpose and will go on; anything but
``READY`` is run (again). All verbs look at trials through here, so they count the same.
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import msgspec
from msgspec import Struct

from dsgd_bench.config.identity import trial_id
from dsgd_bench.errors import ConfigError, TraceError
from dsgd_bench.io import files
from dsgd_bench.io.trial_folder import BEGUN, JOB, TrialFolder
from dsgd_bench.spec.trial import Trial
from dsgd_bench.trace import checkpoint, reading

DEEP = 2
"""Levels of folders that are looked at behind a link: those of many studies."""

NAME = re.compile(r"[0-9a-f]{12}")
"""Names of folders that runs make, now and with every earlier meaning of an id."""


class Places:
    """Where the trials of one study lie, those of earlier versions included.

    A trial's folder is called by its id. Earlier versions had other ids for the same
    trials, so a folder that is there already is known by the trial inside it; what is
    finished there is not run again, and what is not goes on there.

    Attributes
    ----------
    home : Path
        Results of the study.
    """

    def __init__(self, home: Path) -> None:
        self.home = home

    def of(self, trial: Trial) -> TrialFolder:
        """Return the folder of a trial, whether it is there or not."""
        name = trial_id(trial)
        folder = self.home / name
        begun = any(os.path.lexists(folder / left) for left in BEGUN)
        return TrialFolder(folder if begun else self._earlier.get(name, folder))

    @cached_property
    def _earlier(self) -> Mapping[str, Path]:
        """Folders that are not called by the id of the trial in them, by that id."""
        with suppress(OSError):  # there is no such folder yet
            with os.scandir(self.home) as entries:
                folders = sorted(Path(entry) for entry in entries if entry.is_dir())
            ours = (path for path in folders if NAME.fullmatch(path.name))
            named = {path: id_of(TrialFolder(path)) for path in ours}
            return {name: path for path, name in named.items() if name != path.name}
        return {}


class _Asked(Struct):
    """The part of a `Job` that every version writes."""

    trial: Trial


def trial_in(folder: TrialFolder) -> Trial | None:
    """Return the trial that a folder is of: by its job, or else by its trace."""
    with suppress(OSError, ValueError, RecursionError):
        content = files.read_bytes(folder.job)
        return msgspec.json.decode(content, type=_Asked).trial
    with suppress(TraceError, ConfigError):
        if folder.trace.exists():
            with reading.opened(folder.trace) as file:
                return Trial.from_json(file.attrs["dsgd_trial"])
    return None


def id_of(folder: TrialFolder) -> str:
    """Return the id of the trial in a folder; if it cannot be read, the folder's name.

    Folders of finished trials that earlier versions made have other names.
    """
    trial = trial_in(folder)
    return folder.name if trial is None else trial_id(trial)


def find(folder: Path) -> list[TrialFolder]:
    """Return every folder of a trial in `folder` or below, by name, each of them once.

    Links are followed, as a run does, but not far: one may lead to a whole disk. Of the
    names of one folder the one without a link counts.

    Parameters
    ----------
    folder : Path
        Of one trial, of one study, or of many.
    """
    seen: set[tuple[int, int]] = set()
    near, behind = [(folder, -1)], list[tuple[Path, int]]()
    found = []  # of the levels that are left, fewer than 0 are as many as there are
    while near or behind:
        place, left = near.pop() if near else behind.pop(0)
        try:
            status = place.stat()
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError:
            continue  # a link to nowhere, or a folder that was just removed
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        if {entry.name for entry in entries} & BEGUN:
            found.append(place)
        for entry in entries if left else ():
            path = place / entry.name
            if not path.is_dir():
                continue
            if path.is_symlink():
                behind.append((path, DEEP if left < 0 else left - 1))
            else:
                near.append((path, left - 1))
    return [TrialFolder(place) for place in sorted(found)]


def clear(folder: TrialFolder, *, checkpoints: bool) -> None:
    """Remove what an earlier run left in a trial's folder, and nothing else.

    The job stays, to be replaced: it says that what lies beside it is ours. The caller
    holds the folder.

    Parameters
    ----------
    folder : TrialFolder
        May be a link.
    checkpoints : bool
        Whether checkpoints go as well.

    Raises
    ------
    TraceError
        If something lies there under a name of ours that no run has made.
    """
    ours = folder.records()
    _refuse_foreign(folder, ours)
    for path in ours:
        path.unlink(missing_ok=True)  # of a link, not what it leads to
    if checkpoints:
        checkpoint.discard(folder.path)
    else:
        checkpoint.tidy(folder.path)


def _refuse_foreign(folder: TrialFolder, ours: list[Path]) -> None:
    for path in (*ours, folder.job):
        with suppress(FileNotFoundError):
            if path.is_symlink() and not path.exists():
                continue  # a link to nowhere
            try:
                files.refuse_other_kinds(path)
            except OSError as error:
                raise TraceError(
                    f"{path} is in the way ({error.strerror}): remove or rename it"
                ) from None
    if folder.path.is_symlink() and ours and not folder.job.exists():
        raise TraceError(
            f"{folder} is a link to {folder.path.resolve()}, where {ours[0].name} lies "
            f"but no {JOB}, so it is not a trial's: remove the link, or rename that "
            "file"
        )
