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

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any

import greenlet
import numpy as np
from numpy.typing import DTypeLike, NDArray

from dsgd_bench import streams
from dsgd_bench.arrays import Array
from dsgd_bench.clock import Ledger
from dsgd_bench.errors import FabricError

PATIENCE = 20_000
"""Events in a row without a transfer, a lock taken or a meeting: a spin forever, if
they also took `PATIENCE_SLEEPS` times as long as the longest sleep so far."""

PATIENCE_SLEEPS = 10.0


@dataclass(frozen=True)
class Network:
    """What a transfer costs: latency plus size over bandwidth, and how it is torn.

    Attributes
    ----------
    latency : float
        Seconds of every operation between two ranks.
    bandwidth : float
        Bytes per second.
    jitter : float
        Every delay is stretched by a factor from 1 to 1 + `jitter`, drawn by the seed.
    pieces : int
        Pieces in which a put or a get arrives, others running in between; the cost
        of the whole is the same.
    """

    latency: float = 1e-6
    bandwidth: float = 1e10
    jitter: float = 0.0
    pieces: int = 1


class World:
    """The virtual time that `size` ranks share, and its schedule.

    Parameters
    ----------
    size : int
        Number of ranks.
    network : Network
        What transfers cost.
    seed : int
        Seed of the schedule.
    """

    def __init__(self, size: int, network: Network | None = None, seed: int = 0):
        self.size = size
        self.network = network or Network()
        self.time = 0.0
        self._random = streams.generator(seed, "schedule")
        self._numbers: list[float] = []
        self._hub = greenlet.getcurrent()
        self._events: list[tuple[float, float, int, greenlet.greenlet]] = []
        self._number = 0
        self._idle_events = 0
        self._alive_at = 0.0
        self._longest_sleep = 0.0
        self._parked: dict[greenlet.greenlet, str] = {}
        self._ranks: list[greenlet.greenlet] = []
        self._left: set[int] = set()
        self.meetings: dict[int, _Meeting] = {}
        self.windows: dict[int, list[NDArray[Any]]] = {}
        self.broken = False

    def run(self, work: Callable[["VirtualFabric"], Any]) -> list[Any]:
        """Run ``work(fabric)`` as every rank; return what each returned, by rank.

        Raises
        ------
        FabricError
            If the ranks break a rule of MPI, or wait for each other forever.
        """
        results: list[Any] = [None] * self.size

        def rank_main(rank: int) -> None:
            results[rank] = work(VirtualFabric(self, rank))
            self._left.add(rank)
            self.alive()

        self._hub = greenlet.getcurrent()
        self._ranks = [
            self.spawn(partial(rank_main, rank)) for rank in range(self.size)
        ]
        try:
            self._loop()
        except BaseException:
            self.broken = True  # no with block may meet anybody any more
            for glet in self._ranks:
                if glet:
                    glet.throw(greenlet.GreenletExit)
            raise
        return results

    def _loop(self) -> None:
        while self._events:
            self._next().switch()
        if len(self._left) < self.size:
            raise FabricError(f"deadlock: {self._what_they_do()}")

    def _next(self) -> greenlet.greenlet:
        """Move the time to the next event; return who is due then."""
        self.time, _, _, glet = heapq.heappop(self._events)
        self._idle_events += 1
        if self._idle_events > PATIENCE and self._spins():
            raise FabricError(f"the ranks spin forever: {self._what_they_do()}")
        return glet

    def _let_others_run(self) -> None:
        """Give way, straight to who is due next, until it is this one's turn."""
        if self.broken:
            raise greenlet.GreenletExit  # a rank that is being ended waits for nobody
        due = self._next() if self._events else self._hub
        if due is not greenlet.getcurrent():
            due.switch()

    def alive(self) -> None:
        """Note that some rank got on with its work."""
        self._idle_events = 0
        self._alive_at = self.time

    def _spins(self) -> bool:
        """Tell whether even the slowest operation would have ended long ago."""
        return self.time - self._alive_at > PATIENCE_SLEEPS * self._longest_sleep

    def _what_they_do(self) -> str:
        parts = []
        for rank, glet in enumerate(self._ranks):
            if rank in self._left:
                parts.append(f"rank {rank} has ended")
            else:
                doing = self._parked.get(glet, "takes locks or sleeps")
                parts.append(f"rank {rank} {doing}")
        return ", ".join(parts)

    def _draw(self) -> float:
        if not self._numbers:  # many at once: a single one takes as long as an event
            self._numbers = self._random.random(256).tolist()
        return self._numbers.pop()

    def _push(self, time: float, glet: greenlet.greenlet) -> None:
        self._number += 1
        tie = self._draw()
        heapq.heappush(self._events, (time, tie, self._number, glet))

    def sleep(self, seconds: float) -> None:
        """Let `seconds` of virtual time pass; whoever is due runs meanwhile."""
        if seconds > self._longest_sleep:
            self._longest_sleep = seconds
        self._push(self.time + seconds, greenlet.getcurrent())
        self._let_others_run()

    def transfer(self, seconds: float) -> None:
        """Let the time of a transfer pass, stretched by the schedule's jitter."""
        if self.network.jitter:
            seconds *= 1 + self.network.jitter * self._draw()
        self.sleep(seconds)

    def park(self, reason: str) -> None:
        """Wait until somebody wakes the current greenlet."""
        self._parked[greenlet.getcurrent()] = reason
        self._let_others_run()

    def wake(self, glet: greenlet.greenlet) -> None:
        """Let a parked greenlet run again, now."""
        if self._parked.pop(glet, None) is not None:
            self._push(self.time, glet)

    def spawn(self, work: Callable[[], None]) -> greenlet.greenlet:
        """Start a further greenlet, now."""
        glet = greenlet.greenlet(work, parent=self._hub)
        self._push(self.time, glet)
        return glet


