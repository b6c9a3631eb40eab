"""A window in virtual time whose operations only take what a network charges."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.fabric.slow_ports import WORD
from dsgd_bench.fabric.virtual.network import FETCHING, Interconnect
from dsgd_bench.fabric.virtual.rank import VirtualRank
from dsgd_bench.spec.network import Operation

Kind: TypeAlias = Operation | Literal["exchange"]

NO_RANK = -1
"""In place of the rank whose words are reached in no time and unseen: a rank that must
answer others does so whenever it reaches a word, its own included."""

UNPRICED = -1.0
"""When an operation is done that has not begun: its target computes."""


@dataclass(slots=True)
class _Priced:
    """One operation under way: which, its vectors, and when it is done."""

    kind: Kind
    local: NDArray[Any]
    remote: NDArray[Any]
    done: float


class PricedWindow:
    """`base.Window` whose operations take what an `Interconnect` charges.

    They are priced when they start, so that those under way together share ports, and
    performed, whole, when they are done. What a target must answer that computes, and
    has no thread to do so, starts when it calls MPI again.

    Parameters
    ----------
    fabric : VirtualRank
        This rank.
    parts : list of array
        The memory of every rank, by rank.
    network : Interconnect
        What it charges.
    """

    def __init__(
        self,
        fabric: VirtualRank,
        parts: list[NDArray[Any]],
        network: Interconnect,
    ) -> None:
        self._fabric, self._world = fabric, fabric.world
        self._rank, self._network, self._parts = fabric.rank, network, parts
        self._hardware = not network.targets_answer
        self._pending: dict[int, list[_Priced]] = {}
        self.memory = parts[fabric.rank]

    def get(self, rank: int, part: slice, out: NDArray[Any]) -> None:
        self._begin("get", rank, self._parts[rank][part], out)

    def put(self, values: NDArray[Any], rank: int, part: slice) -> None:
        self._begin("put", rank, self._parts[rank][part], values)

    def fetch(self, rank: int, part: slice, out: NDArray[Any]) -> None:
        self._begin("fetch", rank, self._parts[rank][part], out)

    def accumulate(self, values: NDArray[Any], rank: int, part: slice) -> None:
        self._begin("accumulate", rank, self._parts[rank][part], values)

    def _begin(
        self, kind: Kind, rank: int, remote: NDArray[Any], local: NDArray[Any]
    ) -> _Priced:
        one = _Priced(kind, local, remote, self._price(kind, rank, local.nbytes))
        self._pending.setdefault(rank, []).append(one)
        return one

    def _price(self, kind: Kind, rank: int, nbytes: int) -> float:
        """Return when an operation that starts now is done."""
        now = self._world.time
        if not self._hardware and self._network.must_answer(self._rank, rank):
            busy = not self._world.in_calls[rank]
            if busy and self._network.spec.progress == "none":
                return UNPRICED
            if busy:
                now += self._network.answers_in(rank, now)
        return self._charge(kind, rank, nbytes, now)

    def _charge(self, kind: Kind, rank: int, nbytes: int, now: float) -> float:
        if kind == "exchange":
            return self._network.exchange(self._rank, rank, nbytes, now)
        return self._network.operation(kind, self._rank, rank, nbytes, now)

    def _answered(self, kind: Kind, rank: int, nbytes: int) -> float:
        """Wait until a target that computed calls MPI; return when all is done."""
        self._world.await_call(self._rank, rank)
        return self._charge(kind, rank, nbytes, self._world.time)

    def flush(self, rank: int) -> None:
        if not self._hardware:
            self._world.answer(self._rank)
        self._complete(self._pending.pop(rank, ()), rank)

    def _complete(self, operations: Sequence[_Priced], rank: int) -> None:
        for one in operations:
            if one.done == UNPRICED:
                one.done = self._answered(one.kind, rank, one.local.nbytes)
            self._wait(one.done)
            self._world.alive()
            if one.kind == "put":
                one.remote[:] = one.local
            elif one.kind == "accumulate":
                one.remote += one.local
            elif one.kind in FETCHING:
                one.local[:] = one.remote

    def _wait(self, until: float) -> None:
        world = self._world
        left = until - world.time
        if left <= 0.0:
            return
        if self._hardware:
            world.sleep(left)
        else:
            with world.in_call(self._rank):
                world.sleep(left)

    def sync(self) -> None:
        """Nothing to do: all see the same memory."""

    def free(self) -> None:
        self._fabric.finish(self._fabric.meet("free a window", None))
        self.memory = np.zeros(0, self.memory.dtype)


class PricedVectorWindow(PricedWindow):
    """`base.VectorWindow` over an `Interconnect`, parameters as for `PricedWindow`."""

    @property
    def local(self) -> NDArray[Any]:
        return self.memory

    def within_reach(self, rank: int) -> NDArray[Any] | None:
        """Return the vector of another rank; charge for exchanging it until `flush`.

        No rank reads it meanwhile: the one that computes on it holds both locks.
        """
        memory = self._parts[rank]
        self._begin("exchange", rank, memory, memory)
        return memory

    def getting(self, rank: int, part: slice, out: NDArray[Any]) -> Callable[[], None]:
        one = self._begin("get", rank, self._parts[rank][part], out)

        def wait() -> None:
            begun = self._pending.get(rank, [])
            left = [each for each in begun if each is not one]
            if len(left) < len(begun):  # else it was flushed
                self._pending[rank] = left
                self._complete([one], rank)

        return wait


class PricedWordWindow(PricedWindow):
    """`base.WordWindow` over an `Interconnect`, parameters as for `PricedWindow`."""

    def __init__(
        self, fabric: VirtualRank, parts: list[NDArray[Any]], network: Interconnect
    ) -> None:
        super().__init__(fabric, parts, network)
        self._at_hand = fabric.rank if self._hardware else NO_RANK
        self._id = id(parts)  # the same on all ranks

    def add(self, value: int, rank: int, index: int) -> int:
        before = self.read(rank, index)
        self._parts[rank][index] = before + value
        self._world.changed(self._id, rank, index)
        return before

    def read(self, rank: int, index: int) -> int:
        if rank != self._at_hand:
            self._reach(rank)
        return self._parts[rank].item(index)  # type: ignore[no-any-return]

    def compare_and_swap(self, old: int, new: int, rank: int, index: int) -> int:
        if rank != self._at_hand:
            self._reach(rank)
        words = self._parts[rank]
        found: int = words.item(index)
        if found == old:
            words[index] = new
            self._world.changed(self._id, rank, index)
        if self._pending:
            self.flush(rank)
        return found

    def _reach(self, rank: int) -> None:
        """Let the time pass that an operation on a word takes."""
        world = self._world
        if self._hardware:
            left = self._network.word(self._rank, rank, world.time) - world.time
            if left > 0.0:
                world.sleep(left)
        elif rank == self._rank:
            world.answer(rank)
        else:
            done = self._price("word", rank, WORD)
            if done == UNPRICED:
                done = self._answered("word", rank, WORD)
            self._wait(done)

    def rest(self, rank: int, index: int, seen: int, seconds: float) -> None:
        """Wait as if by polling every `seconds` whether a word has changed.

        In one event instead of thousands, where that takes long.
        """
        world = self._world
        if seconds and self._parts[rank].item(index) == seen:
            with world.in_call(self._rank):  # a rank that polls so often answers
                world.rest((self._id, rank, index), seconds)
        else:
            world.sleep(seconds)
