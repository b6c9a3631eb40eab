"""Two-sided messages in virtual time, stricter than MPI.

A message is done once it has crossed the network and its receive was posted: code that
counts on the library to keep what no rank has asked for ends in a deadlock, by name.
Only simulated networks keep short ones, as libraries do.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.errors import FabricError
from dsgd_bench.fabric.virtual.mailbox import ANYBODY, Box, Letter, Request
from dsgd_bench.fabric.virtual.rank import VirtualRank


class VirtualMessages:
    """`base.Messages` in virtual time.

    Parameters
    ----------
    fabric : VirtualRank
        This rank.
    channel : int
        Number of the channel, the same on every rank.
    """

    def __init__(self, fabric: VirtualRank, channel: int) -> None:
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
        self._match(box)

    def _match(self, box: Box) -> None:
        """Hand out what can be handed out; wake what waited for it."""
        world = self._world
        for letter, request in box.match():
            world.alive()
            for task in (*letter.waiting, *request.waiting):
                world.wake(task)

    def _lent(self, values: NDArray[Any]) -> bytes:
        """Return what a buffer must still hold later, where anybody looks."""
        return values.tobytes() if self._world.strict else b""

    def receive(self, out: NDArray[Any], rank: int) -> None:
        self._receives.append((*self._post(out, rank), self._lent(out)))
        self._match(self._mine)

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
        self._match(self._mine)
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
