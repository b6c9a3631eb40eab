"""Slurm's commands, called so that only the words that they are given count.

What stands in the environment changes what these commands mean: filters and formats of
the user's own, the number of a job around us, options of sbatch, which win over those
in a script. None of it reaches them, and what they say is read within bounds.
"""

import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Collection, Sequence
from contextlib import suppress

from dsgd_bench.errors import LaunchError
from dsgd_bench.io.escape import plain

PATIENCE = 60.0
"""Seconds until an answer of the batch system is given up."""

PERIOD = 0.2
"""Seconds between two looks whether a command that says nothing has ended."""

LIMIT = 16 * 2**20
"""Bytes of an answer that are read."""

SHOWN = 300
"""Characters of an answer that are shown in a sentence."""

CLUSTERS = "SLURM_CLUSTERS"
"""Variable that names the cluster to which all of Slurm's commands turn."""

FILTERS = ("SQUEUE_", "SACCT_", "SCONTROL_")
"""Beginnings of variables that hide jobs, or change the form of an answer."""

OF_A_JOB = (
    *("SLURM_JOB", "SLURM_ARRAY", "SLURM_HET", "SLURM_PACK", "SLURM_STEP"),
    *("SLURM_RESTART_COUNT", "SLURM_EXIT_ERROR"),
)
"""Beginnings of variables that a job leaves, and a job that we send would take over;
the last one makes of the exit status whatever it says."""

KEPT = ("SLURM_CONF", CLUSTERS, "SLURM_JWT", "SLURM_SACK")
"""Beginnings of variables by which commands find their controller."""


class UnansweredError(LaunchError):
    """A command was started, and it is not known what it did."""


def ask(
    words: Sequence[str], cluster: str | None = None, without: Collection[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run one of Slurm's commands to its end and return what it said.

    Parameters
    ----------
    words : sequence of str
        The command.
    cluster : str, optional
        The cluster that is asked, empty for that of this host; by default the one that
        the environment names.
    without : collection of str
        Environment variables that it must not see.

    Raises
    ------
    LaunchError
        If there is no such command, or it cannot be started.
    UnansweredError
        If it does not answer in time, or says far too much.
    """
    program = shutil.which(words[0])
    if program is None:
        raise LaunchError(
            f"there is no {words[0]} on the PATH: jobs are submitted and followed on a "
            "login node of a cluster with Slurm; to run the study here, take "
            "`dsgd-bench run`"
        )
    try:
        process = subprocess.Popen(
            [program, *words[1:]],
            stdin=subprocess.DEVNULL,  # a wrapper that asks for something gets nothing
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(cluster, without),
            start_new_session=True,  # so that what a wrapper starts ends with it
        )
    except OSError as error:
        raise LaunchError(
            f"{words[0]} cannot be started ({error}): mend the PATH, or try again on a "
            "login node of the cluster"
        ) from None
    with process:
        said = _answer(process, words[0])
    return subprocess.CompletedProcess(words, process.returncode, *said)


def _answer(process: subprocess.Popen[bytes], name: str) -> list[str]:
    """Return what a command says until it ends, on both of its streams."""
    try:
        kept = _read(process)
        process.wait(0.0)
    except subprocess.TimeoutExpired:
        raise UnansweredError(
            f"{name} did not answer within {PATIENCE:g} s: the batch system may be "
            "down; try again later"
        ) from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    if max(map(len, kept)) > LIMIT:
        raise UnansweredError(
            f"{name} said more than {LIMIT} bytes, which is no answer: call it by hand "
            "to see what is wrong"
        )
    return [bytes(said).decode("utf-8", errors="replace") for said in kept]


def _read(process: subprocess.Popen[bytes]) -> list[bytearray]:
    """Keep what comes up to the limit, and let the rest go: a full pipe would block."""
    ends = time.monotonic() + PATIENCE
    streams = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as pipes:
        for pipe in filter(None, streams):
            pipes.register(pipe, selectors.EVENT_READ, streams[pipe])
        while pipes.get_map() and time.monotonic() < ends:
            ready = pipes.select(PERIOD)
            for key, _ in ready:
                piece = os.read(key.fd, 65536)
                key.data.extend(piece[: LIMIT + 1 - len(key.data)])
                if not piece:
                    pipes.unregister(key.fileobj)
            if not ready and process.poll() is not None:
                break  # something that it left behind holds the other end
    with suppress(subprocess.TimeoutExpired):
        process.wait(max(0.0, ends - time.monotonic()))
    return list(streams.values())


def environment(
    cluster: str | None = None, without: Collection[str] = ()
) -> dict[str, str]:
    """Return our environment without what would change the meaning of a command.

    A job that is submitted from within another would take over its nodes and its end.
    """
    left = (
        *FILTERS,
        *OF_A_JOB,
        *(("SLURM_",) if os.environ.get("SLURM_JOB_ID") else ()),
    )
    found = {
        name: value
        for name, value in os.environ.items()
        if name not in without and (name.startswith(KEPT) or not name.startswith(left))
    }
    if cluster is not None:
        found.pop(CLUSTERS, None)
        found |= {CLUSTERS: cluster} if cluster else {}
    return found


def one_line(text: str) -> str:
    """Return what a command said on one line, safe to be shown, and not long."""
    words = "; ".join(plain(line.strip()) for line in text.splitlines() if line.strip())
    return words if len(words) <= SHOWN else f"{words[:SHOWN]} ..."
