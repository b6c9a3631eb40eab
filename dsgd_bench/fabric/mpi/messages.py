"""Two-sided messages of the measured fabric."""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

from mpi4py import MPI
from numpy.typing import NDArray

from dsgd_bench.fabric.mpi.communicator import Communicator


class MpiMessages:
    """`base.Messages` on a communicator of its own, so nothing else can match."""

    def __init__(self, fabric: Communicator) -> None:
        self._fabric = fabric
        self._comm = fabric.comm.Dup()
        self._sends: list[MPI.Request] = []
        self._receives: list[MPI.Request] = []
        self._status = MPI.Status()

    def send(self, values: NDArray[Any], rank: int) -> None:
        self._sends.append(self._comm.Isend(values, rank))

    def receive(self, out: NDArray[Any], rank: int) -> None:
        self._receives.append(self._comm.Irecv(out, rank))

    def arrive(self, landings: Sequence[Callable[[], None] | None] = ()) -> None:
        """Wait until all that is to be received is here, one message after the other.

        Parameters
        ----------
        landings : sequence of callable or None
            Called once the message of the same number is here; one per message.
        """
        for request, landing in zip_longest(self._receives, landings):
            self._fabric.wait(request)
            if landing is not None:
                landing()
        self._receives.clear()

    def wait(self) -> None:
        self.arrive()
        for request in self._sends:
            self._fabric.wait(request)
        self._sends.clear()

    def take(self, out: NDArray[Any]) -> tuple[int, int]:
        source = self._fabric.next_source(self._comm)
        self._fabric.wait(self._comm.Irecv(out, source), self._status)
        nbytes = self._status.Get_count(MPI.BYTE)
        return self._status.source, nbytes // out.itemsize

    def close(self) -> None:
        self.wait()
        self._fabric.barrier()
        self._comm.Free()
