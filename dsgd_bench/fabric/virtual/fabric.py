"""The simulated fabric: many ranks in one process, in virtual time, stricter than MPI.

Ranks are greenlets over a heap of events: code that blocks on MPI blocks here, and
while it does, others run. One seed gives one schedule; other seeds order simultaneous
events differently and stretch every delay, so a thousand seeds are a thousand hostile
networks. What MPI leaves undefined and usually forgives raises `FabricError` here:

- a buffer touched while it is lent to the fabric (receive buffers hold NaN meanwhile),
- memory read through a window that was closed,
- ranks that call different collectives, or leave while others wait in one,
- a deadlock, with what every rank waits for.

One-sided transfers arrive in pieces, so a read without protection comes out torn.

Over an `Interconnect` the same ranks are priced, not tried: nothing is poisoned, torn
or checked, so that thousands of them run on a laptop. Times are virtual and never share
a table with measured ones.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dsgd_bench.arrays import Array
from dsgd_bench.errors import FabricError
from dsgd_bench.fabric.base import VectorWindow, WordWindow
from dsgd_bench.fabric.ledger import Ledger
from dsgd_bench.fabric.virtual.messages import VirtualMessages
from dsgd_bench.fabric.virtual.network import Interconnect, Network
from dsgd_bench.fabric.virtual.priced_window import (
    PricedVectorWindow,
    PricedWordWindow,
)
from dsgd_bench.fabric.virtual.rank import VirtualRank
from dsgd_bench.fabric.virtual.scheduler import HelperGreenlet, Schedule
from dsgd_bench.fabric.virtual.strict_window import (
    StrictVectorWindow,
    StrictWordWindow,
)

__all__ = [
    "HelperGreenlet",
    "Interconnect",
    "Network",
    "VirtualFabric",
    "World",
]


class World(Schedule):
    """The virtual time that `size` ranks share; see `Schedule` for its parameters."""

    def run(self, work: Callable[["VirtualFabric"], Any]) -> list[Any]:
        """Run ``work(fabric)`` as every rank; return what each returned, by rank.

        Raises
        ------
        FabricError
            If the ranks break a rule of MPI, or wait for each other forever.
        """
        return self.run_ranks(lambda rank: work(VirtualFabric(self, rank)))


class VirtualFabric(VirtualRank):
    """One rank's way to the others in a `World`."""

    kind = "virtual"
    progress_running = False

    def __init__(self, world: Schedule, rank: int) -> None:
        super().__init__(world, rank)
        self.ledger = Ledger(self.now)
        self.ledger.traffic.scale = world.network.scale
        self.offsets = world.zeros
        self.near = frozenset({rank})  # the others are as far as a network can be
        self._channels = 0
        self.pause = world.sleep  # a zero pause still lets others run

    def now(self) -> float:
        """Return the virtual time in seconds."""
        return self.world.time

    def average(self, x: Array) -> None:
        """Replace `x` by its mean over all ranks, in place; everyone waits."""
        with self.averaging(x):
            pass

    def averaging(self, x: Array) -> "_Averaging":
        """Start the mean on entry, finish it on exit; `x` holds NaN in between."""
        return _Averaging(self, x)

    def vectors(self, length: int, like: NDArray[Any]) -> VectorWindow:
        """Open a window of a vector of `length` zeros on every rank; collective."""
        parts = self._side_by_side(length, like.dtype)
        network = self.world.network
        if isinstance(network, Interconnect):
            return PricedVectorWindow(self, parts, network)
        return StrictVectorWindow(self, parts, network)

    def words(self, count: int) -> WordWindow:
        """Open a window of `count` control words on every rank; collective."""
        parts = self._side_by_side(count, np.int64)
        network = self.world.network
        if isinstance(network, Interconnect):
            return PricedWordWindow(self, parts, network)
        return StrictWordWindow(self, parts, network)

    def _side_by_side(self, length: int, dtype: DTypeLike) -> list[NDArray[Any]]:
        """Return zeros for all ranks, by rank: parts of one array, near each other."""
        meeting = self.meet("window", length)
        lengths = self.finish(meeting)
        if meeting.result is None:
            ends = np.cumsum([lengths[rank] for rank in range(self.size)])
            meeting.result = np.split(np.zeros(ends[-1], dtype), ends[:-1])
        return cast(list[NDArray[Any]], meeting.result)

    def messages(self) -> "VirtualMessages":
        """Open a channel for two-sided messages; collective."""
        self._channels += 1
        self.barrier()
        return VirtualMessages(self, self._channels)

    def helper(self) -> "HelperGreenlet":
        """Make a greenlet that works while the training one computes."""
        return HelperGreenlet(self.world)

    def gather(self, value: object) -> list[Any]:
        """Return the `value` of all ranks: one list for all, not to be changed."""
        meeting = self.meet("gather", value)
        values = self.finish(meeting)
        if meeting.result is None:
            meeting.result = [values[rank] for rank in range(self.size)]
        return cast(list[Any], meeting.result)

    def nodes(self) -> list[str]:
        """Return one name for all: there is one node."""
        return ["virtual"] * self.size

    def clock_offset(self) -> tuple[float, float]:
        """Return zeros: all ranks share one clock."""
        return (0.0, 0.0)

    def start_progress(self) -> None:
        """Nothing to start: transfers progress by themselves."""

    @property
    def broken(self) -> bool:
        """Whether some rank failed, so that no collective can end any more."""
        return self.world.broken

    def close(self) -> None:
        """Nothing to give back."""


class _Averaging:
    """One all-reduce in flight; the array holds NaN from entry to exit."""

    def __init__(self, fabric: VirtualFabric, x: Array) -> None:
        self._fabric = fabric
        self._x = x

    def __enter__(self) -> None:
        x = self._x
        what = f"average of {x.size} x {x.dtype}"
        self._meeting = self._fabric.meet(what, x.copy())
        if self._fabric.world.strict:
            x.fill(np.nan)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            return
        fabric, x, meeting = self._fabric, self._x, self._meeting
        world = fabric.world
        if world.strict and not np.isnan(x).all():
            raise FabricError(
                f"rank {fabric.rank} touched an array while it was being averaged: "
                "it is lent to the fabric until the block ends"
            )
        entered = fabric.now()
        with world.in_call(fabric.rank):
            complete_at = fabric.all_there(meeting)
        seconds = latency = 0.0
        if fabric.size > 1:
            price = world.network.allreduce
            seconds, latency = price(x.nbytes, fabric.rank, complete_at)
        values = fabric.finish(meeting, seconds, latency)
        if meeting.result is None:
            meeting.result = _sum([values[rank] for rank in range(fabric.size)])
            meeting.result *= 1 / fabric.size
        np.copyto(x, meeting.result)
        if fabric.size > 1:
            fabric.ledger.traffic.sent(x.nbytes)
            fabric.ledger.traffic.received(x.nbytes)
            fabric.ledger.met(entered, fabric.now())


def _sum(vectors: list[Array]) -> Array:
    """Add up pairs, then pairs of sums, in the vectors' own memory; return the sum.

    The same bits every time, and with n vectors log2 n roundings instead of n: the
    mean of equal models of a power of two of ranks is exact, as it is on MPI.
    """
    while len(vectors) > 1:
        for one, other in zip(vectors[::2], vectors[1::2], strict=False):
            np.add(one, other, out=one)
        vectors = vectors[::2]
    return vectors[0]
