"""Labeled pictures: shapes of the known data sets, generated ones, crops and flips."""

import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsgd_bench import rng
from dsgd_bench.arrays import Array
from dsgd_bench.errors import ConfigError
from dsgd_bench.problems import data
from dsgd_bench.problems.base import at_least, fits
from dsgd_bench.problems.catalog import FOLDER
from dsgd_bench.problems.data import Data, Size

SHAPES = {
    "digits": (1, 8, 8),
    "generated": (3, 32, 32),
    "mnist": (1, 28, 28),
    "fashion-mnist": (1, 28, 28),
    "cifar-10": (3, 32, 32),
}
"""Channels, height and width of one picture, by the name of the data."""

TILE = 8
"""Pixels of the squares that generated pictures are made of."""

CONTRAST = 0.5
"""Typical height of a square of a generated picture, in units of the noise."""

CROP = 4
"""Pixels by which a crop moves a picture at most (K. He et al., arXiv:1512.03385,
section 4.2)."""


def load(
    name: str, size: Size, *, seed: int, dtype: np.dtype[Any], folder: str = FOLDER
) -> tuple[Data, tuple[int, int, int]]:
    """Return pictures as flat rows, channel by channel, and the shape of one.

    Parameters
    ----------
    name : str
        One of `SHAPES`.
    size : Size
        Samples and classes of generated pictures; for others the default.
    seed : int
        Seed of generated pictures.
    dtype : numpy.dtype
        Element type of the pixels.
    folder : str
        Where published data lie.

    Raises
    ------
    ConfigError
        As `dsgd_bench.problems.data.load`.
    """
    if name not in SHAPES:
        raise ConfigError(
            f"problem setting data is {name!r}; use one of: {', '.join(SHAPES)}"
        )
    if name == "generated":
        return generated(size, SHAPES[name], seed=seed, dtype=dtype), SHAPES[name]
    found = data.load(name, size, seed=seed, dtype=dtype, folder=folder)
    return found, SHAPES[name]


def generated(
    size: Size, shape: tuple[int, int, int], *, seed: int, dtype: np.dtype[Any]
) -> Data:
    """Return pictures of random squares, one pattern for each class, under noise.

    Each is moved by a random distance around the edges, so that a network has to look
    for the pattern. A fifth as many samples (at least one) are held out.
    """
    at_least(1, samples=size.samples)
    at_least(2, classes=size.classes)
    random = rng.generator(seed, "pictures")
    channels, height, width = shape
    count = size.samples + max(1, size.samples // 5)
    nbytes = (count + size.classes) * math.prod(shape) * dtype.itemsize
    fits(nbytes, samples=size.samples, classes=size.classes)
    squares = (size.classes, channels, height // TILE, width // TILE)
    patterns = random.standard_normal(squares, dtype=np.float32)
    patterns = patterns.repeat(TILE, axis=2).repeat(TILE, axis=3) * CONTRAST
    labels = random.integers(size.classes, size=count)
    moves = random.integers(0, (height, width), size=(count, 2))
    inputs = random.standard_normal((count, *shape), dtype=np.float32)
    for k, move in enumerate(moves):
        inputs[k] += np.roll(patterns[labels[k]], tuple(move), axis=(1, 2))
    rows = inputs.reshape(count, -1).astype(dtype, copy=False)
    n = size.samples
    return Data(rows[:n], labels[:n], rows[n:], labels[n:], size.classes)


def draw_moves(seed: int, indices: NDArray[np.intp], out: NDArray[np.int64]) -> None:
    """Draw how far each picture of a batch moves, and whether it is mirrored.

    The address of the draw is the batch itself: a function of (seed, indices), so every
    algorithm sees the same pictures and a restart needs no saved state.

    Parameters
    ----------
    seed : int
        Seed of the trial.
    indices : NDArray[numpy.intp]
        Training samples of the batch.
    out : NDArray[numpy.int64]
        Receives rows, columns (from -`CROP` to `CROP`) and 0 or 1, shape (3, batch).
    """
    address = zlib.crc32(indices.tobytes())
    random = rng.generator(seed, "crops", address)
    out[:2] = random.integers(-CROP, CROP + 1, size=(2, len(indices)))
    out[2] = random.integers(2, size=len(indices))


def place(rows: Array, pixels: Array, moved: NDArray[np.int64] | None = None) -> None:
    """Copy pictures in flat rows to maps on the host; move and mirror each if asked.

    Parameters
    ----------
    rows : array of shape (batch, channels * height * width)
        The pictures.
    pixels : array of shape (channels, batch, height, width)
        Receives them.
    moved : array of shape (3, batch), optional
        See `draw_moves`; what comes in over an edge is zero.
    """
    channels, batch, height, width = pixels.shape
    pictures = rows.reshape(batch, channels, height, width)
    if moved is None:
        pixels[...] = pictures.transpose(1, 0, 2, 3)
        return
    pixels[...] = 0
    for k, (dy, dx, mirrored) in enumerate(moved.T.tolist()):
        picture = pictures[k, :, :, ::-1] if mirrored else pictures[k]
        to_y, from_y = _overlap(dy, height)
        to_x, from_x = _overlap(dx, width)
        pixels[:, k, to_y, to_x] = picture[:, from_y, from_x]


def _overlap(move: int, size: int) -> tuple[slice, slice]:
    """Return where pixels go, and where they come from, that move within `size`."""
    start, end = max(0, move), min(size, size + move)
    return slice(start, end), slice(start - move, end - move)
