"""Two-sided messages in virtual time, stricter than MPI.

A message is done once it has crossed the network and its receive was posted: code that
counts on the library to keep what nobody asked for yet ends in a deadlock, by name.
Only simulated networks keep short ones, as libraries do.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.errors import FabricError
from dsgd_bench.fabric.virtual.scheduler import Task, World

if TYPE_CHECKING:
    from dsgd_bench.fabric.virtual.fabric import VirtualFabric

ANYBODY = -1


@dataclass
class Letter:
    """One message under way: whose, what, when it left and arrives.

    `may_leave` says whether it was asked for, or is kept by the library until it is.
    """

    source: int
    values: NDArray[Any]
    left: float
    arrives: float
    may_leave: bool
    waiting: list[Task] = field(default_factory=list)


@dataclass
class Request:
    """One receive that was posted, and the letter it gets."""

    source: int
    letter: Letter | None = None
    waiting: list[Task] = field(default_factory=list)


@dataclass
class Box:
    """What one rank was sent and has not asked for, and what it asked for."""

    letters: list[Letter] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    last_arrival: dict[int, float] = field(default_factory=lambda: defaultdict(float))

    def match(self, world: World) -> None:
        """Hand every request the first letter it may have, in the order posted."""
        for request in list(self.requests):
            fits = [
                letter
                for letter in self.letters
                if request.source in (letter.source, ANYBODY)
            ]
            if fits:
                letter = min(fits, key=lambda letter: letter.arrives)
                self.letters.remove(letter)
                self.requests.remove(request)
                request.letter, letter.may_leave = letter, True
                world.alive()
                for task in (*letter.waiting, *request.waiting):
                    world.wake(task)


class VirtualMessages:
    """`base.Messages` in virtual time.

    Parameters
    ----------
    fabric : VirtualFabric
        This rank's fabric.
    channel : int
        Number of the channel, the same on every rank.
    """

    def __init__(self, fabric: "VirtualFabric", channel: int) -> None:
        self._fabric, self._world = fabric, fabric.world
        boxes = fabric.world.boxes
        if channel not in boxes:  # the first of the ranks makes them for all
            boxes[channel] = [Box() for _ in range(fabric.size)]
        self._boxes = boxes[channel]
        self._mine = self._boxes[fabric.rank]
        self._sends: list[tuple[Letter, NDArray[Any], bytes]] = []
        self._receives: list[tuple[Request, NDArray[Any], bytes]] = []

    def send(self, values: NDArray[Any], rank: int) -> None:
        box = self._boxes[rank]
        source, world = self._fabric.rank, self._world
        left, arrives = world.network.message(source, rank, values.nbytes, world.time)
        if world.strict:
            left = arrives = world.time + world.stretched(arrives - world.time)
        arrives = max(arrives, box.last_arrival[source])
        box.last_arrival[source] = arrives
        kept = world.network.keeps(values.nbytes)
        letter = Letter(source, values.copy(), left, arrives, kept)
        box.letters.append(letter)
        self._sends.append((letter, values, self._lent(values)))
        box.match(world)

    def _lent(self, values: NDArray[Any]) -> bytes:
        """Return what a buffer must still hold later, where anybody looks."""
        return values.tobytes() if self._world.strict else b""

    def receive(self, out: NDArray[Any], rank: int) -> None:
        self._receives.append((*self._post(out, rank), self._lent(out)))
        self._mine.match(self._world)

    def _post(self, out: NDArray[Any], rank: int) -> tuple[Request, NDArray[Any]]:
        if self._world.strict and out.dtype.kind == "f":
            out.fill(np.nan)
        request = Request(rank)
        self._mine.requests.append(request)
        return request, out

    def arrive(self) -> None:
        for request, out, lent in self._receives:
            letter = self._letter(request)
            if self._lent(out) != lent:
                raise FabricError(
                    f"rank {self._fabric.rank} touched the buffer of a receive from "
                    f"rank {letter.source} before it was waited for"
                )
            if letter.values.size != out.size:
                raise FabricError(
                    f"rank {self._fabric.rank} expects {out.size} elements of rank "
                    f"{letter.source}, which sent {letter.values.size}"
                )
            np.copyto(out, letter.values)
        self._receives.clear()

    def wait(self) -> None:
        self.arrive()
        for letter, values, lent in self._sends:
            while not letter.may_leave:
                self._world.park("waits for its message to be taken", letter.waiting)
            self._world.sleep_until(letter.left)
            if self._lent(values) != lent:
                raise FabricError(
                    f"rank {self._fabric.rank} touched the buffer of a send before it "
                    "was waited for"
                )
        self._sends.clear()

    def _letter(self, request: Request) -> Letter:
        """Wait until the request has its letter and the letter is there."""
        whose = "anybody" if request.source == ANYBODY else f"rank {request.source}"
        while request.letter is None:
            self._world.park(f"waits for a message of {whose}", request.waiting)
        self._world.sleep_until(request.letter.arrives)
        return request.letter

    def take(self, out: NDArray[Any]) -> tuple[int, int]:
        request, _ = self._post(out, ANYBODY)
        self._mine.match(self._world)
        letter = self._letter(request)
        if letter.values.size > out.size:
            raise FabricError(
                f"rank {self._fabric.rank} has room for {out.size} elements, but rank "
                f"{letter.source} sent {letter.values.size}"
            )
        out[: letter.values.size] = letter.values
        return letter.source, letter.values.size

    def close(self) -> None:
        self.wait()
        self._fabric.barrier()
        if self._mine.letters:
            raise FabricError(
                f"rank {self._fabric.rank} closes a channel with messages of ranks "
                f"{[letter.source for letter in self._mine.letters]} never taken"
            )
