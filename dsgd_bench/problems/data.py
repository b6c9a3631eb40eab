"""Labeled data for classification: digits, generated, published images, files."""

from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsgd_bench import rng
from dsgd_bench.arrays import Array
from dsgd_bench.errors import ConfigError
from dsgd_bench.problems import catalog, formats
from dsgd_bench.problems.base import at_least, fits

DIGITS_TRAINING = 1536
"""Digits that are trained on, of 1797. 3 * 2**9 divides evenly among many ranks, so the
usual batch sizes leave no remainder of an epoch; the other 261 are held out."""

SEPARATION = 4.0
"""Typical distance between two centers of generated classes, in units of the noise."""

NORM = 4.0
"""Typical Euclidean norm of a generated input; digits have about 3.9."""

NAMES = ("digits", "generated", *catalog.DATA_SETS)
"""What the setting ``data`` may be."""

CHUNK = 65_536
"""Generated samples that are moved to their centers at a time."""

HELD = 6
"""One of so many samples of a LIBSVM file is held out, as of generated data."""


@dataclass(frozen=True)
class Size:
    """Size of generated data: training samples, features of each, classes."""

    samples: int = 10_000
    features: int = 100
    classes: int = 10


@dataclass(frozen=True)
class Data:
    """Training and held-out samples.

    Attributes
    ----------
    inputs : Array
        Training inputs, shape (samples, features).
    labels : NDArray[numpy.int64]
        Their classes, shape (samples,), each in ``range(classes)``.
    held_inputs, held_labels : Array, NDArray[numpy.int64]
        The same for samples that are never trained on.
    classes : int
        Number of classes.
    """

    inputs: Array
    labels: NDArray[np.int64]
    held_inputs: Array
    held_labels: NDArray[np.int64]
    classes: int

    @property
    def nbytes(self) -> int:
        """Size of all of it."""
        held = self.held_inputs.nbytes + self.held_labels.nbytes
        return self.inputs.nbytes + self.labels.nbytes + held


def load(
    name: str,
    size: Size,
    *,
    seed: int,
    dtype: np.dtype[Any],
    folder: str = catalog.FOLDER,
    file: str = "",
) -> Data:
    """Return the data called `name`, or those of a file.

    Parameters
    ----------
    name : str
        One of `NAMES`; ``"digits"``, the default, if a file is named.
    size : Size
        Size of generated data; all other data take the default and nothing else.
    seed : int
        Seed of generated data; others are the same for every seed.
    dtype : numpy.dtype
        Element type of the inputs.
    folder : str
        Where published data lie; the default for all other data.
    file : str
        A file in LIBSVM format, or nothing.

    Raises
    ------
    ConfigError
        For an unknown name, an impossible size or a setting without effect, and where
        data are missing or broken.
    """
    if name not in NAMES:
        raise ConfigError(
            f"problem setting data is {name!r}; use one of: {', '.join(NAMES)}"
        )
    _without_effect(name, size, folder, file)
    if file:
        return libsvm(Path(file), dtype)
    if name == "generated":
        return generated(size, seed=seed, dtype=dtype)
    return digits(dtype) if name == "digits" else published(name, Path(folder), dtype)


def _without_effect(name: str, size: Size, folder: str, file: str) -> None:
    """Refuse settings that describe other data than those that are asked for."""
    if file and name != "digits":
        raise ConfigError(
            f"problem settings file and data = {name!r} name two sources of data; "
            "leave one of them out"
        )
    if size != Size() and (file or name != "generated"):
        raise ConfigError(
            "problem settings samples, features and classes describe generated data; "
            "leave them out, or set data = 'generated'"
        )
    if folder != catalog.FOLDER and (file or name not in catalog.DATA_SETS):
        raise ConfigError(
            "problem setting folder is where published data lie; leave it out, or set "
            f"data to one of: {', '.join(catalog.DATA_SETS)}"
        )


@lru_cache(maxsize=1)  # a study builds its problem again for every seed
def published(name: str, folder: Path, dtype: np.dtype[Any]) -> Data:
    """Return a published data set, scaled to [0, 1]; its test set is held out.

    Raises
    ------
    ConfigError
        If a file is missing, is not the published one, or cannot be read.
    """
    training, held = catalog.read(catalog.find(name), folder)
    return Data(*_scaled(training, dtype), *_scaled(held, dtype), formats.CLASSES)


