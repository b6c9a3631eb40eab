"""The door to CuPy: one GPU per process, and one stream per thread.

Every thread has a stream of its own (CUDA's per-thread default stream), so what a
communication thread copies runs beside the gradient; whoever hands something over to
MPI, a thread or a process finishes its stream first.
"""

import os
from typing import Any

from numpy.typing import ArrayLike, NDArray

from dsgd_bench.arrays import Host
from dsgd_bench.errors import ConfigError

os.environ.setdefault("CUPY_CUDA_PER_THREAD_DEFAULT_STREAM", "1")

try:
    import cupy
except ImportError as error:
    raise ConfigError(
        f'compute.device = "cuda" needs CuPy, which cannot be loaded ({error}): '
        "pip install 'dsgd-bench[cuda12]' or [cuda13], as the driver has it"
    ) from None


class Gpu(Host):
    """One GPU of this host; see `Host` for the methods.

    Parameters
    ----------
    local_rank : int
        Number of this rank on its host.

    Raises
    ------
    ConfigError
        If there is no GPU.
    """

    kind = "cuda"
    xp = cupy

    def __init__(self, local_rank: int) -> None:
        count = cupy.cuda.runtime.getDeviceCount()
        self.number = local_rank % count
        cupy.cuda.Device(self.number).use()

    def put(self, values: ArrayLike) -> NDArray[Any]:
        """Return a copy of host `values` in this memory."""
        return cupy.array(values)  # type: ignore[no-any-return]

    def finish(self) -> None:
        """Wait until all that this thread has started here is done."""
        finish()


def finish() -> None:
    """Wait until all that this thread has started is done."""
    cupy.cuda.get_current_stream().synchronize()


def copy(values: NDArray[Any], out: NDArray[Any]) -> None:
    """Copy `values` to `out`; see `dsgd_bench.arrays.copy`."""
    stream = cupy.cuda.get_current_stream()
    cupy.cuda.runtime.memcpyAsync(
        address(out),
        address(values),
        values.nbytes,
        cupy.cuda.runtime.memcpyDefault,
        stream.ptr,
    )
    stream.synchronize()


def address(x: NDArray[Any]) -> int:
    """Return where the first element of `x` lies."""
    if isinstance(x, cupy.ndarray):
        return int(x.data.ptr)
    return int(x.ctypes.data)
