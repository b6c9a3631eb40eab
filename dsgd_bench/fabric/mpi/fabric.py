"""The measured fabric: MPI windows, collectives and threads, and their accounts.

Windows come from ``MPI_Win_allocate`` and stay in one ``MPI_Win_lock_all`` epoch for
life; operations complete by ``MPI_Win_flush``. ``MPI_Win_create`` or a lock around each
operation would silently wait for a computing target (measured on MPICH and Open MPI).
"""

import ctypes
import sys
import threading
import time
from collections.abc import Collection
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from dsgd_bench.arrays import Array, finish
from dsgd_bench.errors import FabricError
from dsgd_bench.fabric.ledger import Ledger
from dsgd_bench.fabric.mpi.communicator import Communicator
from dsgd_bench.fabric.mpi.helper_thread import HelperThread
from dsgd_bench.fabric.mpi.messages import MpiMessages
from dsgd_bench.fabric.mpi.window import MpiVectorWindow, MpiWordWindow
from dsgd_bench.host import environment, identity, network_counters, placement

SWITCH_SECONDS = 1e-3
"""Seconds a Python thread may keep the interpreter while another one wants it."""

ROUND_TRIPS = 50
"""Messages there and back by which two clocks are compared."""

ABORT_DELAY_SECONDS = 0.2
"""Seconds in which a launcher reads what a rank has printed before it ends the job."""

PROGRESS_PERIOD_SECONDS = 1e-3
"""Seconds between two visits of the progress thread to the MPI library."""


THREAD_LEVELS = {
    MPI.THREAD_SINGLE: "single",
    MPI.THREAD_FUNNELED: "funneled",
    MPI.THREAD_SERIALIZED: "serialized",
    MPI.THREAD_MULTIPLE: "multiple",
}


def world() -> "MpiFabric":
    """Return the fabric of all ranks that were started together."""
    return MpiFabric(MPI.COMM_WORLD)


