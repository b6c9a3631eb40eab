"""Files that HDF5 writes, on a disk that may become full.

HDF5 cannot close a file whose last part it cannot write, and crashes the process when
that ends (1.14). So it writes into this file object, which takes whatever it is given
and remembers the first error; nothing is written after that, so that what was flushed
before stays as it was. The error is raised where it can be handled: by `check`.
"""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

FAILURES = (OSError, RuntimeError, ValueError)
"""What h5py raises when HDF5 fails to write."""


class Disk(io.FileIO):
    """A new file that takes all that is written, and remembers what failed.

    Parameters
    ----------
    path : Path
        Where it is made.

    Attributes
    ----------
    error : OSError or None
        What went wrong first.

    Raises
    ------
    OSError
        If it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of `data`, or nothing any more after an error."""
        left = memoryview(data).cast("B")
        count = len(left)
        try:
            while left and self.error is None:
                left = left[super().write(left) or 0 :]
        except OSError as error:
            self.error = error
        return count

    def truncate(self, size: int | None = None) -> int:
        """Cut or extend the file, unless something has gone wrong before."""
        try:
            return super().truncate(size) if self.error is None else size or 0
        except OSError as error:
            self.error = error
            return size or 0

    def check(self) -> None:
        """Raise what went wrong, if anything did.

        Raises
        ------
        OSError
            The first error.
        """
        if self.error is not None:
            raise self.error


@contextmanager
def written(path: Path) -> Iterator[h5py.File]:
    """Write an HDF5 file in a ``with`` block.

    Raises
    ------
    OSError
        If it cannot be written; what there is of it stays.
    """
    with Disk(path) as disk:
        try:
            with h5py.File(disk, "w") as file:
                yield file
        except FAILURES as error:
            disk.check()
            raise OSError(errno.EIO, " ".join(str(error).split())) from error
        disk.check()


def why(error: OSError) -> str:
    """Return what an error says, without what HDF5 adds for its developers."""
    if error.filename is not None and error.strerror:  # HDF5 never names a file so
        return error.strerror
    return os.strerror(error.errno) if error.errno else " ".join(str(error).split())
