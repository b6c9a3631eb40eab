"""Windows in virtual time: one that tries whoever uses it, one that only charges."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.errors import FabricError
from dsgd_bench.fabric.slow_links import WORD
from dsgd_bench.fabric.virtual.network import FETCHING, Interconnect, Network
from dsgd_bench.spec.network import Operation

if TYPE_CHECKING:
    from dsgd_bench.fabric.virtual.fabric import VirtualFabric

Kind: TypeAlias = Operation | Literal["exchange"]

NOBODY = -1
"""Whose words are reached in no time, where all must be told that they were."""

UNPRICED = -1.0
"""When an operation is done that has not begun: its target computes."""


@dataclass
class _Transfer:
    """One operation that was started and not yet completed."""

    kind: str
    local: NDArray[Any]
    part: slice
    lent: bytes  # what the local buffer must still hold when it completes


class VirtualWindow:
    """`base.Window` in virtual time: transfers happen at `flush`, in pieces."""

    def __init__(
        self, fabric: "VirtualFabric", parts: list[NDArray[Any]], network: Network
    ) -> None:
        self._fabric = fabric
        self._world, self._network = fabric.world, network
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
        count = min(self._network.pieces, local.size)
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
        network = self._network
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

    def rest(self, rank: int, index: int, seen: int, seconds: float) -> None:
        del rank, index, seen  # whoever polls here polls as on MPI
        self._world.sleep(seconds)

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
    """

    def __init__(
        self,
        fabric: "VirtualFabric",
        parts: list[NDArray[Any]],
        network: Interconnect,
    ) -> None:
        self._fabric, self._world = fabric, fabric.world
        self._rank, self._network, self._parts = fabric.rank, network, parts
        self._hardware = not network.targets_answer
        self._at_hand = fabric.rank if self._hardware else NOBODY
        self._id = id(parts)  # the same on all ranks
        self._pending: dict[int, list[_Priced]] = {}
        self.memory = self.local = parts[fabric.rank]

    def within_reach(self, rank: int) -> NDArray[Any] | None:
        """Return the vector of another rank; charge for exchanging it until `flush`.

        Nobody sees it meanwhile: who computes on it holds the locks of both.
        """
        memory = self._parts[rank]
        self._begin("exchange", rank, memory, memory)
        return memory

    def get(self, rank: int, part: slice, out: NDArray[Any]) -> None:
        self._begin("get", rank, self._parts[rank][part], out)

    def getting(self, rank: int, part: slice, out: NDArray[Any]) -> Callable[[], None]:
        one = self._begin("get", rank, self._parts[rank][part], out)

        def wait() -> None:
            begun = self._pending.get(rank, [])
            left = [each for each in begun if each is not one]
            if len(left) < len(begun):  # else it was flushed
                self._pending[rank] = left
                self._complete([one], rank)

        return wait

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
        """Wait as if by looking every `seconds` whether a word has changed.

        In one event instead of thousands, where that takes long.
        """
        world = self._world
        if seconds and self._parts[rank].item(index) == seen:
            with world.in_call(self._rank):  # whoever looks that often answers
                world.rest((self._id, rank, index), seconds)
        else:
            world.sleep(seconds)

    def sync(self) -> None:
        """Nothing to do: all see the same memory."""

    def free(self) -> None:
        self._fabric.finish(self._fabric.meet("free a window", None))
        self.memory = self.local = np.zeros(0, self.memory.dtype)
