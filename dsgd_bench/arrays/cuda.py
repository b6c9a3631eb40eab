"""The door to CuPy: one GPU per process, and one stream per thread.

Every thread has a stream of its own (CUDA's per-thread default stream), so the
copies of a communication thread overlap with the gradient; a thread that hands
something over to MPI, a thread or a process finishes its stream first.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsgd_bench.arrays import maps
from dsgd_bench.arrays.blas import PRECISIONS, Blas
from dsgd_bench.arrays.cublas import Cublas
from dsgd_bench.arrays.cuda_environment import (
    INSTALL,
    check_installed,
    prepare_environment,
)
from dsgd_bench.arrays.kernels import OPTIONS, Kernels, address, expressions
from dsgd_bench.arrays.maps import MapKernels
from dsgd_bench.arrays.vectors import Host
from dsgd_bench.errors import ConfigError, GpuError

MPS_PIPE = "/tmp/nvidia-mps"
"""Folder in which the Multi-Process Service listens, unless its variable says other."""

SOURCE = Path(__file__).with_name("kernels.cu")
LAYERS = Path(__file__).with_name("layers.cu")

BFLOAT16_SINCE = 80
"""Compute capability of the first GPUs that multiply TF32 and bfloat16."""

prepare_environment()
check_installed()
try:
    import cupy
    import cupyx
except ImportError as error:
    raise ConfigError(
        f"compute.device is 'cuda', which needs CuPy, and that cannot be loaded "
        f"({error}): {INSTALL}"
    ) from None


class Gpu(Host):
    """One GPU of this host; see `Host` for the methods.

    Parameters
    ----------
    local_rank : int
        Number of this rank on its host.
    precision : str
        How matrices of float32 are multiplied: ``"float32"``, ``"tf32"`` or
        ``"bfloat16"``; sums are float32.

    Attributes
    ----------
    number : int
        Of the GPU among those that this process sees.
    sharing : int
        Ranks on this GPU, as `divide` was told.

    Raises
    ------
    ConfigError
        If there is no GPU, it does not have the precision, or the driver is older than
        CuPy needs.
    """

    kind = "cuda"
    xp = cupy

    def __init__(self, local_rank: int = 0, precision: str = "float32") -> None:
        self.number = local_rank % _count()
        self.sharing = 1
        self.precision = precision
        self.use()
        self._check_precision()

    @property
    def place(self) -> str:
        """Which of its host's it is; two ranks with the same one share it."""
        return str(cupy.cuda.Device(self.number).pci_bus_id)

    def divide(self, ranks: int, share: float) -> None:
        """Take a part of the memory, if `ranks` of them have `share` of it together."""
        self.sharing = ranks
        _, total = cupy.cuda.runtime.memGetInfo()
        cupy.get_default_memory_pool().set_limit(size=int(share * total / ranks))

    def _check_precision(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"the precision {self.precision!r} is not known; it can be "
                f"{', '.join(PRECISIONS)}"
            )
        since = int(cupy.cuda.Device(self.number).compute_capability)
        if self.precision != "float32" and since < BFLOAT16_SINCE:
            raise ConfigError(
                f"GPU {self.number}, of compute capability {since / 10}, has no "
                f"{self.precision}, which needs {BFLOAT16_SINCE / 10}: take float32"
            )

    def use(self) -> None:
        """Make this thread compute here."""
        cupy.cuda.Device(self.number).use()

    def put(self, values: ArrayLike) -> NDArray[Any]:
        """Return a copy of host `values` in this memory."""
        return cupy.array(values)  # type: ignore[no-any-return]

    def finish(self) -> None:
        """Wait until all that this thread has started here is done."""
        finish()

    def describe(self) -> dict[str, Any]:
        """Return what provenance wants to know."""
        runtime = cupy.cuda.runtime
        properties = runtime.getDeviceProperties(self.number)
        return {
            "name": properties["name"].decode(),
            "number": self.number,
            "pci": self.place,
            "memory": properties["totalGlobalMem"],
            "ranks": self.sharing,
            "mps": _mps(),
            "cupy": cupy.__version__,
            "runtime": runtime.runtimeGetVersion(),
            "driver": runtime.driverGetVersion(),
        }

    @contextmanager
    def guard(self, rank: int) -> Iterator[None]:
        """Say in one sentence what `rank` lacks, if its memory does not suffice."""
        try:
            yield
        except (*SHORT_OF_MEMORY, GpuError) as error:
            if not _is_memory(error):
                raise
            free, total = cupy.cuda.runtime.memGetInfo()
            limit = cupy.get_default_memory_pool().get_limit()
            raise GpuError(
                f"rank {rank} has too little memory on GPU {self.number}: {error}; "
                f"{_gib(free)} of {_gib(total)} are free and its own limit is "
                f"{_gib(limit)}: take a smaller batch or model, or fewer ranks per GPU"
            ) from None


