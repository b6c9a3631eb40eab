"""Shared memory of ranks that were killed: whose it was, and its removal.

MPI libraries make files in ``/dev/shm`` and unlink them in the end; a killed rank never
gets there. So each rank leaves a note beside them: first that it begins, then which
files it has mapped. Whoever comes next, the process that started the ranks or the next
rank on that host, looks for notes of the dead, and removes what they name and no living
process uses. Nothing is known by its name alone, which others' files have, too, with
one exception: a rank that died within ``MPI_Init`` has named nothing yet (see `sweep`).
"""

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dsgd_bench.host import identity

SHM = Path("/dev/shm")

NOTE = "dsgd-bench-rank-"
"""How the names of notes begin; the number of the process follows."""

MADE_BY_MPI = (
    "mpich_shm_*",
    "mpich_shar_tmp*",
    "sm_segment.*",
    "vader_segment.*",
    "Intel_MPI_*",
    "ucx_shm_posix_*",
)
"""Files of MPICH (for good, and for a moment of `MPI_Init`), of Open MPI 5 and 4, Intel
MPI, and of UCX, which they may use."""

LAUNCH = "DSGD_BENCH_LAUNCH"
"""Environment variable that all processes of a launch share: number of the process that
started it, then what distinguishes its launches."""

SESSION = "PMIX_SERVER_TMPDIR"
"""Variable in which Open MPI's launcher names its folder of temporary files."""

SESSIONS = ("ompi.", "prte.")
"""How the names of such folders begin."""

STARTING = 10.0
"""Seconds after a rank's beginning in which ``MPI_Init`` makes its files."""

ALL_PROCESSES = "pid:[4026531836]"
"""The first process namespace of a kernel: from there all its processes are seen."""

READABLE = 2**16
"""Bytes of a note that are read; ours have far fewer."""


@dataclass(frozen=True)
class Note:
    """What a rank says of itself.

    Attributes
    ----------
    process, started : int
        Its number, and when it started, in the kernel's ticks: numbers come again.
    kernel, processes, time : str
        Where those mean something: the running kernel, and two namespaces.
    session : str
        Folder of temporary files of the launcher, if it has one that only it uses.
    files : list of (str, int, int) or None
        Path, device and inode of the shared memory it uses; None before that is known.
    """

    process: int
    started: int
    kernel: str
    processes: str
    time: str
    session: str = ""
    files: list[tuple[str, int, int]] | None = field(default=None)


def begin(folder: Path = SHM) -> None:
    """Note that this process is about to become a rank; sweep after those before it."""
    sweep(folder)
    _write(None, folder)
    atexit.register(_forget, os.getpid(), folder, os.environ.get(LAUNCH, ""))


def record(folder: Path = SHM) -> None:
    """Note which shared memory this rank uses; nothing if it never began."""
    if _place(os.getpid(), folder).exists():
        _write(sorted(_mapped(os.getpid(), folder)), folder)


def _write(files: list[tuple[str, int, int]] | None, folder: Path) -> None:
    state = _state(os.getpid())
    if state is None:
        return  # without /proc nothing could be told from anything
    here = identity.here()
    pids = identity.namespace(identity.PROCESSES)
    session = os.environ.get(SESSION, "")
    note = Note(os.getpid(), state[1], here.kernel, pids, here.time, session, files)
    with suppress(OSError):  # no such folder, or no room in it: then without
        place = _place(note.process, folder)
        began = place.stat().st_mtime if files is not None else None
        place.write_text(json.dumps(asdict(note)), encoding="utf-8")
        if began is not None:
            os.utime(place, (began, began))


def _forget(process: int, folder: Path, launch: str) -> None:
    """Remove the note of a rank that ends well, where nobody waits for its end.

    The MPI library unlinks its files after this, and may be killed before: where the
    process that started the ranks is on this host, it looks when they are dead.
    """
    starter = launch.partition("-")[0]
    waiting = starter.isdigit() and _state(int(starter)) is not None
    if process == os.getpid() and not waiting:
        with suppress(OSError):
            _place(process, folder).unlink()


def sweep(folder: Path = SHM) -> list[str]:
    """Remove what dead ranks of this user left on this host, and their notes.

    A file is removed if a note names it and no process has it mapped or open. If a rank
    died before it named anything, so are files of the kinds that MPI libraries make,
    this user's, from the seconds after its beginning, that no process uses; only where
    all processes of this machine are seen, and so not in a container.

    Parameters
    ----------
    folder : Path
        Where shared memory is.

    Returns
    -------
    list of str
        What was removed, notes aside.
    """
    dead = [(place, note) for place, note in _notes(folder) if not _lives(note)]
    left = set().union(*(_left_by(place, note, folder) for place, note in dead))
    used = set().union(*map(_used, _processes())) if left else set()
    removed = []
    for path, device, inode in left:
        if (device, inode) not in used and _identity(path) == (device, inode):
            with suppress(OSError):
                Path(path).unlink()
                removed.append(path)
    for place, note in dead:
        if session := _dead_session(note):
            shutil.rmtree(session, ignore_errors=True)
            removed.append(str(session))
        with suppress(OSError):
            place.unlink()
    return removed


