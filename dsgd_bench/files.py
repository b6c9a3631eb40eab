"""Files that anybody may have put there: read only files, replace only files.

A FIFO, a device or a folder may lie where a file is expected, a name may be a link, a
text may be in any encoding, and a disk may be full in the middle of a line. Whatever
is read or written below a results folder, or under a name that a user gave, goes
through here.
"""

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

READ_LIMIT = 64 * 2**20
"""Bytes of the largest file of text that is read."""

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
    # Looked at first: to open a device may already do something.
    _refuse_other_kinds(path, path.stat().st_mode)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        _refuse_other_kinds(path, os.fstat(descriptor).st_mode)
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


def lock_file(path: Path) -> TextIO:
    """Open a file to lock it, and make it if there is none; its content is lost.

    Raises
    ------
    OSError
        If it cannot be written, or what lies there is no regular file.
    """
    with suppress(FileNotFoundError):
        _refuse_other_kinds(path, path.stat().st_mode)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o666), "w", encoding="utf-8")


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
    place = path.resolve()
    with suppress(FileNotFoundError):
        _refuse_other_kinds(path, place.stat().st_mode)
    mark = f".{os.getpid()}-{threading.get_ident()}.part"
    scratch = place.with_name(place.name + mark)
    try:
        yield scratch
        scratch.replace(place)
    except BaseException:
        with suppress(OSError):
            scratch.unlink()
        raise


def _refuse_other_kinds(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kind = next((name for test, name in KINDS if test(mode)), "something else")
    number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(number, f"it is {kind}, not a file", str(path))
