"""Threads that share the work of one layer on the host.

The products of a convolution are narrow, and a library of linear algebra that shares
out each of them gains nothing: its threads meet thousands of times in a gradient, and
what lies between the products stays with one thread. So a layer deals out images or
channels instead, and the threads meet once per layer and direction. NumPy lets go of
Python's lock in its inner loops. What each thread does is set by their number alone,
so results repeat bit for bit for one number.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from functools import cache, cached_property, partial
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from dsgd_bench.host import environment

T = TypeVar("T")


class Team:
    """Threads that work on the parts of a layer at the same time.

    Parameters
    ----------
    count : int
        How many, that of the caller included. The others start when first needed.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        # What is computed while a model diverges is no news; threads do not inherit it.
        quiet = partial(np.seterr, over="ignore", invalid="ignore")
        self._others = ThreadPoolExecutor(max(1, count - 1), initializer=quiet)

    def deal(self, things: Sequence[T]) -> list[Sequence[T]]:
        """Return the things in one row for each thread that gets any, in order."""
        n, count = len(things), min(len(things), self.count)
        return [things[k * n // count : (k + 1) * n // count] for k in range(count)]

    def share(self, work: Callable[[int, T], None], parts: Sequence[T]) -> None:
        """Call ``work(k, parts[k])`` for all k, each in a thread; wait for all.

        Parameters
        ----------
        work : callable
            Writes nowhere where the others read or write.
        parts : sequence
            At most `count`.
        """
        others = [self._others.submit(work, k, parts[k]) for k in range(1, len(parts))]
        try:
            work(0, parts[0])
        finally:
            wait(others)  # they still write, even if the first one failed
        for other in others:
            other.result()

    def alone(self) -> AbstractContextManager[Any]:
        """Return a block in which linear algebra starts no threads of its own."""
        if self.count == 1:
            return nullcontext()
        block: AbstractContextManager[Any] = self._libraries.limit(
            limits=1, user_api="blas"
        )
        return block

    @cached_property
    def _libraries(self) -> ThreadpoolController:
        return ThreadpoolController()


@cache
def team() -> Team:
    """Return the threads of this process: as many as linear algebra may have."""
    return Team(environment.threads())
