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
Times are virtual and never share a table with measured ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dsgd_bench.arrays import Array
from dsgd_bench.clock import Ledger
from dsgd_bench.errors import FabricError
from dsgd_bench.fabric.mailbox import VirtualMessages
from dsgd_bench.fabric.world import HelperGreenlet, Meeting, Network, World

__all__ = ["HelperGreenlet", "Network", "VirtualFabric", "VirtualWindow", "World"]


class VirtualFabric:
    """One rank's way to the others in a `World`."""

    kind = "virtual"
    progress_running = False

    def __init__(self, world: World, rank: int) -> None:
        self.world = world
        self.rank, self.size = rank, world.size
        self.ledger = Ledger(self.now)
        self.offsets = [0.0] * self.size
        self.near = frozenset({rank})  # the others are as far as a network can be
        self._meetings = 0
        self._carrying_until = 0.0
        self._windows = 0
        self._channels = 0

    def now(self) -> float:
        """Return the virtual time in seconds."""
        return self.world.time

    def pause(self, seconds: float) -> None:
        """Let virtual time pass; a zero pause still lets others run."""
        self.world.sleep(seconds)

    def average(self, x: Array) -> None:
        """Replace `x` by its mean over all ranks, in place; everyone waits."""
        with self.averaging(x):
            pass

    def averaging(self, x: Array) -> "_Averaging":
        """Start the mean on entry, finish it on exit; `x` holds NaN in between."""
        return _Averaging(self, x)

    def window(
        self,
        length: int,
        dtype: DTypeLike,
        like: NDArray[Any] | None = None,  # noqa: ARG002 (all memory is the host's)
    ) -> "VirtualWindow":
        """Open a window of `length` zeros on every rank; collective."""
        number = self._windows
        self._windows += 1
        memory = np.zeros(length, dtype)
        parts = self.gather(memory)
        self.world.windows.setdefault(number, parts)
        return VirtualWindow(self, self.world.windows[number])

    def messages(self) -> "VirtualMessages":
        """Open a channel for two-sided messages; collective."""
        self._channels += 1
        self.barrier()
        return VirtualMessages(self, self._channels)

    def beside(self) -> "HelperGreenlet":
        """Make a greenlet that works beside the training one."""
        return HelperGreenlet(self.world)

    def barrier(self) -> None:
        """Wait for everybody."""
        self.finish(self.meet("barrier", None))

    def gather(self, value: object) -> list[Any]:
        """Return everybody's `value`, by rank, on every rank."""
        values = self.finish(self.meet("gather", value))
        return [values[rank] for rank in range(self.size)]

    def nodes(self) -> list[str]:
        """Return one name for all: there is one node."""
        return ["virtual"] * self.size

    def clock_offset(self) -> tuple[float, float]:
        """Return zeros: all ranks share one clock."""
        return (0.0, 0.0)

    def start_progress(self) -> None:
        """Nothing to start: transfers progress by themselves."""

    def meet(self, what: str, value: object) -> Meeting:
        """Enter this rank's next collective without waiting for it."""
        world, number = self.world, self._meetings
        self._meetings += 1
        meeting = world.meetings.setdefault(number, Meeting(what, self.rank))
        if meeting.what != what:
            raise FabricError(
                f"collective {number} is {meeting.what} on rank {meeting.first} but "
                f"{what} on rank {self.rank}: every rank must call the same ones"
            )
        meeting.values[self.rank] = value
        if len(meeting.values) == self.size:
            del world.meetings[number]
            meeting.complete_at = world.time
            world.alive()
            for glet in meeting.waiting:
                world.wake(glet)
        return meeting

    def finish(
        self, meeting: Meeting, seconds: float = 0.0, latency: float = 0.0
    ) -> dict[int, Any]:
        """Wait until all have entered `meeting`, and until it is through the network.

        What takes some `seconds` there comes after what was started before; `latency`
        occupies nothing.
        """
        world = self.world
        if meeting.complete_at is None:
            world.park(f"waits in {meeting.what}", meeting.waiting)
        ready_at = meeting.complete_at or 0.0
        if seconds:
            ready_at = max(ready_at, self._carrying_until) + seconds
            self._carrying_until = ready_at
        world.sleep(max(0.0, ready_at + latency - world.time))
        return meeting.values

    @property
    def broken(self) -> bool:
        """Whether some rank failed, so that nobody can be met any more."""
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
        x.fill(np.nan)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            return
        fabric, x = self._fabric, self._x
        network = fabric.world.network
        if not np.isnan(x).all():
            raise FabricError(
                f"rank {fabric.rank} touched an array while it was being averaged: "
                "it is lent to the fabric until the block ends"
            )
        entered = fabric.now()
        seconds, latency = x.nbytes / network.bandwidth, network.latency
        if fabric.size == 1:
            seconds = latency = 0.0
        values = fabric.finish(self._meeting, seconds, latency)
        np.copyto(x, values[0])
        for rank in range(1, fabric.size):  # in rank order: the same bits everywhere
            x += values[rank]
        x *= 1 / fabric.size
        if fabric.size > 1:
            fabric.ledger.traffic.sent(x.nbytes)
            fabric.ledger.traffic.received(x.nbytes)
            fabric.ledger.met(entered, fabric.now())