def end_session(launcher: int, temporary: str) -> None:
    """Remove the folder of temporary files of a launcher that was killed.

    It may have died before any of its ranks could note that folder.

    Parameters
    ----------
    launcher : int
        Number of the process, a child of this one that has been waited for.
    temporary : str
        Its ``TMPDIR``; empty for the usual one.
    """
    for begin in SESSIONS:
        session = Path(temporary or tempfile.gettempdir()) / f"{begin}{launcher}"
        with suppress(OSError):
            if session.lstat().st_uid == os.getuid() and _state(launcher) is None:
                shutil.rmtree(session, ignore_errors=True)


def _notes(folder: Path) -> Iterator[tuple[Path, Note]]:
    """Yield the notes of this user's ranks whose numbers mean something here."""
    here = identity.kernel(), identity.namespace(identity.PROCESSES)
    for place in list(folder.glob(NOTE + "*")):  # the caller may leave early
        with suppress(OSError, ValueError, TypeError):
            status = place.lstat()
            if status.st_uid != os.getuid() or status.st_size > READABLE:
                continue
            note = Note(**json.loads(place.read_text(encoding="utf-8")))
            files = [(str(p), int(d), int(i)) for p, d, i in note.files or ()]
            if (note.kernel, note.processes) == here and files == [
                tuple(file) for file in note.files or ()
            ]:
                yield place, note


def _lives(note: Note) -> bool:
    state = _state(note.process)
    if state is None or state[0] in "ZX":
        return False
    # Another time namespace counts the start from another moment.
    return identity.here().time != note.time or state[1] == note.started


def _left_by(place: Path, note: Note, folder: Path) -> set[tuple[str, int, int]]:
    """Return what of a dead rank is still there."""
    if note.files is not None:
        return {
            (path, device, inode)
            for path, device, inode in note.files
            if Path(path).parent == folder and _identity(path) == (device, inode)
        }
    found: set[tuple[str, int, int]] = set()
    if note.processes == ALL_PROCESSES:
        with suppress(OSError):
            began = place.stat().st_mtime
            for path in [one for kind in MADE_BY_MPI for one in folder.glob(kind)]:
                status = path.lstat()
                ours = status.st_uid == os.getuid()
                if ours and 0 <= status.st_mtime - began <= STARTING:
                    found.add((str(path), status.st_dev, status.st_ino))
    return found


def _dead_session(note: Note) -> Path | None:
    """Return the folder of a launcher that is dead: its number ends the folder's name.

    One that lives, or ended by itself, removes its folder.
    """
    path = Path(note.session)
    number = path.name.rpartition(".")[2]
    known = path.name.startswith(SESSIONS) and number.isdigit()
    if not note.session or not known or path.parent != Path(tempfile.gettempdir()):
        return None
    with suppress(OSError):
        if path.lstat().st_uid == os.getuid() and _state(int(number)) is None:
            return path
    return None


def _place(process: int, folder: Path) -> Path:
    return folder / f"{NOTE}{process}"


def _state(process: int) -> tuple[str, int] | None:
    """Return a process's state and start in the kernel's ticks; None if it is gone."""
    try:
        words = (
            Path(f"/proc/{process}/stat")
            .read_text(encoding="utf-8")
            .rpartition(")")[2]
            .split()
        )
    except OSError:
        return None
    return words[0], int(words[19])


def _identity(path: str) -> tuple[int, int] | None:
    with suppress(OSError):
        status = os.lstat(path)
        return status.st_dev, status.st_ino
    return None


def _processes() -> Iterable[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _mapped(process: int, folder: Path) -> set[tuple[str, int, int]]:
    """Return path, device and inode of what a process has mapped in `folder`."""
    found = set()
    with suppress(OSError):
        for line in (
            Path(f"/proc/{process}/maps").read_text(encoding="utf-8").splitlines()
        ):
            words = line.split(None, 5)
            if len(words) == 6 and Path(words[5]).parent == folder:
                major, _, minor = words[3].partition(":")
                device = os.makedev(int(major, 16), int(minor, 16))
                found.add((words[5], device, int(words[4])))
    return found


def _used(process: int) -> set[tuple[int, int]]:
    """Return device and inode of what a process has open or mapped, files of all kinds.

    First what is open: a file is closed only once it is mapped.
    """
    found: set[Any] = set()
    with suppress(OSError):
        for path in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                status = path.stat()
                found.add((status.st_dev, status.st_ino))
    with suppress(OSError):
        for line in (
            Path(f"/proc/{process}/maps").read_text(encoding="utf-8").splitlines()
        ):
            words = line.split(None, 5)
            major, _, minor = words[3].partition(":")
            found.add((os.makedev(int(major, 16), int(minor, 16)), int(words[4])))
    return found