@dataclass
class _Meeting:
    """One collective: what it is, who came with what, and when all were there."""

    what: str
    first: int
    values: dict[int, Any] = field(default_factory=dict)
    waiting: list[greenlet.greenlet] = field(default_factory=list)
    complete_at: float | None = None


class VirtualFabric:
    """One rank's way to the others in a `World`."""

    kind = "virtual"
    progress_running = False

    def __init__(self, world: World, rank: int) -> None:
        self.world = world
        self.rank, self.size = rank, world.size
        self.ledger = Ledger(self.now)
        self._meetings = 0
        self._windows = 0

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

    def window(self, length: int, dtype: DTypeLike) -> "VirtualWindow":
        """Open a window of `length` zeros on every rank; collective."""
        number = self._windows
        self._windows += 1
        memory = np.zeros(length, dtype)
        parts = self.gather(memory)
        self.world.windows.setdefault(number, parts)
        return VirtualWindow(self, self.world.windows[number])

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

    def meet(self, what: str, value: object) -> _Meeting:
        """Enter this rank's next collective without waiting for it."""
        world, number = self.world, self._meetings
        self._meetings += 1
        meeting = world.meetings.setdefault(number, _Meeting(what, self.rank))
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

    def finish(self, meeting: _Meeting, cost: float = 0.0) -> dict[int, Any]:
        """Wait until all have entered `meeting` and `cost` seconds more."""
        world = self.world
        if meeting.complete_at is None:
            meeting.waiting.append(greenlet.getcurrent())
            world.park(f"waits in {meeting.what}")
        ready_at = (meeting.complete_at or 0.0) + cost
        world.sleep(max(0.0, ready_at - world.time))
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
        cost = network.latency + x.nbytes / network.bandwidth
        values = fabric.finish(self._meeting, cost if fabric.size > 1 else 0.0)
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
        self.memory = parts[fabric.rank]

    def get(self, rank: int, part: slice, out: NDArray[Any]) -> None:
        self._begin("get", rank, part, out, poison=True)

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
        self.memory = np.zeros(0, self.memory.dtype)

    def _check_open(self, what: str) -> None:
        if not self._open:
            raise FabricError(
                f"rank {self._fabric.rank} uses a window ({what}) after closing it"
            )


class HelperGreenlet:
    """`base.Beside` as a greenlet of the same rank."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._running = False
        self._joiner: greenlet.greenlet | None = None

    def start(self, work: Callable[[], None]) -> None:
        self._running = True

        def run() -> None:
            work()  # what it raises ends the whole world
            self._running = False
            if self._joiner is not None:
                self._world.wake(self._joiner)

        self._world.spawn(run)

    def join(self) -> None:
        if self._running:
            self._joiner = greenlet.getcurrent()
            self._world.park("waits for its communication thread")
            self._joiner = None

    def check(self) -> None:
        """Nothing to raise: an error in any greenlet ends the world at once."""

    def close(self) -> None:
        """Nothing to give back."""
