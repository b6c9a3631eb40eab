"""The measured fabric: MPI windows, collectives and threads, and their accounts.

Windows come from ``MPI_Win_allocate`` and stay in one ``MPI_Win_lock_all`` epoch for
life; operations complete by ``MPI_Win_flush``. ``MPI_Win_create`` or a lock around each
operation would silently wait for a computing target (measured on MPICH and Open MPI).

Waiting is polite where ranks share cores: a rank gives its core away, because spinning
ranks keep the one they wait for from running.
"""

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from itertools import zip_longest
from types import TracebackType
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import DTypeLike, NDArray

from dsgd_bench.arrays import Array, finish
from dsgd_bench.errors import FabricError
from dsgd_bench.fabric.ledger import Ledger, monotonic
from dsgd_bench.fabric.mpi.helper_thread import HelperThread
from dsgd_bench.fabric.mpi.window import MpiWindow
from dsgd_bench.host import cgroups, environment, identity, network_counters, placement

YIELDING = 5e-3
"""Seconds that a waiting rank on a shared core looks at its request again and again,
giving the core away after each look: whoever wakes meanwhile runs at once."""

NAP = 0.2e-3
"""Seconds between two looks after that: then somebody is slow, and cores are needed.

Both measured with 16 ranks on 2 cores, 20 ms apart: against spinning in the library,
or napping from the start, the mean step was 1 to 4 ms shorter.
"""

SWITCH_INTERVAL = 1e-3
"""Seconds a Python thread may keep the interpreter while another one wants it."""

ROUND_TRIPS = 50
"""Messages there and back by which two clocks are compared."""

LAST_WORDS = 0.2
"""Seconds in which a launcher reads what a rank has said before it ends the job."""

PROGRESS_PERIOD = 1e-3
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


class MpiFabric:
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
        self.comm = comm.Dup()
        self.rank, self.size = self.comm.rank, self.comm.size
        self.now = monotonic
        self.broken = False
        self.beats = 0  # meetings that ended: a sign of life for the watchdog
        self.ledger = Ledger(self.now, network_counters.read)
        self.offsets = [0.0] * self.size
        self.node_cores, self.crowded = self._cores()
        node = self.comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.near = self._near(node)
        node.Free()
        self._progress: _ProgressThread | None = None
        sys.setswitchinterval(SWITCH_INTERVAL)

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
        self.ledger.front.mixing += self.now() - done

    def averaging(self, x: Array) -> "_Averaging":
        """Start the mean on entry (``MPI_Iallreduce``), finish it on exit."""
        return _Averaging(self, x)

    def window(
        self,
        length: int,
        dtype: DTypeLike,
        like: NDArray[Any] | None = None,  # noqa: ARG002 (all memory is the host's)
    ) -> "MpiWindow":
        """Open a window of `length` zeros on every rank; collective."""
        return MpiWindow(self, length, np.dtype(dtype))

    def messages(self) -> "MpiMessages":
        """Open a channel for two-sided messages; collective."""
        return MpiMessages(self)

    def beside(self) -> "HelperThread":
        """Make a thread that works beside the training thread."""
        return HelperThread()

    def barrier(self) -> None:
        """Wait for everybody; for the harness only."""
        self.wait(self.comm.Ibarrier())

    def gather(self, value: object) -> list[Any]:
        """Return everybody's `value` on every rank; pickles, for the harness only."""
        self.barrier()  # politely: the pickled collective spins
        return self.comm.allgather(value)

    def nodes(self) -> list[str]:
        """Return every rank's host, by rank, two of one name told apart; as above."""
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

    def wait(self, request: MPI.Request, status: MPI.Status | None = None) -> None:
        """Wait for `request`, napping between looks where ranks share cores."""
        if not self.crowded:
            request.Wait(status)
        else:
            self._look(lambda: request.Test(status))
        self.beats += 1

    def next_source(self, comm: MPI.Intracomm) -> int:
        """Wait until somebody's message is there to be received; return whose.

        A receive from anybody would do, but over UCX and TCP MPICH 5.0.2 loses those.
        """
        status = MPI.Status()
        if not self.crowded:
            comm.Probe(MPI.ANY_SOURCE, MPI.ANY_TAG, status)
        else:
            self._look(lambda: comm.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status))
        self.beats += 1
        return status.source

    def _look(self, done: Callable[[], bool]) -> None:
        """Look until it is done: yielding the core at first, then napping."""
        patient_until = self.now() + YIELDING
        while not done():
            if self.now() < patient_until:
                os.sched_yield()
            else:
                time.sleep(NAP)

    def start_progress(self, period: float = PROGRESS_PERIOD) -> None:
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

    @property
    def library(self) -> str:
        """Name and version of the MPI library, as it says itself."""
        return MPI.Get_library_version().partition("\n")[0].strip("\0 ")

    def claims_gpu(self) -> bool:
        """Tell whether the library says that it takes vectors on a GPU.

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
            "hosts": [place["host"] for place in places],
            "clocks": identity.clocks(known),
            "cores": self.node_cores,
            "oversubscribed": any(place["shares"] for place in places),
            "placement": places,
        }

    def abort(self, status: int) -> None:
        """End the whole job with exit `status`, whatever the other ranks do.

        What this rank has said is passed on first: launchers that see a job abort may
        drop what they have not read yet.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(LAST_WORDS)
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
        fabric.ledger.front.moving += self._began - self._entered

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


class MpiMessages:
    """`base.Messages` on a communicator of its own, so nothing else can match."""

    def __init__(self, fabric: MpiFabric) -> None:
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
