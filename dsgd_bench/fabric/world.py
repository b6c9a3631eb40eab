"""Virtual time: an event heap, greenlets as ranks, one schedule per seed."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import greenlet
from numpy.typing import NDArray

from dsgd_bench import streams
from dsgd_bench.errors import FabricError

if TYPE_CHECKING:
    from dsgd_bench.fabric.mailbox import Box
    from dsgd_bench.fabric.virtual import VirtualFabric

Task: TypeAlias = greenlet.greenlet
"""A rank, or the communication thread of one."""

PATIENCE = 20_000
"""Events in a row without a transfer, a lock taken or a meeting: a spin forever, if
they also took `PATIENCE_SLEEPS` times as long as the longest sleep so far."""

PATIENCE_SLEEPS = 10.0


@dataclass
class Meeting:
    """One collective: what it is, who came with what, and when all were there."""

    what: str
    first: int
    values: dict[int, Any] = field(default_factory=dict)
    waiting: list[Task] = field(default_factory=list)
    complete_at: float | None = None


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
        self._events: list[tuple[float, float, int, Task]] = []
        self._number = 0
        self._idle_events = 0
        self._alive_at = 0.0
        self._longest_sleep = 0.0
        self._parked: dict[greenlet.greenlet, str] = {}
        self._ranks: list[Task] = []
        self._left: set[int] = set()
        self.meetings: dict[int, Meeting] = {}
        self.windows: dict[int, list[NDArray[Any]]] = {}
        self.boxes: dict[int, list[Box]] = {}
        self.broken = False

    def run(self, work: Callable[["VirtualFabric"], Any]) -> list[Any]:
        """Run ``work(fabric)`` as every rank; return what each returned, by rank.

        Raises
        ------
        FabricError
            If the ranks break a rule of MPI, or wait for each other forever.
        """
        from dsgd_bench.fabric.virtual import VirtualFabric  # which is built on this

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

    def _push(self, time: float, glet: Task) -> None:
        self._number += 1
        tie = self._draw()
        heapq.heappush(self._events, (time, tie, self._number, glet))

    def sleep(self, seconds: float) -> None:
        """Let `seconds` of virtual time pass; whoever is due runs meanwhile."""
        self._longest_sleep = max(self._longest_sleep, seconds)
        self._push(self.time + seconds, greenlet.getcurrent())
        self._let_others_run()

    def stretched(self, seconds: float) -> float:
        """Return the time of a transfer, stretched by the schedule's jitter."""
        if self.network.jitter:
            seconds *= 1 + self.network.jitter * self._draw()
        return seconds

    def transfer(self, seconds: float) -> None:
        """Let the time of a transfer pass, stretched by the schedule's jitter."""
        self.sleep(self.stretched(seconds))

    def park(self, reason: str, among: list[Task] | None = None) -> None:
        """Wait until somebody wakes the current greenlet, found in the list `among`."""
        if among is not None:
            among.append(greenlet.getcurrent())
        self._parked[greenlet.getcurrent()] = reason
        self._let_others_run()

    def wake(self, glet: Task) -> None:
        """Let a parked greenlet run again, now."""
        if self._parked.pop(glet, None) is not None:
            self._push(self.time, glet)

    def spawn(self, work: Callable[[], None]) -> greenlet.greenlet:
        """Start a further greenlet, now."""
        glet = greenlet.greenlet(work, parent=self._hub)
        self._push(self.time, glet)
        return glet


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
