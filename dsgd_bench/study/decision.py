"""Whether a trial is run now, and how it ended, as values.

One decision serves ranks that are started here and those that are found. Until they
shared it, a study inside an MPI job tried what others had just failed with.
"""

import enum
from dataclasses import dataclass

from dsgd_bench.io.trial_folder import Outcome, TrialFolder
from dsgd_bench.spec.job import Job
from dsgd_bench.study import stopping


@dataclass(frozen=True)
class Ended:
    """How one run of a trial ended: finished, stopped, or failed for a reason."""

    outcome: Outcome
    reason: str = ""


FINISHED, STOPPED = Ended(Outcome.FINISHED), Ended(Outcome.STOPPED)


def failed(reason: str) -> Ended:
    """Return the end of a trial that failed."""
    return Ended(Outcome.FAILED, reason)


class Decision(enum.Enum):
    """What becomes of a trial that is next."""

    RUN = enum.auto()
    SKIP = enum.auto()
    """It is finished."""

    LEAVE = enum.auto()
    """Another dsgd-bench holds its folder."""

    GIVE_UP = enum.auto()
    """It failed since this run began, in another dsgd-bench."""

    STOP = enum.auto()
    """The job around ends."""


def decide(job: Job, folder: TrialFolder, since: float, *, ours: bool) -> Decision:
    """Return what becomes of a trial whose folder is `ours`, or somebody else's.

    The elements of a job array would all try a trial that fails, one after the other.
    """
    if folder.outcome == Outcome.FINISHED:
        return Decision.SKIP
    if not ours:
        return Decision.LEAVE
    if _failed_since(folder, since):
        return Decision.GIVE_UP
    return Decision.STOP if stopping.due(job.machine.stop_margin) else Decision.RUN


def _failed_since(folder: TrialFolder, since: float) -> bool:
    """Say whether a trial has failed after some time of the file system's clock."""
    try:
        return folder.error.stat().st_mtime > since
    except OSError:
        return False