def _scaled(
    parts: catalog.Parts, dtype: np.dtype[Any]
) -> tuple[Array, NDArray[np.int64]]:
    """Return the parts as one: pixels divided by 255, and labels; for reading only."""
    labels = np.concatenate([some for _, some in parts]).astype(np.int64)
    inputs: Array = np.empty((len(labels), parts[0][0].shape[1]), dtype)
    start = 0
    for pixels, _ in parts:
        end = start + len(pixels)
        np.divide(pixels, dtype.type(255), out=inputs[start:end], dtype=dtype)
        start = end
    inputs.setflags(write=False)
    return inputs, labels


@lru_cache(maxsize=1)
def libsvm(path: Path, dtype: np.dtype[Any]) -> Data:
    """Return the samples of a LIBSVM file as dense rows, their values as they are.

    One of `HELD` is held out; the split is always the same.

    Raises
    ------
    ConfigError
        If there is no such file, or it cannot be used.
    """
    try:
        rows, labels, classes = formats.libsvm(path, dtype)
    except formats.FormatError as error:
        raise ConfigError(
            f"{error}; give the problem setting file a data set in LIBSVM format"
        ) from error
    order = rng.generator(0, "held out").permutation(len(rows))
    held, n = order[: len(rows) // HELD or 1], order[len(rows) // HELD or 1 :]
    return Data(rows[n], labels[n], rows[held], labels[held], classes)


def digits(dtype: np.dtype[Any]) -> Data:
    """Return the 8 x 8 handwritten digits that scikit-learn ships, scaled to [0, 1].

    Of the 1797 samples, 1536 are for training and 261 held out; the split is always
    the same. Source: E. Alpaydin and C. Kaynak, "Optical recognition of handwritten
    digits", UCI Machine Learning Repository, 1998 (its test set).

    Raises
    ------
    ConfigError
        Where scikit-learn, or the file in it, is missing.
    """
    table = _digits_table()
    order = rng.generator(0, "digits").permutation(len(table))
    inputs = (table[order, :-1] / 16).astype(dtype)
    labels = table[order, -1].astype(np.int64)
    n = DIGITS_TRAINING
    return Data(inputs[:n], labels[:n], inputs[n:], labels[n:], classes=10)


@cache
def _digits_table() -> NDArray[np.float32]:
    """Return the file's numbers, shape (1797, 65): 64 pixels in 0..16, then the class.

    The file is read without importing scikit-learn, which would cost every rank about
    a second.
    """
    package = find_spec("sklearn")
    folders = package.submodule_search_locations if package else None
    if not folders:
        raise ConfigError(
            "problem setting data = 'digits' needs the file that scikit-learn ships, "
            "and scikit-learn is not installed; install scikit-learn, or set data = "
            "'generated'"
        )
    path = Path(folders[0]) / "datasets" / "data" / "digits.csv.gz"
    try:
        return np.loadtxt(path, delimiter=",", dtype=np.float32)
    except OSError as error:
        raise ConfigError(
            f"the digits of scikit-learn cannot be read from {path} ({error}); "
            "reinstall scikit-learn, or set data = 'generated'"
        ) from error


def generated(size: Size, *, seed: int, dtype: np.dtype[Any]) -> Data:
    """Return samples of normal distributions of equal width, one around each class.

    A fifth as many samples (at least one) are held out. Classes are equally likely and
    overlap, so no model classifies everything correctly. Inputs have about the norm of
    digits at any number of features, so that the same learning rates serve.
    """
    at_least(1, samples=size.samples, features=size.features)
    at_least(2, classes=size.classes)
    random = rng.generator(seed, "data")
    n, features = size.samples, size.features
    count = n + max(1, n // 5)
    nbytes = (count + size.classes) * features * dtype.itemsize
    fits(nbytes, samples=n, features=features, classes=size.classes)
    centers = random.standard_normal((size.classes, features), dtype=np.float32)
    centers *= SEPARATION / np.sqrt(2 * features)
    labels = random.integers(size.classes, size=count)
    inputs = random.standard_normal((count, features), dtype=np.float32)
    for start in range(0, count, CHUNK):  # at once, it would take all memory twice
        inputs[start : start + CHUNK] += centers[labels[start : start + CHUNK]]
    inputs *= NORM / np.sqrt(features + SEPARATION**2 / 2)
    inputs = inputs.astype(dtype, copy=False)
    return Data(inputs[:n], labels[:n], inputs[n:], labels[n:], size.classes)
