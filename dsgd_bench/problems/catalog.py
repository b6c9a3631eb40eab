"""Published data sets that problems read from a local folder, and their checksums.

Nothing here looks at a network; `dsgd_bench.problems.fetch` does.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from dsgd_bench.errors import ConfigError
from dsgd_bench.io import files, user_text
from dsgd_bench.problems import formats
from dsgd_bench.problems.formats import Bytes, FormatError

FOLDER = "data"
"""Where data sets lie, each in a folder of its name, if nothing else is said."""

SHARED = Path("/usr/share/datasets")
"""Where packages of Debian put data sets, each in a folder of its name; looked at where
the user's folder has none of a set."""

SPARE = 2**20
"""Bytes that a file may be longer than what was published: it may be packed otherwise,
and a sentence tells how long it is."""

IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
"""Images and labels for training, then those held out."""

CIFAR_NAMES = (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin")
"""Five files for training, then the one held out."""

CIFAR_FOLDER = "cifar-10-batches-bin"
"""What unpacking the archive of CIFAR-10 makes."""

Parts: TypeAlias = list[tuple[Bytes, Bytes]]
"""Pixels and labels, file by file."""


@dataclass(frozen=True)
class File:
    """A published file.

    Attributes
    ----------
    name : str
        Its name, without folders.
    md5 : str
        Checksum of its content, 32 hexadecimal digits.
    nbytes : int
        Its size.
    """

    name: str
    md5: str
    nbytes: int


@dataclass(frozen=True)
class DataSet:
    """A published data set.

    Attributes
    ----------
    name : str
        What a study calls it, and its folder.
    url : str
        Where its packed files are published, up to and with the last slash.
    packed : tuple of File
        What is downloaded.
    files : tuple of File
        The same, unpacked: taken where a packed file is not there. What counts is their
        content: a packed file may have been packed again elsewhere.
    parse : callable
        From the content of the unpacked files by name to training and held-out parts.
    """

    name: str
    url: str
    packed: tuple[File, ...]
    files: tuple[File, ...]
    parse: Callable[[Mapping[str, bytes]], tuple[Parts, Parts]]

    @property
    def nbytes(self) -> int:
        """Size of the download."""
        return sum(file.nbytes for file in self.packed)

    def place(self, folder: Path) -> Path:
        """Return the folder of its files, inside the `folder` of all data sets."""
        return folder / self.name

    def where(self, folder: Path) -> Path:
        """Return the folder in which its files lie: its `place`, or that of a package.

        It is the `place` where neither has any of them.
        """
        places = (self.place(folder), self.place(SHARED))
        return next(filter(self._is_begun, places), places[0])

    def _is_begun(self, place: Path) -> bool:
        return any(_lies(place, file) for file in (*self.packed, *self.files))

    def by_hand(self, folder: Path) -> str:
        """Say how to get it without this program."""
        names = ", ".join(file.name for file in self.packed)
        return f"download {names} from {self.url} into {self.place(folder)}"


def find(name: str) -> DataSet:
    """Return the data set called `name`.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if name not in DATA_SETS:
        raise ConfigError(
            f"there is no data set {name!r} to fetch; use one of: "
            f"{', '.join(DATA_SETS)}"
        )
    return DATA_SETS[name]


def read(data_set: DataSet, folder: Path) -> tuple[Parts, Parts]:
    """Return training and held-out samples of a data set, checked in every way.

    Raises
    ------
    ConfigError
        If a file is missing, is not the published one, or cannot be read.
    """
    try:
        return data_set.parse(_contents(data_set, data_set.where(folder)))
    except FormatError as error:
        raise ConfigError(
            f"{error}; run `dsgd-bench data fetch {data_set.name} --folder {folder}`, "
            f"or {data_set.by_hand(folder)}"
        ) from error


def is_begun(data_set: DataSet, folder: Path) -> bool:
    """Say whether any file of a data set is there."""
    place = data_set.where(folder)
    return any(_lies(place, file) for file in (*data_set.packed, *data_set.files))


def is_intact(data_set: DataSet, folder: Path) -> bool:
    """Say whether all files of a data set are there, with the published content."""
    try:
        return is_begun(data_set, folder) and bool(read(data_set, folder))
    except ConfigError:
        return False


def _contents(data_set: DataSet, place: Path) -> dict[str, bytes]:
    """Return the content of the unpacked files by name, whatever form is there."""
    found: dict[str, bytes] = {}
    unpacked = {file.name: file.nbytes + SPARE for file in data_set.files}
    for file in data_set.packed:
        if path := _lies(place, file):
            content = _content(path, sum(unpacked.values()))
            try:
                inner = formats.unpack(content, str(path), unpacked)
            except FormatError:
                _check(content, file, str(path))  # says more, if it is another file
                raise
            if _md5(content) != file.md5:  # packed elsewhere: what is in it?
                _check_inner(data_set, path, inner)
            found |= inner
    for file in data_set.files:
        if file.name in found:
            continue
        path = _lies(place, file)
        if path is None:
            raise FormatError(f"{place} has no {file.name}, packed or unpacked")
        found[file.name] = _content(path, file.nbytes + SPARE)
        _check(found[file.name], file, str(path))
    return found


def _check_inner(data_set: DataSet, path: Path, inner: Mapping[str, bytes]) -> None:
    """Refuse a packed file that does not hold what was published."""
    for file in data_set.files:
        if file.name in inner:
            _check(inner[file.name], file, f"{file.name} in {path}")


def _lies(place: Path, file: File) -> Path | None:
    """Return where a file lies: directly, or in the folder that unpacking made."""
    paths = (place / file.name, place / CIFAR_FOLDER / file.name)
    return next(filter(user_text.is_there, paths), None)


def _content(path: Path, limit: int) -> bytes:
    """Return the content of a file that has no more than `limit` bytes."""
    try:
        return files.read_bytes(path, limit=limit)
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror})") from error


def _check(content: bytes, file: File, name: str) -> None:
    """Refuse what is not the content that was published."""
    if (md5 := _md5(content)) != file.md5:
        raise FormatError(
            f"{name} has {len(content)} bytes and the MD5 checksum {md5}, expected "
            f"{file.nbytes} bytes and {file.md5}"
        )


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _idx_parts(contents: Mapping[str, bytes]) -> tuple[Parts, Parts]:
    items = [(name, contents[name]) for name in IDX_NAMES]
    training, held = formats.idx_images(*items[:2]), formats.idx_images(*items[2:])
    if training[0].shape[1] != held[0].shape[1]:
        raise FormatError(
            f"{IDX_NAMES[2]} has images of {held[0].shape[1]} pixels, expected "
            f"{training[0].shape[1]} as in {IDX_NAMES[0]}"
        )
    return [training], [held]


def _cifar_parts(contents: Mapping[str, bytes]) -> tuple[Parts, Parts]:
    parts = [formats.cifar(contents[name], name) for name in CIFAR_NAMES]
    return parts[:-1], parts[-1:]


def _idx_set(
    name: str,
    url: str,
    packed: tuple[tuple[str, int], ...],
    files: tuple[str, ...],
) -> DataSet:
    """Return a data set of four IDX files, given (MD5, size) packed, MD5 unpacked."""
    named = zip(IDX_NAMES, packed, strict=True)
    sized = zip(IDX_NAMES, files, (47040016, 60008, 7840016, 10008), strict=True)
    return DataSet(
        name=name,
        url=url,
        packed=tuple(File(f"{stem}.gz", md5, size) for stem, (md5, size) in named),
        files=tuple(File(*values) for values in sized),
        parse=_idx_parts,
    )


# Sums of the unpacked files: those of Fashion-MNIST were computed from Debian's package
# dataset-fashion-mnist 0.0~git20200523.55506a9-1. Those of MNIST and of CIFAR-10's
# binary version are what several public projects state that check them, independently
# of each other; a packed file with the published sum of its own is taken without them.
_CIFAR_MD5 = (
    "5dd7e06a14cb22eb9f671a540d1b7c25",
    "5ea93a67294ea407fff1d09f752e9692",
    "942cd6a4bcdd0dd3c604fbe906cb4421",
    "ae636b3ba5c66a11e91e8cb52e771fcb",
    "53f37980c15c3d472c316c40844f3f0d",
    "803d5f7f4d78ea53de84dbe85f74fb6d",
)

_ALL = (
    _idx_set(
        "mnist",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        (
            ("f68b3c2dcbeaaa9fbdd348bbdeb94873", 9912422),
            ("d53e105ee54ea40749a09fcbcd1e9432", 28881),
            ("9fb629c4189551a2d022fa330f9573f3", 1648877),
            ("ec29112dd5afa0611ce80d1b7f02629c", 4542),
        ),
        (
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
    ),
    _idx_set(
        "fashion-mnist",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        (
            ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26421880),
            ("25c81989df183df01b3e8a0aad5dffbe", 29515),
            ("bef4ecab320f06d8554ea6380940ec79", 4422102),
            ("bb300cfdad3c16e7a12a480ee83cd310", 5148),
        ),
        (
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "9018921c3c673c538a1fc5bad174d6f9",
            "8181f5470baa50b63fa0f6fddb340f0a",
            "15d484375f8d13e6eb1aabb0c3f46965",
        ),
    ),
    DataSet(
        name="cifar-10",
        url="https://www.cs.toronto.edu/~kriz/",
        packed=(
            File(
                "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", 170052171
            ),
        ),
        files=tuple(
            File(name, md5, 30730000)
            for name, md5 in zip(CIFAR_NAMES, _CIFAR_MD5, strict=True)
        ),
        parse=_cifar_parts,
    ),
)

DATA_SETS: dict[str, DataSet] = {data_set.name: data_set for data_set in _ALL}
"""Every data set that can be fetched, by its name."""
