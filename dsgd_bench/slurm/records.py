"""What is kept of every job beside the results, and read again by later commands.

``RESULTS/STUDY/jobs/0001-4-ranks`` holds the script, its log, the study and machine
file as they were when it was submitted, and the `Record`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from dsgd_bench import claims, files
from dsgd_bench.errors import LaunchError, TraceError
from dsgd_bench.slurm.script import TRIALS

RECORD = "submitted.json"


class Record(Struct, frozen=True):
    """A job that Slurm has accepted.

    Attributes
    ----------
    job : str
        Its number; of an array, that of the whole.
    submitted : str
        When, in ISO format.
    ranks, nodes, jobs : int
        Ranks and nodes of one job, and how many of them share the trials.
    time : str
        Time limit.
    trials : tuple of str
        Names of the trials.
    """

    job: str
    submitted: str
    ranks: int
    nodes: int
    jobs: int
    time: str
    trials: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """Write the record into the job's folder, whole or not at all."""
        partial = folder / f".{RECORD}"
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(self)) + b"\n")
        partial.replace(folder / RECORD)


def read(jobs: Path) -> dict[Path, Record]:
    """Return the records below `jobs` by their folders, the oldest first.

    Raises
    ------
    TraceError
        If one of them is damaged.
    """
    found = {}
    for path in sorted(jobs.glob(f"*/{RECORD}")):
        try:
            found[path.parent] = msgspec.json.decode(
                files.read_bytes(path), type=Record
            )
        except (OSError, msgspec.DecodeError) as error:
            raise TraceError(
                f"{path} is not what dsgd-bench wrote ({error}): if its job has ended, "
                "remove that file"
            ) from None
    return found


def trials_of(folder: Path) -> dict[str, str]:
    """Return the trials of a job, id -> in words.

    Raises
    ------
    TraceError
        If the list is gone.
    """
    return read_trials(folder / TRIALS)


def read_trials(path: Path) -> dict[str, str]:
    """Read a list of trials: an id in each line, then what it is in words.

    Raises
    ------
    TraceError
        If it cannot be read.
    """
    try:
        lines = files.read_text(path).splitlines()
    except OSError as error:
        raise TraceError(f"the list of trials {path} cannot be read: {error}") from None
    pairs = (line.partition(" ") for line in lines if line.strip())
    return {name: words.strip() for name, _, words in pairs}


@contextmanager
def held(jobs: Path) -> Iterator[None]:
    """Be the only submission to a results folder.

    Raises
    ------
    LaunchError
        If another one is at work there.
    TraceError
        If the folder cannot be written.
    """
    try:
        jobs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TraceError(
            f"the results folder {jobs} cannot be written ({error}): choose another "
            "with --results"
        ) from None
    with claims.held(jobs) as ours:
        if not ours:
            raise LaunchError(
                f"another dsgd-bench submit is at work in {jobs}: look again when it "
                "has ended; only what is then missing will be sent"
            )
        yield
