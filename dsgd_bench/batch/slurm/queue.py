"""What became of jobs: asked of squeue, then of sacct, then of scontrol.

Each knows less than one would wish: squeue forgets ended jobs after minutes, sacct
needs accounting, which many small clusters do without, and scontrol knows one job at a
time. A job that none of them knows is ``gone``. One whose number Slurm never told is
looked for by its name.
"""

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from dsgd_bench.batch.slurm.calls import ask, one_line
from dsgd_bench.batch.slurm.records import Record
from dsgd_bench.batch.slurm.states import GONE, UNSURE, together
from dsgd_bench.errors import LaunchError

SETTLING = timedelta(hours=1)
"""How long after it was sent a job may appear in the queue that is not there yet: a
controller under load works off what it was sent by callers that have given up."""


HEADING = re.compile(r"^CLUSTER: .*$", re.M)
"""A line above the jobs of a cluster that was asked for by name."""


class Line(NamedTuple):
    """What Slurm says of a job, or of an element of an array."""

    job: str
    state: str
    name: str


def of_records(found: Mapping[Path, Record]) -> dict[Path, str]:
    """Return the state of each job, as `states.together` does, or that it is unsure.

    Parameters
    ----------
    found : mapping of Path to Record
        By their folders, as `records.read` returns them.

    Raises
    ------
    LaunchError
        If there is no Slurm here, or it does not answer.
    """
    result: dict[Path, str] = {}
    for cluster in sorted({record.cluster for record in found.values()}):
        here = {p: record for p, record in found.items() if record.cluster == cluster}
        told = states((record.job for record in here.values() if record.job), cluster)
        untold = [record for record in here.values() if not record.job]
        by_name = find(untold, cluster)
        for folder, record in here.items():
            _, state = by_name.get(record.name, ("", ""))
            result[folder] = told[record.job] if record.job else state or _lost(record)
    return result


def states(jobs: Iterable[str], cluster: str = "") -> dict[str, str]:
    """Return the state of each job: running, pending, gone, or how it ended.

    An array of jobs runs as long as one of its elements does, and counts as pending as
    long as one of them is. Endings are Slurm's words in lower case.

    Raises
    ------
    LaunchError
        If there is no Slurm here, or it does not answer.
    """
    wanted = list(dict.fromkeys(jobs))
    if not wanted:
        return {}
    found: dict[str, list[str]] = {}
    for line in _squeue(cluster):
        found.setdefault(line.job, []).append(line.state)
    listed = {job: together(found[job], listed=True) for job in wanted if job in found}
    missing = [job for job in wanted if job not in listed]
    known = _sacct(missing, cluster) if missing else {}
    for job in missing:
        ended = known.get(job)
        listed[job] = (
            together(ended, listed=False) if ended else _scontrol(job, cluster)
        )
    return listed


def find(sent: Sequence[Record], cluster: str = "") -> dict[str, tuple[str, str]]:
    """Look for jobs by their names; return numbers and states of those that there are.

    Raises
    ------
    LaunchError
        If there is no Slurm here, or it does not answer.
    """
    names = {record.name for record in sent if record.name}
    if not names:
        return {}
    found: dict[str, tuple[str, str]] = {}
    lines = [line for line in _squeue(cluster) if line.name in names]
    for name in {line.name for line in lines}:
        words = [line.state for line in lines if line.name == name]
        job = max(line.job for line in lines if line.name == name)
        found[name] = (job, together(words, listed=True))
    if left := names - set(found):
        ended = _numbers(left, min(record.submitted for record in sent), cluster)
        known = _sacct(list(ended.values()), cluster) if ended else {}
        for name, job in ended.items():
            found[name] = (job, together(known.get(job, []), listed=False))
    return found


def _lost(record: Record) -> str:
    """Return the state of a job that was sent, and that Slurm does not know."""
    try:
        age = datetime.now().astimezone() - datetime.fromisoformat(record.submitted)
    except (ValueError, TypeError, OverflowError):
        return UNSURE
    return UNSURE if age < SETTLING else GONE


def _squeue(cluster: str) -> list[Line]:
    """Return all of the user's jobs, array elements by the array's job."""
    said = ask(
        ["squeue", "--noheader", "--all", "--array", "--states=all"]
        + [f"--user={os.getuid()}", "--format=%F|%T|%j"],
        cluster,
    )
    if said.returncode:
        raise LaunchError(
            f"squeue refuses to answer: {one_line(said.stderr) or 'no reason given'}; "
            "mend that, then try again: nothing was changed"
        )
    lines = _lines(said.stdout)
    if not lines and (words := one_line(HEADING.sub("", said.stdout))):
        raise LaunchError(
            f"squeue does not answer in the form that it is asked for ({words}), so it "
            "is not known which jobs there are: nothing was changed"
        )
    return lines


def _lines(text: str) -> list[Line]:
    """Return what lines ``number|state|name`` say; banners are none of them."""
    found = []
    for line in text.splitlines():
        element, _, rest = line.strip().partition("|")
        state, _, name = rest.partition("|")
        if re.match(r"[0-9]+", element) and state:
            found.append(Line(re.split(r"[_+.;]", element)[0], state, name))
    return found


def _sacct(wanted: Sequence[str], cluster: str) -> dict[str, list[str]]:
    """Return what accounting knows; nothing where it is off."""
    if shutil.which("sacct") is None:
        return {}
    said = ask(
        ["sacct", "--noheader", "--allocations", "--parsable2", "--duplicates"]
        + [f"--jobs={','.join(wanted)}", "--format=JobID,State"],
        cluster,
    )
    found: dict[str, dict[str, str]] = {}
    for line in said.stdout.splitlines() if not said.returncode else ():
        element, _, state = line.strip().partition("|")
        job = re.split(r"[_+.]", element)[0]
        if job in wanted and state:  # of a requeued job, the last line counts
            found.setdefault(job, {})[element] = state
    return {job: list(elements.values()) for job, elements in found.items()}


def _numbers(names: set[str], since: str, cluster: str) -> dict[str, str]:
    """Return the numbers that accounting knows of names; none where it is off."""
    if shutil.which("sacct") is None:
        return {}
    day = re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", since)
    said = ask(
        ["sacct", "--noheader", "--allocations", "--parsable2", "--duplicates"]
        + [f"--name={','.join(sorted(names))}", f"--user={os.getuid()}"]
        + [f"--starttime={day[0] if day else 'now-7days'}"]
        + ["--format=JobID,State,JobName"],
        cluster,
    )
    lines = _lines(said.stdout) if not said.returncode else []
    return {line.name: line.job for line in lines if line.name in names}


def _scontrol(job: str, cluster: str) -> str:
    """Return what the controller still knows of one job."""
    said = ask(["scontrol", "--oneliner", "show", "job", job], cluster)
    found = re.findall(r"\bJobState=(\S+)", said.stdout) if not said.returncode else []
    return together(found, listed=True)
