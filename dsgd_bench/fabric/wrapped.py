"""A fabric around another one: what a wrapper does not change is handed on."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from numpy.typing import NDArray

from dsgd_bench.arrays import Array
from dsgd_bench.fabric.base import Fabric, Helper, Messages, VectorWindow, WordWindow


class WrappedFabric:
    """`base.Fabric` that hands everything on to the fabric below.

    A wrapper derives from it and changes what it is for. Each verb is written out, so
    that the type checker sees a verb that is missing; ``__getattr__`` would hide it,
    and costs more. What is read in every step is kept here.

    Parameters
    ----------
    fabric : Fabric
        The one below.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self.kind, self.rank, self.size = fabric.kind, fabric.rank, fabric.size
        self.ledger, self.near = fabric.ledger, fabric.near
        self.now: Callable[[], float] = fabric.now
        self.pause: Callable[[float], None] = fabric.pause

    @property
    def offsets(self) -> list[float]:
        return self._fabric.offsets

    @property
    def broken(self) -> bool:
        return self._fabric.broken

    @property
    def progress_running(self) -> bool:
        return self._fabric.progress_running

    def start_progress(self) -> None:
        self._fabric.start_progress()

    def average(self, x: Array) -> None:
        self._fabric.average(x)

    def averaging(self, x: Array) -> AbstractContextManager[None]:
        return self._fabric.averaging(x)

    def vectors(self, length: int, like: NDArray[Any]) -> VectorWindow:
        return self._fabric.vectors(length, like)

    def words(self, count: int) -> WordWindow:
        return self._fabric.words(count)

    def messages(self) -> Messages:
        return self._fabric.messages()

    def helper(self) -> Helper:
        return self._fabric.helper()

    def barrier(self) -> None:
        self._fabric.barrier()

    def nodes(self) -> list[str]:
        return self._fabric.nodes()

    def clock_offset(self) -> tuple[float, float]:
        return self._fabric.clock_offset()

    def gather(self, value: object) -> list[Any]:
        return self._fabric.gather(value)
