"""Randomness by address: the same (seed, purpose, rank, step) gives the same numbers.

Philox (J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is a
counter-based generator, so a draw needs no history. Two algorithms that ask for the
slowdown of rank 3 in step 812 get the same answer however often each asked before, and
nothing has to be saved for a restart.
"""

import zlib
from array import array
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

BLOCK = 1024
"""Steps drawn at once by `Draws`."""

Sample = Callable[[np.random.Generator, int], NDArray[np.float64]]
"""Draws so many numbers at once from a generator."""


def generator(
    seed: int, purpose: str, rank: int = 0, step: int = 0
) -> np.random.Generator:
    """Return the random stream of one purpose, at one rank and step.

    Parameters
    ----------
    seed : int
        Seed of the trial.
    purpose : str
        What the numbers are for: ``"batches"``, ``"slowdown"``, ``"neighbor"``, ...
    rank, step : int
        Address of the draw. Streams of neighboring steps do not overlap as long as one
        stream yields fewer than 2**66 numbers.
    """
    key = np.array([seed, zlib.crc32(purpose.encode())], dtype=np.uint64)
    counter = np.array([0, step, rank, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def _uniform(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    return random.random(count)


class Draws:
    """One number per step: a pure function of (seed, rank, step).

    Making a generator costs several microseconds, so steps are drawn `BLOCK` at a time.

    Parameters
    ----------
    seed, purpose, rank
        Address, as of `generator`.
    sample : callable, optional
        Which numbers; uniform ones in [0, 1) by default.
    """

    def __init__(
        self, seed: int, purpose: str, rank: int, sample: Sample = _uniform
    ) -> None:
        self._address = (seed, purpose, rank)
        self._sample = sample
        self._block = -1
        self._numbers = array("d")  # a list of floats takes four times the memory

    def __getitem__(self, step: int) -> float:
        block, offset = divmod(step, BLOCK)
        if block != self._block:
            seed, purpose, rank = self._address
            stream = generator(seed, purpose, rank, block)
            self._numbers = array("d", self._sample(stream, BLOCK).tobytes())
            self._block = block
        return self._numbers[offset]
