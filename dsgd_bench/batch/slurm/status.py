"""How far a study is, trial by trial and job by job."""

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from dsgd_bench.batch.slurm import queue, records, states, submit
from dsgd_bench.batch.slurm.groups import JOBS
from dsgd_bench.config import naming
from dsgd_bench.config.identity import trial_id
from dsgd_bench.errors import TraceError
from dsgd_bench.io.trial_folder import Outcome, TrialFolder
from dsgd_bench.spec.trial import Study
from dsgd_bench.study import lock
from dsgd_bench.trace import fabric_of, trials

STATES = {
    "finished": "",
    "failed": "submit --failed sends these, and only these, again",
    "stopped": "stopped before the end of the job; continued when run or submitted",
    "running": "",
    "queued": "in the hands of a job",
    "unreadable": "its trace is damaged: remove its folder, then run or submit again",
    "missing": "never run, or interrupted; submit sends these",
}
"""What a trial can be -> what that means, where the word does not say it."""


@dataclass
class Status:
    """How far a study is.

    Attributes
    ----------
    folder : Path
        Its results.
    trials : dict of str to (str, str)
        Id -> (in words, one of `STATES`).
    reasons : dict of str to str
        Id of each failed trial -> why.
    jobs : list of (Record, str)
        Every job that was submitted, and its state.
    notes : tuple of str
        What is not known of jobs, and how to find out.
    """

    folder: Path
    trials: dict[str, tuple[str, str]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    jobs: list[tuple[records.Record, str]] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many trials are in each state that occurs."""
        counted = Counter(state for _, state in self.trials.values())
        return {state: counted[state] for state in STATES if counted[state]}


def look(folder: Path, study: Study | None = None) -> Status:
    """Say how far the study is whose results are in `folder`.

    Parameters
    ----------
    folder : Path
        Results of one study.
    study : Study, optional
        Its trials; by default all that were submitted or have a folder.

    Raises
    ------
    TraceError
        If the folder knows nothing of any trial.
    LaunchError
        If there are jobs and Slurm does not say what became of them.
    """
    found = records.read(folder / JOBS)
    told = queue.of_records(found)
    known = _asked(folder, study) if study is not None else _known(folder, found)
    if not known:
        raise TraceError(
            f"{folder} has no trial and no job: name the folder of a study, such as "
            "results/smoke, or the study file with --results"
        )
    status = Status(folder, jobs=[(found[path], told[path]) for path in found])
    status.notes = submit.notes(found, told)
    hands: dict[str, set[str]] = {}
    for record, state in status.jobs:
        for trial in record.trials:
            hands.setdefault(trial, set()).add(state)
    for name, (words, place) in known.items():
        jobs = hands.get(name, set()) | hands.get(place.name, set())
        state = _state(place, jobs)
        status.trials[name] = (words, state)
        if state == "failed":
            status.reasons[name] = place.reason.splitlines()[0]
    return status


Known = dict[str, tuple[str, TrialFolder]]
"""Id of a trial -> what it is in words, and its folder."""


def _asked(folder: Path, study: Study) -> Known:
    """Return the trials of a study."""
    places = trials.Places(folder)
    return {
        trial_id(trial): (naming.description(trial), places.of(trial))
        for trial in study.trials
    }


def _known(folder: Path, found: dict[Path, records.Record]) -> Known:
    """Return all trials that the folder tells of: those of jobs, and those begun."""
    words: dict[str, str] = {}
    for path in found:
        words |= records.trials_of(path)
    known = {name: (said, TrialFolder(folder / name)) for name, said in words.items()}
    for each in trials.find(folder):
        if each.path.parent != folder or each.name in known:
            continue
        name = trials.id_of(each)
        if TrialFolder(folder / name).outcome != Outcome.MISSING:
            name = each.name  # it is the copy of another folder
        trial = trials.trial_in(each)
        said = "damaged, or written by another dsgd-bench"
        known[name] = (naming.description(trial) if trial else said, each)
    return known


def _state(folder: TrialFolder, jobs: set[str]) -> str:
    """Return what a trial is, from its folder and the states of the jobs it is in."""
    state = folder.outcome
    if state == Outcome.FINISHED:
        return state if fabric_of(folder.trace) else Outcome.UNREADABLE
    if state == Outcome.FAILED:
        return state
    alive = any(map(states.alive, jobs))
    if _claimed(folder) and (alive or not jobs):
        return "running"
    if alive:
        return "queued"
    return state


def _claimed(folder: TrialFolder) -> bool:
    """Tell whether somebody says that he runs the trial; the dead do for a while."""
    try:
        return time.time() - folder.claim.stat().st_mtime < lock.STALE
    except OSError:
        return False
