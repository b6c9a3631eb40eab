"""What is kept of every job beside the results, and read again by later commands.

``RESULTS/STUDY/jobs/0001-4-ranks`` holds the script, its log, the study and machine
file as they were when it was submitted, and the `Record`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from dsgd_bench.batch.slurm.script import TRIALS
from dsgd_bench.errors import LaunchError, TraceError
from dsgd_bench.io import files
from dsgd_bench.study import lock

RECORD = "submitted.json"

Number = Annotated[str, Meta(pattern=r"\A[0-9]{0,10}\Z")]


class Record(Struct, frozen=True):
    """A job that was sent to Slurm.

    It is written before sbatch is called, so that nothing is sent twice whatever sbatch
    says, and whatever becomes of this program meanwhile.

    Attributes
    ----------
    job : str
        Its number; of an array, that of the whole. Empty as long as Slurm has not said
        that it accepted the job.
    submitted : str
        When, in ISO format.
    ranks, nodes, jobs : int
        Ranks and nodes of one job, and how many of them share the trials.
    time : str
        Time limit.
    trials : tuple of str
        Names of the trials.
    name : str
        The name that no other job has; empty in records of earlier versions.
    cluster : str
        The cluster that has the job; empty for the one of the host it was sent from.
    """

    job: Number
    submitted: str
    ranks: int
    nodes: int
    jobs: int
    time: str
    trials: tuple[str, ...]
    name: str = ""
    cluster: str = ""

    def write(self, folder: Path) -> None:
        """Write the record into the job's folder, whole or not at all."""
        content = msgspec.json.format(msgspec.json.encode(self)) + b"\n"
        files.write_bytes(folder / RECORD, content)

    def how_to_find(self, folder: Path) -> str:
        """Say how a job is looked for, and what to do if there is none."""
        clusters = f" --clusters={self.cluster}" if self.cluster else ""
        return (
            f"`squeue --name={self.name}{clusters}` and `sacct --name={self.name}"
            f"{clusters}` tell; if neither knows it, remove the folder {folder} and "
            "submit again"
        )


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
            content = files.read_bytes(path)
            found[path.parent] = msgspec.json.decode(content, type=Record)
        except (OSError, ValueError, RecursionError) as error:  # of msgspec's, too
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
    with lock.held(jobs) as ours:
        if not ours:
            raise LaunchError(
                f"another dsgd-bench submit is at work in {jobs}: look again when it "
                "has ended; only what is then missing will be sent"
            )
        yield
