"""Readers of data files: IDX, the binary version of CIFAR-10, LIBSVM.

They check what can be told from a file alone: magic number, dimensions, length, range
of the labels. Whether it is the file that was published, `catalog` knows.
"""

import gzip
import io
import math
import stat
import tarfile
import zlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.arrays import Array

CLASSES = 10
"""Classes of the images that are read here."""

CIFAR_PIXELS = 3 * 32 * 32
"""Bytes of one image of CIFAR-10: red, green and blue planes, row by row."""

DIGITS = 20
"""Of an index, that a sentence shows."""

LARGEST_INDEX = 2**31 - 1
"""Of a feature in a LIBSVM file: sparse rows have indices of 32 bits. Published sets of
hashed features have larger ones; dense rows would not hold them anyway."""

DENSE_LIMIT = 2 * 2**30
"""Bytes that a LIBSVM file may take as dense rows, on every rank."""

Bytes = NDArray[np.uint8]
"""Pixels, shape (samples, pixels of one), or labels, shape (samples,)."""


class FormatError(Exception):
    """A file is not what it should be: which, what was expected and what is there."""


def unpack(content: bytes, name: str, wanted: Mapping[str, int]) -> dict[str, bytes]:
    """Return the files in a packed file by name, folders left out.

    Parameters
    ----------
    content : bytes
        What the file holds.
    name : str
        Its name: it ends in ``.tar.gz`` or in ``.gz``.
    wanted : mapping
        Files that may be in it -> the most bytes of each that are unpacked.

    Raises
    ------
    FormatError
        If it is truncated, or not packed as its name says.
    """
    found: dict[str, bytes] = {}
    try:
        if not name.endswith(".tar.gz"):
            inner = PurePosixPath(name).name.removesuffix(".gz")
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
                return {inner: file.read(wanted.get(inner, 0))}
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            for member in filter(tarfile.TarInfo.isfile, archive):
                inner = PurePosixPath(member.name).name
                if inner in wanted and (part := archive.extractfile(member)):
                    found[inner] = part.read(wanted[inner])
        return found
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise FormatError(f"{name} cannot be unpacked ({error})") from error


