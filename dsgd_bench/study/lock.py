"""Who runs a trial: one process, however many see the same folder from any host.

On one host the kernel tells, by a lock that goes when its holder dies. Between hosts
such locks work on some file systems only, so there is also a claim: a file that names
its holder, who touches it while he lives. Whose claim has not been touched for long is
dead; so is an earlier start of the same batch job.
"""

import errno
import fcntl
import json
import os
import platform
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import msgspec

from dsgd_bench.errors import TraceError
from dsgd_bench.host import identity
from dsgd_bench.io import files
from dsgd_bench.io.trial_folder import CLAIM, LOCK

HEARTBEAT = 15.0
"""Seconds between two touches of a claim."""

STALE = 90.0
"""Seconds without a touch after which the holder of a claim is taken for dead."""

TAKEN, OURS, UNKNOWN = "taken", "ours", "unknown"
"""What the lock of this host can be."""

SETTLING = 0.2
"""Seconds in which it shows who of several took over the claim of a dead one."""

ATTEMPTS = 100
"""How often a folder is made that others remove at the same time."""


class Holder(msgspec.Struct, frozen=True):
    """The process that holds a folder, by its claim; what is empty is not known.

    Attributes
    ----------
    host : str
        Name of the computer, for people.
    kernel, processes : str
        The running kernel, and the namespace in which `process` is a number.
    process : int
        Number of the process.
    token : str
        Drawn at random: names and numbers may be those of two processes.
    job, start : str
        Batch job, and how often it was started before.
    """

    host: str = ""
    kernel: str = ""
    processes: str = ""
    process: Annotated[int, msgspec.Meta(ge=0)] = 0
    token: str = ""
    job: str = ""
    start: str = ""

    @classmethod
    def read(cls, text: str) -> "Holder":
        """Return the holder in a claim; an unknown one if it is damaged."""
        try:
            return msgspec.json.decode(text, type=cls)
        except (ValueError, RecursionError):
            return cls()

    def text(self) -> str:
        """Return the claim as JSON."""
        return json.dumps(msgspec.structs.asdict(self))


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Hold a trial's folder in a ``with`` block; tell whether that was possible.

    The folder is made if it is missing. Nothing else is written into it by a process
    that does not hold it, but for the two files by which it is held.

    Raises
    ------
    TraceError
        If the folder cannot be made or written.
    """
    with _locked(folder) as lock:
        ours = _ourselves().text()
        if lock == TAKEN or not _claimed(folder, ours, sure=lock == OURS):
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
            _give_back(folder / CLAIM, ours)


@contextmanager
def _locked(folder: Path) -> Iterator[str]:
    """Hold the lock of this host, if there are such locks."""
    try:
        descriptor, lock = _lock(folder)
    except OSError as error:
        raise TraceError(_unwritable(folder, error)) from None
    try:
        yield lock
    finally:
        os.close(descriptor)


def _lock(folder: Path) -> tuple[int, str]:
    """Open the lock of a folder, which is made with it; tell what the lock is.

    Another may remove the folder between any two steps, and a third make it again: a
    lock on a file that no longer bears the name says nothing, so it is tried anew.
    """
    path = folder / LOCK
    for _ in range(ATTEMPTS):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # not "w": the file may be somebody's
            files.refuse_other_kinds(path)
            flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o666)
        except FileNotFoundError:
            continue
        lock = _flock(descriptor)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor, lock
        os.close(descriptor)
    raise FileNotFoundError(errno.ENOENT, "it is removed again and again", str(folder))


def _flock(descriptor: int) -> str:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return TAKEN
    except OSError:  # the claim alone has to do
        return UNKNOWN
    return OURS


def _give_back(path: Path, ours: str) -> None:
    """Remove our claim, but not that of one who took us for dead."""
    with suppress(OSError):
        if files.read_text(path) == ours:
            path.unlink()


def _unwritable(folder: Path, error: OSError) -> str:
    return (
        f"the results folder {folder} cannot be written ({error}): choose another "
        "with --results, or free some space"
    )


def _claimed(folder: Path, ours: str, *, sure: bool) -> bool:
    """Put our claim there unless there is one whose holder may be alive.

    It is `sure` that nobody on this host holds the folder if the lock is ours.
    """
    path = folder / CLAIM
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(ours)
    except FileExistsError:
        if _alive(path, sure=sure):
            return False
        return _taken_over(path, ours)
    except OSError as error:
        with suppress(OSError):
            path.unlink()  # empty, as the disk is full: it would hold up all others
        raise TraceError(_unwritable(folder, error)) from None
    return True


def _taken_over(path: Path, ours: str) -> bool:
    """Replace the claim of a dead one; of several who do so at once, one succeeds."""
    try:
        files.write_text(path, ours)
        threading.Event().wait(SETTLING)
        return files.read_text(path) == ours
    except OSError:  # gone: another one holds the folder, or has held it meanwhile
        return False


def _ourselves() -> Holder:
    """Return this process, as a holder that has never been."""
    return Holder(
        host=platform.node(),
        kernel=identity.kernel(),
        processes=identity.namespace(identity.PROCESSES),
        process=os.getpid(),
        token=os.urandom(8).hex(),
        job=os.environ.get("SLURM_JOB_ID", ""),
        start=os.environ.get("SLURM_RESTART_COUNT", "0"),
    )


def _alive(path: Path, *, sure: bool) -> bool:
    """Tell whether the holder of a claim may be alive."""
    try:
        text = files.read_text(path)
        age = now_there(path.parent) - path.stat().st_mtime
    except FileNotFoundError:
        return True  # just given back: the next look will tell
    except OSError as error:  # a FIFO or a device: it would stay one for ever
        raise TraceError(_unwritable(path.parent, error)) from None
    holder, ours = Holder.read(text), _ourselves()
    if holder.kernel and holder.kernel == ours.kernel:
        if sure:
            return False
        if holder.process and holder.processes == ours.processes:
            return _runs(holder.process)
        return age < STALE  # in another container: its numbers say nothing here
    if holder.job and holder.job == ours.job:
        return holder.start == ours.start and age < STALE
    return age < STALE


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
    """Return the time on the clock of the file system, which need not be ours.

    The file by which it is known has no name, so nothing is seen of it, or left.
    """
    with tempfile.TemporaryFile(dir=folder) as probe:
        return os.fstat(probe.fileno()).st_mtime


def _beat(folder: Path, over: threading.Event) -> None:
    while not over.wait(HEARTBEAT):
        with suppress(OSError):
            os.utime(folder / CLAIM)