class MpiFabric(Communicator):
    """One rank's way to the others over an MPI communicator.

    Parameters
    ----------
    comm : MPI.Intracomm
        Ranks that take part; duplicated, so nothing else can interfere.

    Raises
    ------
    FabricError
        If the MPI library cannot serve several threads.
    """

    kind = "mpi"

    def __init__(self, comm: MPI.Intracomm) -> None:
        if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
            raise FabricError(
                "this MPI library grants no MPI_THREAD_MULTIPLE, which the "
                "communication and progress threads need: choose another build of it"
            )
        super().__init__(comm)
        self.broken = False
        self.ledger = Ledger(self.now, network_counters.read)
        self.offsets = [0.0] * self.size
        self._progress: _ProgressThread | None = None
        sys.setswitchinterval(SWITCH_SECONDS)

    def average(self, x: Array) -> None:
        """Replace `x` by its mean over all ranks (``MPI_Allreduce``, in place).

        Blocking, as AllReduce-SGD has it; and with 16 ranks on 2 cores 1 to 2 ms
        quicker than the non-blocking form, which the library serves by other means.
        """
        entered = self.now()
        self.sum(x)
        self.averaged(x, entered)

    def sum(self, x: Array) -> None:
        """Replace `x` by its sum over all ranks; nothing is booked."""
        self.comm.Allreduce(MPI.IN_PLACE, x, op=MPI.SUM)
        self.beats += 1

    def averaged(self, x: Array, entered: float) -> None:
        """Book a sum that was waited for since `entered`, and make it a mean."""
        done = self.now()
        if self.size > 1:
            self.ledger.traffic.sent(x.nbytes)
            self.ledger.traffic.received(x.nbytes)
            self.ledger.met(entered, done)
        x *= 1 / self.size
        finish(x)
        self.ledger.training.update += self.now() - done

    def averaging(self, x: Array) -> "_Averaging":
        """Start the mean on entry (``MPI_Iallreduce``), finish it on exit."""
        return _Averaging(self, x)

    def vectors(self, length: int, like: NDArray[Any]) -> MpiVectorWindow:
        """Open a window of a vector of `length` zeros on every rank; collective."""
        return MpiVectorWindow(self, length, like.dtype)

    def words(self, count: int) -> MpiWordWindow:
        """Open a window of `count` control words on every rank; collective."""
        return MpiWordWindow(self, count)

    def messages(self) -> "MpiMessages":
        """Open a channel for two-sided messages; collective."""
        return MpiMessages(self)

    def helper(self) -> "HelperThread":
        """Make a thread that works while the training thread computes."""
        return HelperThread()

    def gather(self, value: object) -> list[Any]:
        """Return the `value` of all ranks; pickles, so for the harness only."""
        self.barrier()  # which gives the core away: the pickled collective spins
        return self.comm.allgather(value)

    def nodes(self) -> list[str]:
        """Return every rank's host, by rank, two of one name made distinct."""
        return identity.names(self._hosts())

    def _hosts(self) -> list[identity.Host]:
        return self.gather(identity.here(MPI.Get_processor_name()))

    def clock_offset(self) -> tuple[float, float]:
        """Return this rank's clock minus rank 0's, and its error; collective.

        Where ranks share the kernel's monotonic clock nothing is measured. Else the
        message of the shortest of `ROUND_TRIPS` tells, with half its round trip as the
        error.
        """
        clocks = identity.clocks(self._hosts())
        offset = (0.0, 0.0)
        for rank in range(1, self.size):
            if clocks[rank] == clocks[0]:
                continue
            if self.rank == 0:
                self._answer_with_clock(rank)
            elif self.rank == rank:
                offset = self._compare_clock()
        self.offsets = self.gather(offset[0])
        return offset

    def _answer_with_clock(self, rank: int) -> None:
        stamp = np.zeros(1)
        for _ in range(ROUND_TRIPS):
            self.comm.Recv(stamp, rank)
            stamp[0] = self.now()
            self.comm.Send(stamp, rank)

    def _compare_clock(self) -> tuple[float, float]:
        stamp = np.zeros(1)
        offset, shortest = 0.0, float("inf")
        for _ in range(ROUND_TRIPS):
            sent = self.now()
            self.comm.Send(stamp, 0)
            self.comm.Recv(stamp, 0)
            received = self.now()
            if received - sent < shortest:
                shortest = received - sent
                offset = (sent + received) / 2 - stamp[0]
        return offset, shortest / 2

    def start_progress(self, period: float = PROGRESS_PERIOD_SECONDS) -> None:
        """Start a thread that enters MPI every `period` seconds, for computing targets.

        Measured on three libraries, only such a thread makes a busy target answer
        across nodes everywhere.
        """
        if self._progress is None:
            self._progress = _ProgressThread(self.comm.Dup(), period)

    def part(self, ranks: Collection[int]) -> "MpiFabric | None":
        """Return a fabric of these `ranks`, or None on the others; collective.

        Closed by its owner, before this one.
        """
        color = 0 if self.rank in ranks else MPI.UNDEFINED
        comm = self.comm.Split(color, self.rank)
        if not isinstance(comm, MPI.Intracomm) or comm == MPI.COMM_NULL:
            return None
        fabric = MpiFabric(comm)
        comm.Free()
        return fabric

    def claims_gpu(self) -> bool:
        """Return whether the library claims that it takes vectors on a GPU.

        By the standard's list of kinds of memory (MPI 4.1), or the older question that
        MPICH and Open MPI answer, asked of the very file that is loaded.
        """
        if "cuda" in (self.comm.Get_info().get("mpi_memory_alloc_kinds") or ""):
            return True
        path = environment.libmpi()
        library = ctypes.CDLL(path) if path else None
        ask = getattr(library, "MPIX_Query_cuda_support", lambda: 0)
        return bool(ask())

    def describe(self) -> dict[str, Any]:
        """Return what provenance wants to know about MPI; collective."""
        known = self._hosts()
        here = placement.here(identity.names(known)[self.rank])
        places = placement.arrange(self.gather(here))
        return {
            "mpi_library": self.library,
            "mpi_version": ".".join(map(str, MPI.Get_version())),
            "thread_level": THREAD_LEVELS[MPI.Query_thread()],
            "hosts": [place.host for place in places],
            "clocks": identity.clocks(known),
            "cores": self.node_cores,
            "oversubscribed": any(place.shares for place in places),
            "placement": msgspec.to_builtins(places),
        }

    def abort(self, status: int) -> None:
        """End the whole job with exit `status`, whatever the other ranks do.

        What this rank has printed is passed on first: launchers that see a job abort
        may drop what they have not read yet.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(ABORT_DELAY_SECONDS)
        MPI.COMM_WORLD.Abort(status)

    @property
    def progress_running(self) -> bool:
        """Whether the progress thread runs."""
        return self._progress is not None

    def close(self) -> None:
        """Stop the progress thread and free the communicators; collective."""
        self.barrier()
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        self.comm.Free()

    def leave(self) -> None:
        """Close, and end MPI in this process; collective over all ranks of the job.

        At the exit of Python it would end by itself, where nothing watches any more.
        """
        self.close()
        MPI.Finalize()


class _Averaging:
    """One all-reduce in flight; the array is lent from entry to exit."""

    def __init__(self, fabric: MpiFabric, x: Array) -> None:
        self._fabric = fabric
        self._x = x

    def __enter__(self) -> None:
        fabric = self._fabric
        self._entered = fabric.now()
        self._request = fabric.comm.Iallreduce(MPI.IN_PLACE, self._x, op=MPI.SUM)
        self._began = fabric.now()
        fabric.ledger.training.transfer += self._began - self._entered

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        fabric = self._fabric
        waited_from = fabric.now()
        fabric.wait(self._request)
        fabric.averaged(self._x, waited_from)


class _ProgressThread:
    """Enters MPI on a communicator of its own, so that targets answer while busy."""

    def __init__(self, comm: MPI.Intracomm, period: float) -> None:
        self._comm, self._period = comm, period
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(self._period):
            self._comm.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._comm.Free()
