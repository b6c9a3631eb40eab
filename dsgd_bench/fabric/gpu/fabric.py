"""A fabric for vectors on a GPU: how they reach the others, chosen once and recorded.

Two ways exist for windows and two for messages and collectives:

``staged``
    MPI sees pinned host memory. A window lies there, and the GPU computes on its own
    part in place; other vectors are copied, in chunks beside their transfer.
``ipc``
    Windows lie on the GPUs, and kernels work on those of neighbors: one host only.
``gpu-aware``
    Messages and collectives are handed to MPI as they are. Not windows: no library
    performs all of their operations on a GPU's memory.

Whatever is chosen, this thread's work on the GPU is finished before anybody else may
see its result: before a library call, and before and after a helper's work.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from dsgd_bench import arrays
from dsgd_bench.arrays import Array, Scratch, cuda, memory, on_gpu
from dsgd_bench.arrays.cuda import Gpu
from dsgd_bench.arrays.updates import accumulate
from dsgd_bench.errors import ConfigError
from dsgd_bench.fabric.base import Fabric, Helper, Messages, VectorWindow
from dsgd_bench.fabric.gpu.ipc_window import PeerWindow
from dsgd_bench.fabric.gpu.staging import MappedWindow, StagedMessages, Staging
from dsgd_bench.fabric.wrapped import WrappedFabric

if TYPE_CHECKING:
    from dsgd_bench.fabric.mpi.fabric import MpiFabric

Asked = Literal["auto", "staged", "gpu-aware", "ipc"]

PROBE = 1024
"""Elements that are sent to prove a way."""

ADDITIONS = 100
"""Sums into every neighbor's memory that must all be there."""


@dataclass(frozen=True)
class Transport:
    """How vectors on the GPU reach the others.

    Attributes
    ----------
    windows : str
        ``"staged"`` or ``"ipc"``.
    messages : str
        ``"staged"`` or ``"gpu-aware"``; collectives, too.
    why : str
        In a few words, what was found.
    """

    windows: str
    messages: str
    why: str


def on_gpus(fabric: Fabric, gpu: Gpu, asked: Asked) -> "DeviceFabric":
    """Return a fabric for vectors on this rank's `gpu`; collective.

    `fabric` is one of MPI: simulated ranks compute on the host.

    Raises
    ------
    ConfigError
        If a way is asked for that does not work here.
    """
    mpi = cast("MpiFabric", fabric)
    return DeviceFabric(mpi, gpu, choose(mpi, gpu, asked))


def choose(fabric: "MpiFabric", gpu: Gpu, asked: Asked) -> Transport:
    """Prove which ways work between these ranks, and choose; collective.

    Raises
    ------
    ConfigError
        As `on_gpus`.
    """
    if asked == "staged":
        return Transport("staged", "staged", "asked for")
    no_ipc = _no_ipc(fabric) if asked != "gpu-aware" else "not asked for"
    unaware = _unaware(fabric, gpu) if asked != "ipc" else "not asked for"
    missing = {"ipc": no_ipc, "gpu-aware": unaware}.get(asked, "")
    if missing:
        raise ConfigError(
            f"gpu.transport is {asked!r}, but {missing}: use 'staged', or 'auto', "
            "which takes what works"
        )
    return Transport(
        windows="staged" if no_ipc else "ipc",
        messages="staged" if unaware else "gpu-aware",
        why=f"windows: {no_ipc or 'IPC works'}; messages: {unaware or 'proven'}",
    )


def _no_ipc(fabric: Fabric) -> str:
    """Return why windows cannot be shared by IPC; empty if they can.

    A rank that fails says so, and goes on meeting the others.
    """
    if len(set(fabric.nodes())) > 1:
        return "the ranks are on several hosts"
    own, failed = None, ""
    try:
        own = memory.Shared(PROBE, np.float32)
    except RuntimeError as error:
        failed = f"the driver refuses to share memory ({error})"
    handles = fabric.gather(own and own.handle)
    if all(handles):
        failed = _add_to([h for rank, h in enumerate(handles) if rank != fabric.rank])
    failures = fabric.gather(failed)  # every rank has added to every rank
    if own and not any(failures):
        total = ADDITIONS * (fabric.size - 1)
        right = bool((arrays.host(own.vector) == total).all())
        failed = "" if right else "sums into a neighbor's memory are not atomic"
    failures += fabric.gather(failed)
    if own:
        own.close()
    return next(filter(None, failures), "")


def _add_to(handles: list[bytes]) -> str:
    """Add 1 to others' vectors again and again; return why it fails, if it does.

    All ranks do so at once: where sums between two GPUs are not atomic some are lost.
    """
    opened: list[memory.Opened] = []
    one = memory.Shared(PROBE, np.float32)
    try:
        one.vector[...] = 1.0
        opened.extend(memory.Opened(handle, PROBE, np.float32) for handle in handles)
        for _ in range(ADDITIONS):
            for theirs in opened:
                accumulate(1.0, one.vector, theirs.vector, Scratch(one.vector))
        cuda.finish()
    except RuntimeError as error:
        return f"the driver refuses to open a neighbor's memory ({error})"
    finally:
        for theirs in opened:
            theirs.close()
        one.close()
    return ""


