"""Who runs a trial: one process, however many see the same folder from any host.

On one host the kernel tells, by a lock that goes when its holder dies. Between hosts
such locks work on some file systems only, so there is also a claim: a file that names
its holder, who touches it while he lives. Whose claim has not been touched for long is
dead; so is an earlier start of the same batch job.
"""

import fcntl
import json
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dsgd_bench import files
from dsgd_bench.errors import TraceError

LOCK, CLAIM = ".lock", ".claim"

HEARTBEAT = 15.0
"""Seconds between two touches of a claim."""

STALE = 90.0
"""Seconds without a touch after which the holder of a claim is taken for dead."""

TAKEN, OURS, UNKNOWN = "taken", "ours", "unknown"
"""What the lock of this host can be."""

SETTLING = 0.2
"""Seconds in which it shows who of several took over the claim of a dead one."""


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Hold a trial's folder in a ``with`` block; tell whether that was possible.

    Raises
    ------
    TraceError
        If the folder cannot be written.
    """
    with _locked(folder) as lock:
        if lock == TAKEN or not _claimed(folder, sure=lock == OURS):
            yield False
            return
        over = threading.Event()
        heart = threading.Thread(target=_beat, args=(folder, over), daemon=True)
        heart.start()
        try:
            yield True
        finally:
            over.set()
            heart.join()
            with suppress(OSError):
                (folder / CLAIM).unlink()


@contextmanager
def _locked(folder: Path) -> Iterator[str]:
    """Hold the lock of this host, if there are such locks."""
    try:
        file = files.lock_file(folder / LOCK)
    except OSError as error:
        raise TraceError(_unwritable(folder, error)) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield TAKEN
        except OSError:  # the claim alone has to do
            yield UNKNOWN
        else:
            yield OURS


def _unwritable(folder: Path, error: OSError) -> str:
    return (
        f"the results folder {folder} cannot be written ({error}): choose another "
        "with --results, or free some space"
    )


def _claimed(folder: Path, *, sure: bool) -> bool:
    """Make this process the one that the claim names, unless somebody alive is.

    It is `sure` that nobody on this host holds the folder if the lock is ours.
    """
    path = folder / CLAIM
    ours = _ourselves()
    try:
        with path.open("x") as file:
            file.write(ours)
    except FileExistsError:
        if _alive(path, sure=sure):
            return False
        return _taken_over(path, ours)
    except OSError as error:
        raise TraceError(_unwritable(folder, error)) from None
    return True


def _taken_over(path: Path, ours: str) -> bool:
    """Replace the claim of a dead one; of several who do so at once, one succeeds."""
    scratch = path.with_name(f"{CLAIM}-{platform.node()}-{os.getpid()}")
    scratch.write_text(ours)
    scratch.replace(path)
    threading.Event().wait(SETTLING)
    try:
        return files.read_text(path) == ours
    except OSError:
        return False


def _ourselves() -> str:
    return json.dumps(
        {
            "host": platform.node(),
            "kernel": _kernel(),
            "process": os.getpid(),
            "job": os.environ.get("SLURM_JOB_ID", ""),
            "start": os.environ.get("SLURM_RESTART_COUNT", "0"),
        }
    )


def _kernel() -> str:
    """Return what tells this running kernel from all others; empty if unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _alive(path: Path, *, sure: bool) -> bool:
    """Tell whether the holder of a claim may be alive."""
    try:
        holder = json.loads(files.read_text(path) or "{}")
        age = now_there(path.parent) - path.stat().st_mtime
    except (FileNotFoundError, ValueError):
        return True  # being written, or just given back: the next look will tell
    except OSError as error:  # a FIFO or a device: it would stay one for ever
        raise TraceError(_unwritable(path.parent, error)) from None
    ours = json.loads(_ourselves())
    if holder.get("kernel") and holder.get("kernel") == ours["kernel"]:
        return not sure and _runs(holder.get("process", 0))
    if holder.get("job") and holder.get("job") == ours["job"]:
        return bool(holder.get("start") == ours["start"]) and age < STALE
    return bool(age < STALE)


def _runs(process: int) -> bool:
    """Tell whether another process of this host with that number runs."""
    if process == os.getpid():
        return False  # ours, from before: a number is used again after a restart
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def now_there(folder: Path) -> float:
    """Return the time on the clock of the file system, which need not be ours."""
    probe = folder / f".clock-{platform.node()}-{os.getpid()}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _beat(folder: Path, over: threading.Event) -> None:
    while not over.wait(HEARTBEAT):
        with suppress(OSError):
            os.utime(folder / CLAIM)
