"""A window in virtual time that tests its user: torn, poisoned, checked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.errors import FabricError
from dsgd_bench.fabric.virtual.network import Network
from dsgd_bench.fabric.virtual.rank import VirtualRank


@dataclass
class _Transfer:
    """One operation that was started and not yet completed."""

    kind: str
    local: NDArray[Any]
    part: slice
    lent: bytes  # what the local buffer must still hold when it completes


class StrictWindow:
    """`base.Window` in virtual time: transfers happen at `flush`, in pieces.

    Parameters
    ----------
    fabric : VirtualRank
        This rank.
    parts : list of array
        The memory of every rank, by rank.
    network : Network
        How long a transfer takes, and in how many pieces it arrives.
    """

    def __init__(
        self, fabric: VirtualRank, parts: list[NDArray[Any]], network: Network
    ) -> None:
        self._fabric = fabric
        self._world, self._network = fabric.world, network
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


class StrictVectorWindow(StrictWindow):
    """`base.VectorWindow` in virtual time, parameters as for `StrictWindow`."""

    @property
    def local(self) -> NDArray[Any]:
        return self.memory

    def within_reach(self, rank: int) -> None:
        """Return None: another rank's vector is reached by transfers only."""

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


class StrictWordWindow(StrictWindow):
    """`base.WordWindow` in virtual time, parameters as for `StrictWindow`."""

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
        del rank, index, seen  # polling is as on MPI
        self._world.sleep(seconds)
