"""What became of jobs: asked of squeue, then of sacct, then of scontrol.

Each knows less than one would wish: squeue forgets ended jobs after minutes, sacct
needs accounting, which many small clusters do without, and scontrol knows one job at a
time. A job that none of them knows is ``gone``.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence

from dsgd_bench.errors import LaunchError

RUNNING = {"RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING"}
WAITING = {
    "CONFIGURING",
    "PENDING",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "RESV_DEL_HOLD",
    "SPECIAL_EXIT",
    "STOPPED",
    "SUSPENDED",
}
"""Slurm's words for jobs that run, and for those that may still do so."""

GONE = "gone"
ALIVE = ("running", "pending")
"""States of a job that holds its trials."""

PATIENCE = 60
"""Seconds until an answer of the batch system is given up."""


def states(jobs: Iterable[str]) -> dict[str, str]:
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
    found = _squeue(set(wanted))
    missing = [job for job in wanted if job not in found]
    if missing:
        found |= _sacct(missing)
    for job in wanted:
        if job not in found:
            found[job] = _scontrol(job)
    return {job: _together(found[job]) for job in wanted}


def ask(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run one of Slurm's commands to its end and return what it said.

    Raises
    ------
    LaunchError
        If there is no such command, or it does not answer in time.
    """
    if shutil.which(words[0]) is None:
        raise LaunchError(
            f"there is no {words[0]} on the PATH: jobs are submitted and followed on a "
            "login node of a cluster with Slurm; to run the study here, take "
            "`dsgd-bench run`"
        )
    try:
        return subprocess.run(
            words,
            capture_output=True,
            check=False,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            env=_environment(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(
            f"{words[0]} did not answer ({error}): the batch system may be down; try "
            "again later"
        ) from None


def _environment() -> dict[str, str]:
    """Return our environment without what a job around us has in it.

    A job that is submitted from within another would take over its nodes and its end.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return dict(os.environ)
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SLURM_") or name.startswith("SLURM_CONF")
    }


def _squeue(wanted: set[str]) -> dict[str, list[str]]:
    """Return the states of the user's jobs, array elements by the array's job."""
    said = ask(
        ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}"]
        + ["--format=%F|%T"]
    )
    if said.returncode:
        raise LaunchError(
            f"squeue refuses to answer: {one_line(said.stderr)}; mend that, then try "
            "again: nothing was changed"
        )
    found: dict[str, list[str]] = {}
    for line in said.stdout.splitlines():
        job, _, state = line.strip().partition("|")
        if job in wanted:
            found.setdefault(job, []).append(state)
    return found


def _sacct(wanted: Sequence[str]) -> dict[str, list[str]]:
    """Return what accounting knows; nothing where it is off."""
    if shutil.which("sacct") is None:
        return {}
    said = ask(
        ["sacct", "--noheader", "--allocations", "--parsable2", "--duplicates"]
        + [f"--jobs={','.join(wanted)}", "--format=JobID,State"]
    )
    found: dict[str, dict[str, str]] = {}
    for line in said.stdout.splitlines() if not said.returncode else ():
        element, _, state = line.strip().partition("|")
        job = re.split(r"[_+.]", element)[0]
        if job in wanted and state:  # of a requeued job, the last line counts
            found.setdefault(job, {})[element] = state
    return {job: list(elements.values()) for job, elements in found.items()}


def _scontrol(job: str) -> list[str]:
    """Return what the controller still knows of one job."""
    said = ask(["scontrol", "--oneliner", "show", "job", job])
    return re.findall(r"\bJobState=(\w+)", said.stdout) if not said.returncode else []


def _together(elements: Sequence[str]) -> str:
    """Return one state for all elements of a job."""
    words = [element.split()[0].rstrip("+") for element in elements if element.split()]
    if any(word in RUNNING for word in words):
        return "running"
    if any(word in WAITING for word in words):
        return "pending"
    endings = sorted({word.lower() for word in words})
    return ", ".join(endings) if endings else GONE


def one_line(text: str) -> str:
    """Return what a command said on one line."""
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())
