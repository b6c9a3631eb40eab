"""The folder of one trial: the names of its files, and what the marks among them say.

All names are declared here and nowhere else, since the ranks that write a folder, the
runs that resume or skip it, the report and a batch system's jobs must agree on them.
They lay in six modules before, and two of them spelled the pattern of shards
differently. The module knows neither trials nor HDF5: every verb may import it.
"""

import enum
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dsgd_bench.io import files

READY, ERROR, STOPPED = "READY", "ERROR", "STOPPED"
"""Files by which a trial's folder tells how the trial ended."""

JOB, LOG, TRACE = "job.json", "log.txt", "trace.h5"
"""What was asked of the ranks, what they printed, and what they recorded."""

LOCK, CLAIM = ".lock", ".claim"
"""By which one process holds the folder: on one host, and among hosts."""

CHECKPOINT = "checkpoint"
CHECKPOINT_PART, CHECKPOINT_OLD = f"{CHECKPOINT}.part", f"{CHECKPOINT}.old"
"""Folders: the last whole checkpoint, the one being written, the one it replaces."""

SHARDS = "rank-*.h5"
"""What every rank records, or keeps in a checkpoint; for messages and for `glob`."""

RECORDS = re.compile(
    r"log\.txt|(\.?trace(-\d+)?|rank-\d{4,})\.h5"
    rf"|\.(claim-.*|clock-.*|probe)-\d+|{re.escape(files.SCRATCH)}[0-9a-f]+"
)
"""Names of the files that a run leaves in a trial's folder, `MARKS` and `JOB` aside;
with a number of a process or beginning with a dot: while they were being written."""


class Outcome(enum.StrEnum):
    """What became of a trial, by its folder: a word, as reports print it."""

    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    MISSING = "missing"
    """Never run, or interrupted."""

    UNREADABLE = "unreadable"
    """Finished, with a trace that cannot be read."""


MARKED = {
    READY: Outcome.FINISHED,
    ERROR: Outcome.FAILED,
    STOPPED: Outcome.STOPPED,
}
"""What each mark says; of several in one folder the first decides."""

MARKS = frozenset(MARKED)
BEGUN = MARKS | {JOB, TRACE}
"""Names of which a folder has at least one if a trial was ever started there."""


def shard_of(folder: Path, rank: int) -> Path:
    """Return where `rank` records its steps, or its part of a checkpoint."""
    return folder / f"rank-{rank:04d}.h5"


def shards_in(folder: Path) -> list[Path]:
    """Return what ranks have left in a folder, in no order."""
    return list(folder.glob(SHARDS))


def rank_of(shard: Path) -> int | None:
    """Return the rank whose number the name of a shard has; None if it has none."""
    number = shard.stem.removeprefix("rank-")
    return int(number) if number.isascii() and number.isdigit() else None


@dataclass(frozen=True)
class TrialFolder:
    """The folder of one trial, whether it is there or not.

    Attributes
    ----------
    path : Path
        Where it lies.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """Its name: the id of the trial, or what an earlier version called it."""
        return self.path.name

    @property
    def ready(self) -> Path:
        """The mark of a trial that has finished."""
        return self.path / READY

    @property
    def error(self) -> Path:
        """The mark of a trial that has failed, which says why."""
        return self.path / ERROR

    @property
    def stopped(self) -> Path:
        """The mark of a trial that was stopped on purpose and will go on."""
        return self.path / STOPPED

    @property
    def job(self) -> Path:
        """What was asked of the ranks."""
        return self.path / JOB

    @property
    def log(self) -> Path:
        """What the ranks printed."""
        return self.path / LOG

    @property
    def trace(self) -> Path:
        """What the ranks recorded, merged."""
        return self.path / TRACE

    @property
    def lock(self) -> Path:
        """By which one process of a host holds the folder."""
        return self.path / LOCK

    @property
    def claim(self) -> Path:
        """By which one process of all hosts holds the folder."""
        return self.path / CLAIM

    @property
    def checkpoint(self) -> Path:
        """Folder of the last whole checkpoint."""
        return self.path / CHECKPOINT

    @property
    def checkpoint_part(self) -> Path:
        """Folder of the checkpoint that is being written."""
        return self.path / CHECKPOINT_PART

    @property
    def checkpoint_old(self) -> Path:
        """Folder of the whole checkpoint that is being replaced."""
        return self.path / CHECKPOINT_OLD

    @property
    def outcome(self) -> Outcome:
        """What became of the trial by the marks alone, without a look at its trace."""
        for mark, found in MARKED.items():
            if (self.path / mark).exists():
                return found
        return Outcome.MISSING

    @property
    def reason(self) -> str:
        """Why the trial failed, or why that is not known; nothing if it did not."""
        try:
            return files.read_text(self.error).strip() or "no reason was given"
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"{self.error} cannot be read ({error.strerror or error})"

    def records(self) -> list[Path]:
        """Return the files that runs leave: marks, log, trace and shards.

        The job is not one of them: it says that what lies beside it is ours. Locks are
        not either, since the command that asks holds the folder by them.
        """
        return [
            path
            for path in self.path.iterdir()
            if path.name in MARKS or RECORDS.fullmatch(path.name)
        ]

    def fail(self, sentence: str) -> bool:
        """Write why the trial failed; tell whether no rank had written it before."""
        try:
            with self.error.open("x", encoding="utf-8", errors="replace") as file:
                file.write(sentence + "\n")
        except FileExistsError:
            return False
        except OSError:
            return True  # cannot be written: then at least it is printed
        return True

    def first_reason(self, sentence: str) -> str:
        """Return the reason that was written first; write `sentence` if there is none.

        An empty file is one that had no room when a rank wrote it.
        """
        self.fail(sentence)
        with suppress(OSError):
            if first := files.read_text(self.error).strip():
                return first
            files.write_text(self.error, sentence + "\n")
        return sentence
