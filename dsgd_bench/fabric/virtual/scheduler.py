"""Virtual time: an event heap, greenlets as ranks, one schedule per seed."""

import gc
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush, heappushpop
from typing import Any, TypeAlias

from greenlet import GreenletExit, getcurrent, greenlet

from dsgd_bench import rng
from dsgd_bench.errors import FabricError
from dsgd_bench.fabric.virtual.mailbox import Box, Task
from dsgd_bench.fabric.virtual.network import Interconnect, Network

Word: TypeAlias = tuple[int, int, int]
"""A window, a rank, and an index in its memory."""

SPIN_LIMIT = 10_000
"""Events per rank in a row without a transfer, a lock taken or a meeting: a spin
forever, if they also took `PATIENCE_SLEEPS` times as long as the longest sleep."""

PATIENCE_SLEEPS = 10.0

NAMED = 16
"""Ranks of which an error says what they do, at most."""


RARELY = 1_000_000
"""Objects made between two searches for garbage while ranks run. They are thousands of
objects each that refer to each other, and none of them is garbage before the end."""


@contextmanager
def _rarely_collecting() -> Iterator[None]:
    """Let Python look for garbage `RARELY` in a block."""
    usual = gc.get_threshold()
    gc.set_threshold(RARELY, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


@dataclass
class Meeting:
    """One collective: what it is, who came with what, and when all were there.

    `result` is what the first rank to leave makes of the values, for all.
    """

    what: str
    first: int
    values: dict[int, Any] = field(default_factory=dict)
    waiting: list[Task] = field(default_factory=list)
    complete_at: float | None = None
    result: Any = None


class Schedule:
    """The virtual time that `size` ranks share, and who runs when.

    Parameters
    ----------
    size : int
        Number of ranks.
    network : Network or Interconnect
        What transfers cost. Over a `Network` the world is strict and hostile; over an
        `Interconnect` it is lean, and nothing is checked that costs time.
    seed : int
        Seed of the schedule.

    Attributes
    ----------
    time : float
        Virtual seconds.
    in_calls : list of int
        For every rank, how many of its greenlets are in a call of the fabric's; kept
        only where it matters.
    stalled : dict
        Who waits until a rank is in one.
    resting : dict
        Who waits until a word changes, and how often it looks.
    """

    def __init__(
        self,
        size: int,
        network: Network | Interconnect | None = None,
        seed: int = 0,
    ):
        self.size = size
        self.network = network or Network()
        self.strict = isinstance(self.network, Network)
        self.time = 0.0
        self.zeros = [0.0] * size  # offsets of clocks, for all ranks
        self.in_calls = [0] * size
        self.stalled: dict[int, list[Task]] = {}
        self.resting: dict[Word, list[tuple[Task, float]]] = {}
        self._outside = nullcontext()
        self._answers_by_itself = self.strict or not self.network.targets_answer
        self._random = rng.generator(seed, "schedule")
        self._numbers: list[float] = []
        self._hub = getcurrent()
        self._new: Task | None = None
        self._events: list[tuple[float, float, int, Task]] = []
        self._number = 0
        self.events = 0
        # events; a lone rank waits for no other
        self._spin_limit = SPIN_LIMIT * size if size > 1 else math.inf
        self._spins_from = self._spin_limit
        self._alive_at = 0.0
        self._longest_sleep = 0.0
        self._parked: dict[greenlet, str] = {}
        self._ranks: list[Task] = []
        self._left: set[int] = set()
        self.meetings: dict[int, Meeting] = {}
        self.boxes: dict[int, list[Box]] = {}
        self.broken = False

    def run_ranks(self, work: Callable[[int], Any]) -> list[Any]:
        """Run ``work(rank)`` as every rank; return what each returned, by rank.

        Raises
        ------
        FabricError
            If the ranks break a rule of MPI, or wait for each other forever.
        """
        results: list[Any] = [None] * self.size

        def rank_main(rank: int) -> None:
            results[rank] = work(rank)
            self._left.add(rank)
            self.alive()

        self._hub = getcurrent()
        self._ranks = [
            self.spawn(partial(rank_main, rank)) for rank in range(self.size)
        ]
        try:
            with _rarely_collecting():
                self._loop()
        except BaseException:
            self.broken = True  # no with block may meet anybody any more
            for glet in self._ranks:
                if glet:
                    glet.throw(GreenletExit)
            raise
        return results

    def _loop(self) -> None:
        while self._events or self._new is not None:
            due, self._new = self._new, None
            if due is None:
                due = self._next()
            due.switch()
        if len(self._left) < self.size:
            raise FabricError(f"deadlock: {self._what_they_do()}")

    def _next(self) -> greenlet:
        """Move the time to the next event; return who is due then."""
        self.time, _, _, glet = heappop(self._events)
        self.events += 1
        if self.events > self._spins_from:
            self._check_spinning()
        return glet

    def _let_others_run(self) -> None:
        """Give way, straight to who is due next, until it is this one's turn."""
        if self.broken:
            raise GreenletExit  # a rank that is being ended waits for no other
        due = self._next() if self._events else self._hub
        if due is not getcurrent():
            if due:
                due.switch()
            else:
                self._start(due)

    def _start(self, due: Task) -> None:
        """Let a new greenlet run; the hub starts it.

        Else its stack would lie on top of this one's, thousands of them on each other.
        """
        self._new = due
        self._hub.switch()

    def alive(self) -> None:
        """Note that some rank got on with its work."""
        self._spins_from = self.events + self._spin_limit
        self._alive_at = self.time

    def _check_spinning(self) -> None:
        """Give up on ranks that only spin: the slowest operation would be long over."""
        if self.time - self._alive_at > PATIENCE_SLEEPS * self._longest_sleep:
            raise FabricError(f"the ranks spin forever: {self._what_they_do()}")

    def _what_they_do(self) -> str:
        parts = []
        for rank, glet in enumerate(self._ranks):
            if rank in self._left:
                parts.append(f"rank {rank} has ended")
            else:
                doing = self._parked.get(glet, "takes locks or sleeps")
                parts.append(f"rank {rank} {doing}")
        more = len(parts) - NAMED
        return ", ".join([*parts[:NAMED], *([f"and {more} more"] if more > 0 else [])])

    def draw(self) -> float:
        """Return the schedule's next number in [0, 1)."""
        return (self._numbers or self._draw_more()).pop()

    def _draw_more(self) -> list[float]:
        """Draw many at once: a single one takes as long as an event."""
        self._numbers = self._random.random(256).tolist()
        return self._numbers

    def _push(self, time: float, glet: Task) -> None:
        self._number += 1
        tie = self.draw()
        heappush(self._events, (time, tie, self._number, glet))

    def sleep(self, seconds: float) -> None:
        """Let `seconds` of virtual time pass; ranks that are due run meanwhile.

        This is every event of a simulation: what it could call stands here in full.
        """
        if seconds > self._longest_sleep:  # noqa: PLR1730 (a call takes as long)
            self._longest_sleep = seconds
        if self.broken:
            raise GreenletExit  # a rank that is being ended waits for no other
        self.events += 1
        time, events = self.time + seconds, self._events
        due = current = getcurrent()
        if not events or time < events[0][0]:  # no other is due before
            self.time = time
        else:
            self._number += 1
            tie = (self._numbers or self._draw_more()).pop()
            mine = (time, tie, self._number, current)
            self.time, _, _, due = heappushpop(events, mine)
        if self.events > self._spins_from:
            self._check_spinning()
        if due is current:
            return
        if due:
            due.switch()
        else:
            self._start(due)

    def sleep_until(self, time: float) -> None:
        """Wait until the virtual time is `time`, if it is not yet."""
        self.sleep(max(0.0, time - self.time))

    def stretched(self, seconds: float) -> float:
        """Return the time of a transfer, stretched by the schedule's jitter."""
        if self.network.jitter:
            seconds *= 1 + self.network.jitter * self.draw()
        return seconds

    def transfer(self, seconds: float) -> None:
        """Let the time of a transfer pass, stretched by the schedule's jitter."""
        self.sleep(self.stretched(seconds))

    def park(self, reason: str, among: list[Task] | None = None) -> None:
        """Wait until another wakes the current greenlet, found in the list `among`."""
        if among is not None:
            among.append(getcurrent())
        self._parked[getcurrent()] = reason
        self._let_others_run()

    def wake(self, glet: Task, late: float = 0.0) -> None:
        """Let a parked greenlet run again, now or `late` seconds later."""
        if self._parked.pop(glet, None) is not None:
            self._push(self.time + late, glet)

    def rest(self, word: Word, seconds: float) -> None:
        """Wait until a word changes, as seen by a look at it every `seconds`."""
        self.resting.setdefault(word, []).append((getcurrent(), seconds))
        self.park("waits for a lock")

    def changed(self, window: int, rank: int, index: int) -> None:
        """Note that a word changed; ranks that rest until it does look again soon."""
        self._spins_from = self.events + self._spin_limit  # as `alive` does
        self._alive_at = self.time
        if self.resting:
            for task, seconds in self.resting.pop((window, rank, index), ()):
                self.wake(task, seconds * self.draw())

    def in_call(self, rank: int) -> AbstractContextManager[None]:
        """Return a block in which the rank is in a call, and answers others."""
        return self._outside if self._answers_by_itself else _InCall(self, rank)

    def answer(self, rank: int) -> None:
        """Let what waits for a call of `rank` begin."""
        for task in self.stalled.pop(rank, ()):
            self.wake(task)

    def await_call(self, rank: int, target: int) -> None:
        """Wait, in a call of `rank`, until `target` enters one or is in one."""
        if not self.in_calls[target]:
            with self.in_call(rank):
                waiting = self.stalled.setdefault(target, [])
                self.park(f"waits for rank {target} to answer", waiting)

    def spawn(self, work: Callable[[], None]) -> greenlet:
        """Start a further greenlet, now."""
        glet = greenlet(work, parent=self._hub)
        self._push(self.time, glet)
        return glet


class _InCall:
    """While it lasts, operations on a rank's memory are performed."""

    def __init__(self, world: Schedule, rank: int) -> None:
        self._world, self._rank = world, rank

    def __enter__(self) -> None:
        self._world.in_calls[self._rank] += 1
        self._world.answer(self._rank)

    def __exit__(self, *_: object) -> None:
        self._world.in_calls[self._rank] -= 1


class HelperGreenlet:
    """`base.Helper` as a greenlet of the same rank."""

    def __init__(self, world: Schedule) -> None:
        self._world = world
        self._running = False
        self._joiner: greenlet | None = None

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
            self._joiner = getcurrent()
            self._world.park("waits for its communication thread")
            self._joiner = None

    def check(self) -> None:
        """Nothing to raise: an error in any greenlet ends the world at once."""

    def close(self) -> None:
        """Nothing to give back."""
