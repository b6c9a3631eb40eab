"""Find the trials below a results folder and read what each has to say."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from dsgd_bench import files
from dsgd_bench.analysis import servers
from dsgd_bench.analysis.servers import Load
from dsgd_bench.analysis.summary import Row, labeled, summarize
from dsgd_bench.analysis.verify import Verification, verify
from dsgd_bench.errors import DsgdError, TraceError
from dsgd_bench.specs import Job
from dsgd_bench.trace import Trace, fabric_of, open_trace

READY, ERROR = "READY", "ERROR"
JOB, TRACE = "job.json", "trace.h5"

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
    unfinished : list of Path
        Folders of trials that neither finished nor failed.
    """

    folder: Path
    fabric: str = "mpi"
    rows: list[Row] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    verified: list[Verification] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    unfinished: list[Path] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The study's name, that of its folder."""
        mark = ", simulated" if self.fabric == VIRTUAL else ""
        return self.folder.resolve().name + mark


def collect(folder: Path) -> list[Collected]:
    """Read every trial below `folder`; return what was found, by study.

    `folder` may hold one trial, one study, or many studies.

    Raises
    ------
    TraceError
        If there is no finished or failed trial at all.
    """
    studies: dict[tuple[Path, str], Collected] = {}
    for trial in _trial_folders(folder):
        home, fabric = trial.parent, _fabric(trial)
        collected = studies.setdefault((home, fabric), Collected(home, fabric))
        if (trial / ERROR).exists():
            _add_crash(collected, trial)
        elif (trial / READY).exists():
            _add_ready(collected, trial)
        else:
            collected.unfinished.append(trial)
    if not any(collected.rows for collected in studies.values()):
        raise TraceError(_nothing(folder, list(studies.values())))
    return list(studies.values())


def _trial_folders(folder: Path) -> Iterator[Path]:
    """Yield every folder that holds a trial, in the order of their names."""
    marks = (READY, ERROR, JOB, TRACE)
    yield from sorted({path.parent for mark in marks for path in folder.rglob(mark)})


def _fabric(folder: Path) -> str:
    """Return what a trial ran on, by its trace, or by what it was to run on."""
    if known := fabric_of(folder / TRACE):
        return known
    try:
        return VIRTUAL if Job.read(folder / JOB).trial.network else "mpi"
    except DsgdError:
        return "mpi"


def _add_ready(collected: Collected, folder: Path) -> None:
    path = folder / TRACE
    try:
        trace = _open(path)
        row, load, verified = summarize(trace), servers.load(trace), verify(trace)
    except (DsgdError, OSError, KeyError, ValueError) as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        collected.unreadable.append((path, problem))
        _add_label(collected, folder, status="unreadable", reason=problem)
        return
    collected.rows.append(row)
    collected.verified.append(verified)
    if load is not None:
        collected.loads.append(load)


def _add_crash(collected: Collected, folder: Path) -> None:
    """Add what is known of a failed trial: its trace if one was merged, or its name."""
    try:
        reason = files.read_text(folder / ERROR).strip()
    except OSError as error:
        reason = f"the reason in {folder / ERROR} cannot be read: {error.strerror}"
    try:
        row = summarize(_open(folder / TRACE))
    except (DsgdError, OSError, KeyError, ValueError):
        _add_label(collected, folder, status="crashed", reason=reason)
        return
    collected.rows.append(
        replace(row, status="crashed", reason=reason, time_to_target=None)
    )


def _add_label(collected: Collected, folder: Path, *, status: str, reason: str) -> None:
    """Add a run of which nothing but the trial is left."""
    path = folder / JOB
    try:
        trial = Job.read(path).trial
    except DsgdError as error:
        collected.unreadable.append((path, " ".join(str(error).split())))
        return
    collected.rows.append(
        labeled(
            trial,
            study=collected.folder.resolve().name,
            status=status,
            reason=reason,
            fabric=collected.fabric,
        )
    )


def _open(path: Path) -> Trace:
    if not path.exists():
        raise TraceError("the file does not exist")
    return open_trace(path)


def _nothing(folder: Path, studies: list[Collected]) -> str:
    if not folder.exists():
        return f"{folder} does not exist: name a folder such as results/smoke"
    for path, problem in (found for study in studies for found in study.unreadable):
        return f"{folder} has no readable trial: {path}: {problem}; run the study again"
    unfinished = sum(len(study.unfinished) for study in studies)
    if unfinished:
        return (
            f"{folder} has {unfinished} unfinished trials and no other: wait for the"
            " study to end, or run it again to resume"
        )
    return f"{folder} has no trials: name a folder that dsgd-bench run has written"
