"""Files that anybody may have put there: read only files, replace only files.

A FIFO, a device or a folder may lie where a file is expected, a name may be a link, a
text may be in any encoding, and a disk may be full in the middle of a line. Whatever
is read or written below a results folder, or under a name that a user gave, goes
through here.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

SCRATCH = ".dsgd-bench-"
"""What the name of a file begins with that is being written, until it is whole."""

READ_LIMIT = 64 * 2**20
"""Bytes of the largest file of text that is read."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors that say that nothing more can be written, by anyone or by this user."""

BEGINNING, END = 2**10, 2**16
"""Bytes of a file that are enough to know its kind, and to have its last lines."""

KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def read_bytes(path: Path, *, limit: int = READ_LIMIT) -> bytes:
    """Return the content of a regular file; never wait for a FIFO or a device.

    Parameters
    ----------
    path : Path
        The file, or a link to it.
    limit : int
        Bytes that it may have.

    Raises
    ------
    OSError
        If it cannot be read, is no regular file, or is larger than `limit`.
    """
    with _opened(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes", str(path))
    return content


def read_text(path: Path, *, limit: int = READ_LIMIT) -> str:
    """Return the text of a regular file; what is not UTF-8 in it becomes U+FFFD.

    Raises
    ------
    OSError
        As `read_bytes`.
    """
    return read_bytes(path, limit=limit).decode("utf-8", errors="replace")


def size(path: Path) -> int:
    """Return the bytes of a regular file.

    Raises
    ------
    OSError
        If there is no such file, or it is no regular one.
    """
    found = path.stat()
    _refuse_other_kinds(path, found.st_mode)
    return found.st_size


def read_beginning(path: Path, *, nbytes: int = BEGINNING) -> str:
    """Return the text at the beginning of a regular file, however large it is.

    Raises
    ------
    OSError
        If it cannot be read or is no regular file.
    """
    with _opened(path) as file:
        return file.read(nbytes).decode("utf-8", errors="replace")


def read_end(path: Path, *, nbytes: int = END) -> str:
    """Return the text at the end of a regular file, however large it is.

    Raises
    ------
    OSError
        If it cannot be read or is no regular file.
    """
    with _opened(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - nbytes))
        return file.read(nbytes).decode("utf-8", errors="replace")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    # Looked at first: to open a device may already do something.
    _refuse_other_kinds(path, path.stat().st_mode)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        _refuse_other_kinds(path, os.fstat(descriptor).st_mode)
        yield file


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises
    ------
    OSError
        As `replacing`.
    """
    with replacing(path) as scratch:
        scratch.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, whole or not at all.

    Raises
    ------
    OSError
        As `replacing`.
    """
    write_bytes(path, text.encode("utf-8", errors="replace"))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write beside a file in a ``with`` block, and replace it when the block is done.

    Parameters
    ----------
    path : Path
        The file; a link stays, and the file that it leads to is replaced.

    Yields
    ------
    Path
        Where to write; removed if the block raises.

    Raises
    ------
    OSError
        If the file cannot be written, or if what lies there is no regular file.
    """
    place = _place(path)
    scratch = _beside(place)
    try:
        yield scratch
        with suppress(FileNotFoundError):
            shutil.copymode(place, scratch)
        scratch.replace(place)
    except BaseException:
        with suppress(OSError):
            scratch.unlink()
        raise


def no_room(error: BaseException, path: Path | None = None) -> str:
    """Return what to do if an error says that a disk is full; else nothing.

    Parameters
    ----------
    error : BaseException
        What was raised.
    path : Path, optional
        What was being written; by default the file that the error names, if it does.
    """
    if not isinstance(error, OSError) or error.errno not in FULL:
        return ""
    what = path or error.filename or "a file"
    return (
        f"cannot write {what} ({os.strerror(error.errno)}): free some space there, or "
        "choose another --results folder"
    )


def check_writable(path: Path) -> None:
    """See that a file can be written later; what it holds is kept.

    Raises
    ------
    OSError
        If there is no folder for it, it cannot be written, the disk is full, or what
        lies there is no regular file.
    """
    place = _place(path)
    with suppress(FileNotFoundError):
        os.close(os.open(place, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    scratch = _beside(place)
    try:
        scratch.write_bytes(b"\0" * 4096)
    finally:
        with suppress(OSError):
            scratch.unlink()


def _place(path: Path) -> Path:
    """Return where a name leads to; refuse what lies there and is no regular file."""
    try:
        place = path.resolve()
    except RuntimeError:  # links in a circle, before Python 3.13
        number = errno.ELOOP
        raise OSError(number, os.strerror(number), str(path)) from None
    refuse_other_kinds(path)
    return place


def refuse_other_kinds(path: Path) -> None:
    """Refuse to write what is there and no file: a folder, a FIFO, a device, a socket.

    Raises
    ------
    OSError
        If something else than a regular file, or a link to one, lies there.
    """
    with suppress(FileNotFoundError):
        _refuse_other_kinds(path, path.stat().st_mode)


def _beside(place: Path) -> Path:
    # by chance, as numbers of processes come twice: on two hosts, in two containers
    return place.with_name(f"{SCRATCH}{os.urandom(8).hex()}")


def _refuse_other_kinds(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kind = next((name for test, name in KINDS if test(mode)), "something else")
    number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(number, f"it is {kind}, not a file", str(path))