def _unaware(fabric: "MpiFabric", gpu: Gpu) -> str:
    """Return why vectors on a GPU cannot be handed to MPI; empty if they can.

    A library that is not aware of GPUs would crash on the first one, so it is asked
    before it is tried.
    """
    if not all(fabric.gather(fabric.claims_gpu())):
        return "the MPI library takes no vectors on a GPU"
    x = gpu.put(np.full(PROBE, fabric.rank + 1.0, np.float32))
    gpu.finish()
    fabric.average(x)
    mean = (fabric.size + 1) / 2
    right = bool(np.allclose(arrays.host(x), mean, rtol=1e-6))
    return (
        "" if all(fabric.gather(right)) else "a sum of vectors on GPUs came out wrong"
    )


class DeviceFabric(WrappedFabric):
    """A fabric whose vectors lie on a GPU.

    Parameters
    ----------
    fabric : MpiFabric
        What reaches the other ranks.
    gpu : Gpu
        This rank's.
    transport : Transport
        As `choose` returned it, the same on every rank.

    Attributes
    ----------
    gpu, transport
        As above.
    """

    def __init__(self, fabric: "MpiFabric", gpu: Gpu, transport: Transport) -> None:
        super().__init__(fabric)
        self._mpi, self.gpu = fabric, gpu
        self.transport = transport
        self._aware = transport.messages == "gpu-aware"
        self._staging = Staging()

    def average(self, x: Array) -> None:
        """Replace `x` by its mean over all ranks, in place; everyone waits.

        Staged, a chunk is summed while the next one is copied to the host and the last
        one back.
        """
        self.gpu.finish()
        if not on_gpu(x):
            self._fabric.average(x)
            return
        entered = self._fabric.now()
        if self._aware:
            self._mpi.sum(x)
        else:
            self._sum_chunks(x)
        self._mpi.averaged(x, entered)

    def _sum_chunks(self, x: Array) -> None:
        host = self._staging[x]
        for part in memory.arriving(x, host):
            self._mpi.sum(host[part])
            cuda.start_copy(host[part], x[part])
        self.gpu.finish()

    def averaging(self, x: Array) -> AbstractContextManager[None]:
        """Start `average` on entry and finish it on exit; `x` is lent meanwhile."""
        self.gpu.finish()
        if self._aware or not on_gpu(x):
            return self._fabric.averaging(x)
        return self._staged_averaging(x)

    @contextmanager
    def _staged_averaging(self, x: Array) -> Iterator[None]:
        host = self._staging[x]
        with self._transfer():
            arrays.copy(x, host)
        with self._fabric.averaging(host):
            yield
        with self._transfer():
            arrays.copy(host, x)

    @contextmanager
    def _transfer(self) -> Iterator[None]:
        """Book the block as transfer, on the training thread."""
        started = self._fabric.now()
        yield
        self._fabric.ledger.training.transfer += self._fabric.now() - started

    def vectors(self, length: int, like: NDArray[Any]) -> VectorWindow:
        """Open a window of a vector of `length` zeros on every rank; collective."""
        if not on_gpu(like):
            return self._fabric.vectors(length, like)
        if self.transport.windows == "ipc":
            return PeerWindow(self._fabric, length, like.dtype)
        on_host = np.empty(0, like.dtype)
        return MappedWindow(self._fabric.vectors(length, on_host))

    def messages(self) -> Messages:
        """Open a channel for two-sided messages; collective."""
        if self._aware:
            return _Finished(self._fabric.messages(), self.gpu)
        return StagedMessages(self._mpi)

    def helper(self) -> Helper:
        """Make a helper that works beside the training thread, on its own stream."""
        return _FinishingHelper(self._fabric.helper(), self.gpu)


class _Finished:
    """`base.Messages` of a GPU-aware library, which has streams of its own.

    What is sent has been computed, and what is overwritten is not read any more.
    """

    def __init__(self, messages: Messages, gpu: Gpu) -> None:
        self._messages, self._gpu = messages, gpu

    def send(self, values: NDArray[Any], rank: int) -> None:
        if on_gpu(values):
            self._gpu.finish()
        self._messages.send(values, rank)

    def receive(self, out: NDArray[Any], rank: int) -> None:
        if on_gpu(out):
            self._gpu.finish()
        self._messages.receive(out, rank)

    def arrive(self) -> None:
        self._messages.arrive()

    def wait(self) -> None:
        self._messages.wait()

    def take(self, out: NDArray[Any]) -> tuple[int, int]:
        return self._messages.take(out)

    def close(self) -> None:
        self._messages.close()


class _FinishingHelper:
    """`base.Helper` that sees finished work only, and leaves only finished work."""

    def __init__(self, helper: Helper, gpu: Gpu) -> None:
        self._helper, self._gpu = helper, gpu

    def start(self, work: Callable[[], None]) -> None:
        self._gpu.finish()
        self._helper.start(lambda: self._do(work))

    def join(self) -> None:
        self._helper.join()

    def check(self) -> None:
        self._helper.check()

    def close(self) -> None:
        self._helper.close()

    def _do(self, work: Callable[[], None]) -> None:
        self._gpu.use()
        try:
            work()
        finally:
            self._gpu.finish()