SHORT_OF_MEMORY = (
    cupy.cuda.memory.OutOfMemoryError,
    cupy.cuda.runtime.CUDARuntimeError,  # what is shared or pinned is not in the pool
)


def _is_memory(error: Exception) -> bool:
    """Tell whether memory is what `error` is about."""
    return "memory" in str(error).lower()


def _count() -> int:
    """Return how many GPUs this process sees."""
    runtime = cupy.cuda.runtime
    try:
        return int(runtime.getDeviceCount())
    except runtime.CUDARuntimeError as error:
        found, needed = runtime.driverGetVersion(), runtime.runtimeGetVersion()
        if found and found < needed - needed % 1000:
            raise ConfigError(
                f"compute.device is 'cuda', but the driver of {os.uname().nodename} "
                f"serves CUDA up to {_version(found)} and the installed CuPy needs "
                f"{_version(needed)}: install the CuPy of the driver's version "
                "([cuda12] or [cuda13]), or a newer driver"
            ) from None
        raise ConfigError(
            f"compute.device is 'cuda', but {os.uname().nodename} has no GPU that "
            f"this process can use ({error}): run on a host with one, look at "
            "nvidia-smi and CUDA_VISIBLE_DEVICES, or set compute.device = 'cpu'"
        ) from None


def _mps() -> bool:
    """Tell whether NVIDIA's Multi-Process Service is there; else ranks take turns."""
    folder = os.environ.get("CUDA_MPS_PIPE_DIRECTORY", MPS_PIPE)
    return (Path(folder) / "control").exists()


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _gib(nbytes: int) -> str:
    return f"{nbytes / 2**30:.3g} GiB"


def finish() -> None:
    """Wait until all that this thread has started is done."""
    cupy.cuda.get_current_stream().synchronize()


def start_copy(values: NDArray[Any], out: NDArray[Any]) -> None:
    """Start to copy `values` to `out` on this thread's stream, for `finish` to end."""
    cupy.cuda.runtime.memcpyAsync(
        address(out),
        address(values),
        values.nbytes,
        cupy.cuda.runtime.memcpyDefault,
        cupy.cuda.get_current_stream().ptr,
    )


def copy(values: NDArray[Any], out: NDArray[Any]) -> None:
    """Copy `values` to `out`; see `dsgd_bench.arrays.copy`."""
    start_copy(values, out)
    finish()


class _Slot:
    """Pinned memory on its way to the GPU.

    From other memory the driver may read after the call has returned.
    """

    def __init__(self, nbytes: int) -> None:
        self.memory: NDArray[np.uint8] = cupyx.empty_pinned(nbytes, np.uint8)
        self.sent = cupy.cuda.Event(disable_timing=True)


class _Slots(threading.local):
    """Two of each thread, used in turn, so that one fills while the other is sent."""

    def __init__(self) -> None:
        self.slots: list[_Slot] = []

    def take(self, nbytes: int) -> _Slot:
        """Return a slot that is free again, of at least so many bytes."""
        if len(self.slots) < 2:
            self.slots.append(_Slot(nbytes))
            return self.slots[-1]
        slot = self.slots.pop(0)
        slot.sent.synchronize()
        if slot.memory.nbytes < nbytes:
            slot = _Slot(nbytes)
        self.slots.append(slot)
        return slot


_SLOTS = _Slots()


