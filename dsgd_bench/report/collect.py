"""Find the trials below a results folder and read what each has to say."""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dsgd_bench.analysis import servers
from dsgd_bench.analysis.checks import Verification
from dsgd_bench.analysis.rows import Row
from dsgd_bench.analysis.servers import Load
from dsgd_bench.analysis.summary import labeled, summarize
from dsgd_bench.analysis.verify import verify
from dsgd_bench.config.identity import trial_id
from dsgd_bench.errors import ConfigError, DsgdError, TraceError
from dsgd_bench.io.trial_folder import Outcome, TrialFolder
from dsgd_bench.spec.job import Job
from dsgd_bench.spec.machine import Machine
from dsgd_bench.trace import Trace, fabric_of, open_trace, trials
from dsgd_bench.trace.reading import reading

VIRTUAL = "virtual"


@dataclass
class Collected:
    """What lies in the folder of one study: measured, or simulated.

    Attributes
    ----------
    folder : Path
        The folder of the study.
    fabric : str
        ``"mpi"`` or ``"virtual"``: the two are never shown in one table.
    rows : list of Row
        One per finished or failed trial.
    loads : list of Load
        One per finished trial that has parameter servers.
    verified : list of Verification
        One per finished trial: whether it is valid.
    unreadable : list of (Path, str)
        Traces that are missing or damaged, and in which way.
    unfinished : list of TrialFolder
        Folders of trials that neither finished nor failed.
    nameless : list of (TrialFolder, str)
        Folders of trials that failed, and why, of which not even the settings can be
        read: they have no row.
    states : dict of TrialFolder to Outcome
        Every trial's folder: ``finished``, ``failed``, ``unreadable``, ``stopped`` or
        ``missing``.
    ids : dict of TrialFolder to str
        The trial of every folder in `states`.
    traces : dict of str to Path
        Where the trace of each finished trial lies, by its id.
    copies : list of TrialFolder
        Folders that hold the same trial as the one beside them that bears its name.
    machines : list of Machine
        The machine file of every finished trial, where it is known.
    """

    folder: Path
    fabric: str = "mpi"
    rows: list[Row] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    verified: list[Verification] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    unfinished: list[TrialFolder] = field(default_factory=list)
    nameless: list[tuple[TrialFolder, str]] = field(default_factory=list)
    states: dict[TrialFolder, Outcome] = field(default_factory=dict)
    ids: dict[TrialFolder, str] = field(default_factory=dict)
    traces: dict[str, Path] = field(default_factory=dict)
    copies: list[TrialFolder] = field(default_factory=list)
    machines: list[Machine] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The study's name, that of its folder, which may be a link."""
        mark = ", simulated" if self.fabric == VIRTUAL else ""
        return self.folder.absolute().name + mark


def collect(folder: Path) -> list[Collected]:
    """Read every trial below `folder`; return what was found, by study.

    `folder` may hold one trial, one study, or many studies.

    Raises
    ------
    TraceError
        If there is no finished or failed trial at all.
    """
    studies: dict[tuple[Path, str], Collected] = {}
    for trial in trials.find(folder):
        home, fabric = trial.path.parent, _fabric(trial)
        collected = studies.setdefault((home, fabric), Collected(home, fabric))
        state = trial.outcome
        collected.states[trial] = state
        collected.ids[trial] = trials.id_of(trial)
        if state == Outcome.FINISHED:
            _add_ready(collected, trial)
        elif state == Outcome.FAILED:
            _add_crash(collected, trial)
        else:
            collected.unfinished.append(trial)
    ended = {Outcome.FINISHED, Outcome.FAILED, Outcome.UNREADABLE}
    if not any(ended & set(each.states.values()) for each in studies.values()):
        raise TraceError(_nothing(folder, list(studies.values())))
    return list(studies.values())


def _fabric(folder: TrialFolder) -> str:
    """Return what a trial ran on, by its trace, or by what it was to run on."""
    if known := fabric_of(folder.trace):
        return known
    try:
        return VIRTUAL if Job.read(folder.job).trial.network else "mpi"
    except DsgdError:
        return "mpi"


def _add_ready(collected: Collected, folder: TrialFolder) -> None:
    path = folder.trace
    try:
        trace = _open(path)
        _check_owner(trace, folder)
        # what fails a check, or passes all, may still be nothing that can be summed up
        with reading(path), np.errstate(all="ignore"):
            verified = verify(trace)
            row, load = summarize(trace), servers.load(trace)
    except DsgdError as error:
        problem = " ".join(str(error).split())
        collected.unreadable.append((path, problem))
        collected.states[folder] = Outcome.UNREADABLE
        _add_label(collected, folder, status="unreadable", reason=problem)
        return
    if _is_copy(collected, folder, row.trial.id):
        return
    if row.status == "crashed":  # by its trace, whatever its folder says
        collected.states[folder] = Outcome.FAILED
    collected.rows.append(row)
    collected.traces[row.trial.id] = path
    with suppress(DsgdError):  # written by another version: the trace is what counts
        collected.machines.append(Job.read(folder.job).machine)
    collected.verified.append(verified)
    if load is not None:
        collected.loads.append(load)


def _is_copy(collected: Collected, folder: TrialFolder, trial: str) -> bool:
    """Note a folder that is the copy of a trial's, which would count twice."""
    copied = folder.name != trial and (folder.path.parent / trial).is_dir()
    if copied:
        collected.copies.append(folder)
        del collected.states[folder]
    return copied


def _add_crash(collected: Collected, folder: TrialFolder) -> None:
    """Add what is known of a failed trial: its trace if one was merged, or its name."""
    reason = folder.reason
    try:
        trace = _open(folder.trace)
        with reading(folder.trace), np.errstate(all="ignore"):
            row = summarize(trace)
    except DsgdError:
        _add_label(collected, folder, status="crashed", reason=reason)
        return
    if _is_copy(collected, folder, row.trial.id):
        return
    collected.rows.append(
        replace(
            row,
            status="crashed",
            reason=reason,
            target=replace(row.target, seconds=None),
        )
    )


def _add_label(
    collected: Collected, folder: TrialFolder, *, status: str, reason: str
) -> None:
    """Add a run of which nothing but the trial is left."""
    try:
        job = Job.read(folder.job)
    except DsgdError:
        if status == "crashed":  # one that is unreadable has been named already
            collected.nameless.append((folder, reason))
        return
    if _is_copy(collected, folder, trial_id(job.trial)):
        return
    collected.rows.append(
        labeled(
            job.trial,
            study=job.study,
            status=status,
            reason=reason,
            fabric=collected.fabric,
        )
    )


def _open(path: Path) -> Trace:
    if not path.exists():
        raise TraceError("the file does not exist")
    return open_trace(path)


def _check_owner(trace: Trace, folder: TrialFolder) -> None:
    """Refuse a trace of another trial than was asked of the ranks there."""
    with suppress(ConfigError):  # a trace without what was asked tells all by itself
        if trial_id(Job.read(folder.job).trial) != trial_id(trace.trial):
            raise TraceError(f"it is not of the trial that {folder.job} asks for")


def _nothing(folder: Path, studies: list[Collected]) -> str:
    if not folder.exists():
        return f"{folder} does not exist: name a folder such as results/smoke"
    unfinished = sum(len(study.unfinished) for study in studies)
    if unfinished:
        return (
            f"{folder} has {unfinished} unfinished trials and no other: wait for the"
            " study to end, or run it again to resume"
        )
    return f"{folder} has no trials: name a folder that dsgd-bench run has written"