def idx(content: bytes, name: str, *, dimensions: int) -> Bytes:
    """Return the array of an IDX file of unsigned bytes, without copying it.

    Source: http://yann.lecun.com/exdb/mnist: two zero bytes, the element type (8), the
    number of dimensions, each size as a big-endian 32-bit number, the elements.

    Raises
    ------
    FormatError
        If the magic number or the length is not right.
    """
    magic = bytes([0, 0, 8, dimensions])
    start = 4 + 4 * dimensions
    if content[:4] != magic:
        raise FormatError(
            f"{name} begins with 0x{content[:4].hex()}, expected 0x{magic.hex()}: an "
            f"IDX file of bytes in {dimensions} dimension{'s' * (dimensions > 1)}"
        )
    if len(content) < start:
        raise FormatError(f"{name} ends within its header of {start} bytes")
    sizes = np.frombuffer(content, ">u4", dimensions, offset=4).tolist()
    if len(content) != start + math.prod(sizes):
        shape = " x ".join(map(str, sizes))
        raise FormatError(
            f"{name} holds {len(content) - start} bytes after its header, expected "
            f"{math.prod(sizes)} for {shape}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)


def idx_images(
    images: tuple[str, bytes], labels: tuple[str, bytes]
) -> tuple[Bytes, Bytes]:
    """Return pixels and labels of a pair of IDX files, each given as (name, content).

    Raises
    ------
    FormatError
        If one of them is broken, if they do not belong together, or if a label is not
        a class.
    """
    pixels = idx(images[1], images[0], dimensions=3)
    classes = idx(labels[1], labels[0], dimensions=1)
    if len(pixels) != len(classes):
        raise FormatError(
            f"{labels[0]} has {len(classes)} labels, expected {len(pixels)}, one for "
            f"each image of {images[0]}"
        )
    _check_labels(classes, labels[0])
    return pixels.reshape(len(pixels), -1), classes


def cifar(content: bytes, name: str) -> tuple[Bytes, Bytes]:
    """Return pixels and labels of one file of CIFAR-10's binary version.

    Source: https://www.cs.toronto.edu/~kriz/cifar.html: for each image one byte of
    label and 3072 bytes of pixels.

    Raises
    ------
    FormatError
        If the length is not right or a label is not a class.
    """
    record = 1 + CIFAR_PIXELS
    if not content or len(content) % record:
        raise FormatError(
            f"{name} is {len(content)} bytes long, expected a multiple of {record}: "
            "one label and one image of 32 x 32 x 3 bytes each time"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    _check_labels(records[:, 0], name)
    return records[:, 1:], records[:, 0]


def _check_labels(labels: Bytes, name: str) -> None:
    if labels.size and labels.max() >= CLASSES:
        raise FormatError(
            f"{name} has a label {labels.max()}, expected labels from 0 to "
            f"{CLASSES - 1}"
        )


def libsvm(path: Path, dtype: np.dtype[Any]) -> tuple[Array, NDArray[np.int64], int]:
    """Return the rows of a LIBSVM file, the class of each, and the number of classes.

    A line is ``LABEL INDEX:VALUE INDEX:VALUE ...``; what is not named is zero. The rows
    are dense. Labels are whole numbers; classes count from 0 in their order.

    Raises
    ------
    FormatError
        If there is no such file, it is not in this format, has fewer than two classes,
        or would take more than `DENSE_LIMIT` bytes.
    """
    rows, labels = _sparse(path, dtype)
    samples, features = rows.shape
    nbytes = samples * features * dtype.itemsize
    if nbytes > DENSE_LIMIT:
        raise FormatError(
            f"{path} has {samples} samples of {features} features, which take "
            f"{nbytes / 2**30:.3g} GiB as dense rows on every rank, and the limit is "
            f"{DENSE_LIMIT / 2**30:.3g} GiB"
        )
    finite = np.isfinite(rows.data).all() and np.isfinite(labels).all()
    if not (finite and (labels == np.rint(labels)).all()):
        raise FormatError(
            f"{path} has values that are not finite, or labels that are not whole "
            "numbers"
        )
    names, classes = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise FormatError(f"{path} has {len(names)} class, expected two or more")
    return rows.toarray(), classes.astype(np.int64), len(names)


def _sparse(path: Path, dtype: np.dtype[Any]) -> Any:
    """Return rows, as SciPy's sparse matrix, and labels of a LIBSVM file."""
    try:
        from sklearn.datasets import load_svmlight_file
    except ImportError as error:
        raise FormatError(
            f"{path} needs the reader of scikit-learn, which is not installed"
        ) from error
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise FormatError(f"{path} is no regular file")
        return load_svmlight_file(str(path), dtype=dtype.type)
    except FileNotFoundError as error:
        raise FormatError(f"{path} does not exist") from error
    except OverflowError as error:
        raise FormatError(f"{path} has {_overflow(path)}") from error
    except MemoryError as error:
        raise FormatError(
            f"{path} is larger than the memory of this machine"
        ) from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        if "integer string conversion" in str(error):  # thousands of digits
            raise FormatError(f"{path} has {_overflow(path)}") from error
        raise FormatError(f"{path} cannot be read as LIBSVM ({error})") from error


def _overflow(path: Path) -> str:
    """Say which number of a LIBSVM file is too large for its reader, and where."""
    packed = {".gz": "gzip", ".bz2": "bz2"}.get(path.suffix)
    with import_module(packed).open(path, "rb") if packed else path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            for word in line.partition(b"#")[0].split()[1:]:
                index = word.partition(b":")[0].decode("ascii", errors="replace")
                if len(index) > DIGITS or (
                    index.isdecimal() and int(index) > LARGEST_INDEX
                ):
                    return (
                        f"the index {index[:DIGITS]}{'...' * (len(index) > DIGITS)} at "
                        f"line {number}, and the largest is {LARGEST_INDEX}, as sparse "
                        "rows have indices of 32 bits: hash the features to fewer"
                    )
    return "a number that is too large"