@dataclass
class _Transfer:
    """One operation that was started and not yet completed."""

    kind: str
    local: NDArray[Any]
    part: slice
    lent: bytes  # what the local buffer must still hold when it completes


class VirtualWindow:
    """`base.Window` in virtual time: transfers happen at `flush`, in pieces."""

    def __init__(self, fabric: VirtualFabric, parts: list[NDArray[Any]]) -> None:
        self._fabric = fabric
        self._world = fabric.world
        self._parts = parts
        self._pending: dict[int, list[_Transfer]] = {}
        self._open = True
        self.memory = self.local = parts[fabric.rank]

    def within_reach(self, rank: int) -> None:
        """Return None: another rank's vector is reached by transfers only."""

    def get(self, rank: int, part: slice, out: NDArray[Any]) -> None:
        self._begin("get", rank, part, out, poison=True)

    def getting(self, rank: int, part: slice, out: NDArray[Any]) -> Callable[[], None]:
        self.get(rank, part, out)
        transfer = self._pending[rank][-1]

        def wait() -> None:
            begun = self._pending.get(rank, [])
            left = [each for each in begun if each is not transfer]
            if len(left) < len(begun):  # else it was flushed
                self._pending[rank] = left
                self._complete(transfer, rank)

        return wait

    def put(self, values: NDArray[Any], rank: int, part: slice) -> None:
        self._begin("put", rank, part, values)

    def fetch(self, rank: int, part: slice, out: NDArray[Any]) -> None:
        self._begin("fetch", rank, part, out, poison=True)

    def accumulate(self, values: NDArray[Any], rank: int, part: slice) -> None:
        self._begin("accumulate", rank, part, values)

    def _begin(
        self,
        kind: str,
        rank: int,
        part: slice,
        local: NDArray[Any],
        *,
        poison: bool = False,
    ) -> None:
        self._check_open(kind)
        if poison and local.dtype.kind == "f":
            local.fill(np.nan)
        transfer = _Transfer(kind, local, part, local.tobytes())
        self._pending.setdefault(rank, []).append(transfer)

    def flush(self, rank: int) -> None:
        self._check_open("flush")
        for transfer in self._pending.pop(rank, []):
            self._complete(transfer, rank)

    def _complete(self, transfer: _Transfer, rank: int) -> None:
        local, remote = transfer.local, self._parts[rank][transfer.part]
        count = min(self._world.network.pieces, local.size)
        lent = transfer.lent
        for number in range(count):
            piece = slice(
                local.size * number // count, local.size * (number + 1) // count
            )
            self._world.alive()
            self._pass_time(rank, local.nbytes, 1 / count)
            if local.tobytes() != lent:
                raise FabricError(
                    f"rank {self._fabric.rank} touched the buffer of a {transfer.kind} "
                    f"to rank {rank} before it was flushed"
                )
            if transfer.kind == "put":
                remote[piece] = local[piece]
            elif transfer.kind == "accumulate":
                remote[piece] += local[piece]
            else:
                local[piece] = remote[piece]
                lent = local.tobytes()

    def _pass_time(self, rank: int, nbytes: int, share: float = 1.0) -> None:
        """Let `share` of the time of one operation of `nbytes` pass."""
        network = self._world.network
        own = rank == self._fabric.rank
        latency = 0.0 if own else network.latency
        self._world.transfer(share * (latency + nbytes / network.bandwidth))

    def add(self, value: int, rank: int, index: int) -> int:
        before = self.read(rank, index)
        self._parts[rank][index] += value
        return before

    def read(self, rank: int, index: int) -> int:
        self._check_open("fetch")
        self._pass_time(rank, 8)
        return int(self._parts[rank][index])

    def compare_and_swap(self, old: int, new: int, rank: int, index: int) -> int:
        found = self.read(rank, index)
        if found == old:
            self._world.alive()
            self._parts[rank][index] = new
        self.flush(rank)
        return found

    def sync(self) -> None:
        self._check_open("sync")

    def free(self) -> None:
        self._check_open("free")
        left = [rank for rank, transfers in self._pending.items() if transfers]
        if left:
            raise FabricError(
                f"rank {self._fabric.rank} closes a window with transfers to ranks "
                f"{left} that were never flushed"
            )
        self._fabric.finish(self._fabric.meet("free a window", None))
        self._open = False
        self.memory = self.local = np.zeros(0, self.memory.dtype)

    def _check_open(self, what: str) -> None:
        if not self._open:
            raise FabricError(
                f"rank {self._fabric.rank} uses a window ({what}) after closing it"
            )
