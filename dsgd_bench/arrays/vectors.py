"""What a vector and its memory are, on the host or on a GPU; knows no other file here.

`dsgd_bench.arrays` passes all of it on, and adds what depends on where a vector lies.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating[Any]]
"""A model, gradient or buffer: one flat, contiguous vector, of NumPy or of CuPy."""

BLOCK_BYTES = 128 * 1024
"""Bytes of one vector that are worked on at a time; several of them fit the L2 cache.

Measured for the average of two models of 100 MiB: two to three times as fast as whole
vectors."""


def on_gpu(x: NDArray[Any]) -> bool:
    """Tell whether `x` lies on a GPU."""
    return not isinstance(x, np.ndarray)


def blocks(x: NDArray[Any]) -> Sequence[slice]:
    """Return slices that cover `x`: of at most `BLOCK_BYTES`, on a GPU a single one."""
    step = BLOCK_BYTES // x.itemsize
    if x.size <= step or on_gpu(x):  # a loop would cost more than the arithmetic
        return (slice(0, x.size),)
    return [slice(start, min(start + step, x.size)) for start in range(0, x.size, step)]


class Scratch:
    """One block of memory for intermediate results, made before the clock starts.

    On a GPU, where the operations here need none, it is made when first asked for.
    """

    def __init__(self, like: Array) -> None:
        size = blocks(like)[0].stop  # no other is larger
        self._like, self._size = like[:0], size
        self._block: Array | None = None
        if not on_gpu(like):
            self._block = np.empty_like(like, shape=size)

    def __getitem__(self, part: slice) -> Array:
        if self._block is None:
            self._block = np.empty_like(self._like, shape=self._size)
        return self._block[: part.stop - part.start]


class Host:
    """Host memory, and NumPy to work on it.

    Attributes
    ----------
    kind : str
        ``"cpu"`` or ``"cuda"``.
    xp : module
        ``numpy`` or ``cupy``.
    precision : str
        How matrices are multiplied, see `dsgd_bench.arrays.layers.matmul`.
    """

    kind = "cpu"
    xp: ModuleType = np
    precision = "float32"

    def describe(self) -> dict[str, Any]:
        """Return what provenance wants to know."""
        return {}

    @property
    def place(self) -> str:
        """Which of its host's it is; two ranks with the same one share it."""
        return self.kind

    def divide(self, ranks: int, share: float) -> None:
        """Take a part of the memory, if `ranks` of them have `share` of it together."""

    def guard(self, rank: int) -> AbstractContextManager[None]:  # noqa: ARG002
        """Say in one sentence what `rank` lacks, if its memory does not suffice."""
        return nullcontext()

    def put(self, values: ArrayLike) -> NDArray[Any]:
        """Return a copy of host `values` in this memory."""
        return np.array(values)

    def use(self) -> None:
        """Make this thread compute here."""

    def finish(self) -> None:
        """Wait until all that this thread has started here is done."""


HOST = Host()


class Rule(NamedTuple):
    """How a gradient moves a model; `dsgd_bench.trial.optimizer` has the formulas."""

    lr: float
    momentum: float = 0.0
    decay: float = 0.0
    nesterov: bool = False
