"""All-reduce in buckets, begun while the gradient is still being computed."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from dsgd_bench.arrays import Array
from dsgd_bench.errors import FabricError
from dsgd_bench.fabric.base import Fabric


class Buckets:
    """Averages one vector over all ranks, bucket by bucket from its end to its start.

    A bucket is started as soon as so many bytes are ready, and what is left when the
    block ends; then all of them are awaited. Every rank must report the same parts in
    the same order.

    Parameters
    ----------
    fabric : Fabric
        This rank's fabric.
    x : Array
        The vector; each part is lent from when it is ready until the block ends.
    nbytes : int
        Bytes from which on a bucket is full.
    """

    def __init__(self, fabric: Fabric, x: Array, nbytes: int) -> None:
        self._fabric, self._x, self._nbytes = fabric, x, nbytes
        self._begun: list[AbstractContextManager[None]] = []
        self._ready_from = self._begun_from = x.size

    def __enter__(self) -> Callable[[slice], None]:
        """Return what is to be called with each part that is ready."""
        self._ready_from = self._begun_from = self._x.size
        return self._ready

    def _ready(self, part: slice) -> None:
        if part.stop != self._ready_from:
            raise FabricError(
                f"elements {part.start} to {part.stop} of a gradient are said to be "
                f"ready, and those before {self._ready_from} must come next: a problem "
                "reports its parts from the end to the start, each of them once"
            )
        self._ready_from = part.start
        if (self._begun_from - self._ready_from) * self._x.itemsize >= self._nbytes:
            self._begin()

    def _begin(self) -> None:
        bucket = self._fabric.averaging(self._x[self._ready_from : self._begun_from])
        self._begun_from = self._ready_from
        bucket.__enter__()
        self._begun.append(bucket)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ready_from = 0
        if kind is None and self._begun_from > 0:
            self._begin()
        begun, self._begun = self._begun, []
        for bucket in begun:
            bucket.__exit__(kind, error, trace)
