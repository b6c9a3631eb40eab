"""One rank of an MPI communicator: its number, which ranks are near, how it waits.

Where ranks share cores a waiting rank gives its core away, because spinning ranks keep
the one that they wait for from running.
"""

import os
import time
from collections.abc import Callable

from mpi4py import MPI

from dsgd_bench.fabric.ledger import monotonic
from dsgd_bench.host import cgroups, identity, placement

YIELD_SECONDS = 5e-3
"""Seconds that a waiting rank on a shared core polls its request, yielding the core
after each poll: a rank that wakes meanwhile runs at once."""

POLL_SECONDS = 0.2e-3
"""Seconds between two polls after that: then some rank is slow, and cores are needed.

Both measured with 16 ranks on 2 cores, 20 ms apart: against spinning in the library,
or sleeping from the start, the mean step was 1 to 4 ms shorter.
"""


class Communicator:
    """What windows and messages need of a rank; `MpiFabric` is one with accounts.

    Parameters
    ----------
    comm : MPI.Intracomm
        Ranks that take part; duplicated, so nothing else can interfere.

    Attributes
    ----------
    comm : MPI.Intracomm
        The duplicate.
    rank, size : int
        The number of this rank, from 0, and how many there are.
    near : frozenset of int
        Ranks whose windows are plain memory for this one, itself among them.
    node_cores : float
        Cores that the ranks of this machine may use together.
    crowded : bool
        Whether some of them share a core.
    beats : int
        Meetings that ended: a sign of life for the watchdog.
    """

    def __init__(self, comm: MPI.Intracomm) -> None:
        self.comm = comm.Dup()
        self.rank, self.size = self.comm.rank, self.comm.size
        self.now = monotonic
        self.beats = 0
        self.node_cores, self.crowded = self._cores()
        node = self.comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.near = self._near(node)
        node.Free()

    @property
    def library(self) -> str:
        """Name and version of the MPI library, as it gives them."""
        return MPI.Get_library_version().partition("\n")[0].strip("\0 ")

    def _cores(self) -> tuple[float, bool]:
        """Return how many cores this machine's ranks have, and whether some share one.

        A machine is a running kernel: containers on one have names of their own.
        """
        own = identity.kernel(), placement.cpus(), cgroups.quotas()
        here = [one for one in self.comm.allgather(own) if one[0] == own[0]]
        allowed, quotas = [one[1] for one in here], [one[2] for one in here]
        shared = placement.crowded(allowed, quotas=quotas)
        emulated = placement.SHARED_CORES in os.environ
        return placement.usable(allowed, quotas), bool(shared) or emulated

    def _near(self, node: MPI.Comm) -> frozenset[int]:
        """Return the ranks whose windows are plain memory here: those of this node.

        All of them for Intel MPI, whose one-sided requests fail tests of mpi4py.
        """
        if "Intel" in self.library:
            return frozenset(range(self.size))
        numbers = list(range(node.size))
        return frozenset(
            MPI.Group.Translate_ranks(node.group, numbers, self.comm.group)
        )

    def pause(self, seconds: float) -> None:
        """Sleep; with 0, only let another rank or thread have the core."""
        time.sleep(seconds)

    def barrier(self) -> None:
        """Wait for all ranks; for the harness only."""
        self.wait(self.comm.Ibarrier())

    def wait(self, request: MPI.Request, status: MPI.Status | None = None) -> None:
        """Wait for `request`, sleeping between polls where ranks share cores."""
        if not self.crowded:
            request.Wait(status)
        else:
            self._poll(lambda: request.Test(status))
        self.beats += 1

    def next_source(self, comm: MPI.Intracomm) -> int:
        """Wait until a message is there to be received; return the rank that sent it.

        A receive from any source would do, but MPICH 5.0.2 over UCX and TCP loses it.
        """
        status = MPI.Status()
        if not self.crowded:
            comm.Probe(MPI.ANY_SOURCE, MPI.ANY_TAG, status)
        else:
            self._poll(lambda: comm.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status))
        self.beats += 1
        return status.source

    def _poll(self, done: Callable[[], bool]) -> None:
        """Poll until it is done: yield the core at first, then sleep in between."""
        yields_until = self.now() + YIELD_SECONDS
        while not done():
            if self.now() < yields_until:
                os.sched_yield()
            else:
                time.sleep(POLL_SECONDS)
