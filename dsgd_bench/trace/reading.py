"""The door to every HDF5 file of ours, any of which may be damaged.

HDF5 believes what it reads. Of 6,000 traces and shards with flipped bits, most made
h5py raise something (RuntimeError, KeyError, TypeError, MemoryError, ...), four crashed
the process and one kept it busy for ever. So a file that is complete ends with a seal,
a digest of all that stands before it; HDF5 ignores what follows its own end, and cuts
it off if it changes the file.

With the right seal a file is as we wrote it. With a wrong one it is refused before HDF5
sees it. Without one it is from a killed rank, an older version or somebody who changed
it, or is cut off: then it is first read by another process, see `trace.inspector`.
(Checksums by HDF5 itself, Fletcher32, are for data only: it crashes on the rest.)
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dsgd_bench.errors import TraceError
from dsgd_bench.io import files
from dsgd_bench.io.escape import plain
from dsgd_bench.trace import inspector

MARK = b"\ndsgd-bench seal\n"
DIGEST = 32
TRAILER = len(MARK) + DIGEST
"""Bytes of a seal: a mark, then the digest."""

AGAIN = "run again"


@contextmanager
def reading(path: Path, advice: str = AGAIN) -> Iterator[None]:
    """Turn whatever goes wrong in the block into one sentence about a file.

    Parameters
    ----------
    path : Path
        The file that is read in the block.
    advice : str
        What to do, the end of the sentence.

    Raises
    ------
    TraceError
        If the block raises any exception.
    """
    try:
        yield
    except TraceError:
        raise
    except Exception as error:  # noqa: BLE001 - h5py, JSON and NumPy raise all there are
        reason = plain(" ".join(str(error).split())) or type(error).__name__
        if isinstance(error, MemoryError):
            reason = "it asks for too much memory"
        elif isinstance(error, KeyError):
            reason = f"{reason} is missing"
        elif isinstance(error, OSError) and error.strerror and error.errno:
            reason = plain(error.strerror)
        raise TraceError(f"{path} cannot be read ({reason}): {advice}") from None


@contextmanager
def opened(path: Path, advice: str = AGAIN) -> Iterator[h5py.File]:
    """Open an HDF5 file of ours in a ``with`` block, if it is safe to do so.

    Parameters
    ----------
    path, advice
        As in `reading`.

    Raises
    ------
    TraceError
        If it cannot be read, or anything goes wrong in the block.
    """
    with reading(path, advice):
        if problem := _problem_with(path):
            raise ValueError(problem)
        with h5py.File(path, "r", locking=False) as file:
            yield file


def array(item: Any) -> NDArray[Any]:
    """Return what a dataset holds.

    Raises
    ------
    ValueError
        If it is no dataset of numbers, or pretends to be larger than it can be.
    """
    inspector.check(item)
    return np.asarray(item[()])


def seal(path: Path) -> None:
    """Write the digest of a file that is complete behind it.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    with path.open("r+b") as file:
        digest = hashlib.file_digest(file, _digest).digest()
        file.seek(0, os.SEEK_END)
        file.write(MARK + digest)


def _digest() -> Any:
    return hashlib.blake2b(digest_size=DIGEST)


def _problem_with(path: Path) -> str:
    """Say why a file is better not given to HDF5, or nothing."""
    before = max(0, files.size(path) - TRAILER)
    digest = _digest()
    with path.open("rb") as file:
        left = before
        while left and (block := file.read(min(left, 2**20))):
            digest.update(block)
            left -= len(block)
        trailer = file.read(TRAILER)
    if trailer.startswith(MARK):
        right = digest.digest() == trailer[len(MARK) :]
        return "" if right else "it is not as it was written"
    digest.update(trailer)
    content = digest.digest()  # a report reads a file several times: ask once
    if content not in _asked:
        _asked[content] = inspector.problem_with(path)
    return _asked[content]


_asked: dict[bytes, str] = {}