def load(values: NDArray[Any], out: NDArray[Any]) -> None:
    """Start to copy host `values` to `out`; see `dsgd_bench.arrays.load`."""
    if not values.size:
        return
    slot = _SLOTS.take(values.nbytes)
    staged = slot.memory[: values.nbytes].view(values.dtype)
    np.copyto(staged, values.reshape(-1))
    stream = cupy.cuda.get_current_stream()
    cupy.cuda.runtime.memcpyAsync(
        address(out),
        address(staged),
        values.nbytes,
        cupy.cuda.runtime.memcpyHostToDevice,
        stream.ptr,
    )
    slot.sent.record(stream)


@cache
def kernels() -> Kernels:
    """Return the kernels of this process's GPU; see `Kernels.compile_all`."""
    module = cupy.RawModule(
        code=SOURCE.read_text(encoding="utf-8"),
        options=OPTIONS,
        name_expressions=tuple(expressions()),
    )
    return Kernels(lambda name: module.get_function(name).kernel, cupy.empty)


@cache
def map_kernels() -> MapKernels:
    """Return the kernels for maps of this process's GPU; compiled when first called."""
    module = cupy.RawModule(
        code=LAYERS.read_text(encoding="utf-8"),
        options=maps.OPTIONS,
        name_expressions=tuple(maps.expressions()),
    )
    return MapKernels(lambda name: module.get_function(name).kernel, kernels())


@cache
def blas() -> Blas:
    """Return matrix products on this process's GPU."""
    cupy.cuda.device.get_cublas_handle()  # loads the library
    return Blas(
        kernels(),
        Cublas(
            lambda: int(cupy.cuda.get_current_stream().ptr),
            lambda nbytes: cupy.empty(nbytes, "uint8"),
        ),
    )


def compile_all() -> None:
    """Compile all kernels and wake cuBLAS, before a clock starts."""
    kernels().compile_all()
    one = cupy.ones((1, 1), "float32")
    blas().matmul(one, one, cupy.empty_like(one), "float32")
    finish()


class RecordingError(Exception):
    """Work that cannot be recorded, and why."""


def record(work: Callable[[], None]) -> Any:
    """Record what `work` starts on this thread's stream, without doing it.

    Raises
    ------
    RecordingError
        If something in it does not let itself be recorded.
    """
    stream = cupy.cuda.get_current_stream()
    unable = (NotImplementedError, RuntimeError, cupy.cuda.runtime.CUDARuntimeError)
    try:
        stream.begin_capture()
        try:
            work()
        finally:
            graph = stream.end_capture()
    except unable as error:
        raise RecordingError(str(error)) from error
    return graph


def replay(graph: Any) -> None:
    """Start what was recorded, on this thread's stream."""
    graph.launch(cupy.cuda.get_current_stream())


class Allocations(cupy.cuda.MemoryHook):  # type: ignore[misc]
    """Watches what this thread allocates on the GPU, as a ``with`` block.

    Attributes
    ----------
    count : int
        Arrays that were made.
    peak : int
        Bytes in use at once beyond those at the start.
    """

    name = "dsgd-bench allocations"

    def __init__(self) -> None:
        self._pool = cupy.get_default_memory_pool()
        self._before = self._pool.used_bytes()
        self.count = self.peak = 0

    def malloc_postprocess(self, **_: Any) -> None:
        """Note one allocation; CuPy calls this."""
        self.count += 1
        self.peak = max(self.peak, self._pool.used_bytes() - self._before)


def describe() -> dict[str, str]:
    """Return what this GPU and the libraries for it are, for people."""
    device = cupy.cuda.Device()
    facts = cupy.cuda.runtime.getDeviceProperties(device.id)
    version = cupy.cuda.runtime.runtimeGetVersion()
    driver = cupy.cuda.runtime.driverGetVersion()
    capability = f"{facts['major']}.{facts['minor']}"
    return {
        "GPU": f"{facts['name'].decode()}, compute capability {capability}, "
        f"{facts['multiProcessorCount']} multiprocessors",
        "CUDA": f"runtime {_version(version)}, driver for {_version(driver)}, "
        f"CuPy {cupy.__version__}",
    }
