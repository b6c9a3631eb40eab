"""cuBLAS called directly: through CuPy it does not let itself be recorded.

CuPy 14 refuses calls of cuBLAS while a stream is recorded; the library itself does not
mind as long as it has its memory. So this takes the library that CuPy has loaded, with
a handle and memory for each thread.
"""

import ctypes
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dsgd_bench.arrays.kernels import address
from dsgd_bench.errors import ConfigError

WORKSPACE_BYTES = 32 * 1024**2
"""What NVIDIA recommends for the largest GPUs."""

GEMM = (
    *(ctypes.c_void_p, ctypes.c_int, ctypes.c_int),  # handle, transposed or not
    *(ctypes.c_int, ctypes.c_int, ctypes.c_int),  # sizes
    *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int),  # factor, A
    *(ctypes.c_void_p, ctypes.c_int, ctypes.c_int),  # B
    *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int),  # factor, C
    *(ctypes.c_int, ctypes.c_int),  # type of the sums, algorithm
)
"""Types of the arguments of ``cublasGemmEx``."""


class Cublas:
    """``gemmEx`` for the calling thread and its stream.

    Parameters
    ----------
    stream : callable
        Returns the address of the calling thread's stream.
    memory : callable
        Returns as many bytes of the GPU, as an array, as it is told.
    """

    def __init__(
        self, stream: Callable[[], int], memory: Callable[[int], NDArray[Any]]
    ) -> None:
        self._stream, self._memory = stream, memory
        self._library = ctypes.CDLL(loaded("libcublas.so"))
        self._gemm = self._library.cublasGemmEx
        self._gemm.argtypes = GEMM
        self._own = threading.local()

    def __call__(self, *words: Any) -> None:
        """Call ``cublasGemmEx`` with everything but the handle."""
        own, stream = self._own, self._stream()
        if getattr(own, "stream", None) != stream:
            self._turn_to(stream)
        _check("cublasGemmEx", self._gemm(own.handle, *words))

    def _turn_to(self, stream: int) -> None:
        """Use another stream from now on; the first time, make a handle."""
        own, library = self._own, self._library
        if not hasattr(own, "handle"):
            own.handle = ctypes.c_void_p()
            made = library.cublasCreate_v2(ctypes.byref(own.handle))
            _check("cublasCreate", made)
            own.memory = self._memory(WORKSPACE_BYTES)
        turned = library.cublasSetStream_v2(own.handle, ctypes.c_void_p(stream))
        _check("cublasSetStream", turned)
        given = library.cublasSetWorkspace_v2(
            own.handle,
            ctypes.c_void_p(address(own.memory)),
            ctypes.c_size_t(WORKSPACE_BYTES),
        )
        _check("cublasSetWorkspace", given)
        own.stream = stream


def loaded(name: str, maps: Path = Path("/proc/self/maps")) -> str:
    """Return the path of a library that this process has loaded, by its name's start.

    Raises
    ------
    ConfigError
        If it has not.
    """
    for line in maps.read_text(encoding="utf-8", errors="replace").splitlines():
        path = line.partition("/")[2]
        if path.rpartition("/")[2].startswith(name):
            return f"/{path}"
    raise ConfigError(
        f"{name} is not loaded by CuPy; install the CUDA libraries that it needs, for "
        "example with pip install 'cupy-cuda12x[ctk]'"
    )


def _check(name: str, status: int) -> None:
    if status:
        raise RuntimeError(f"{name} failed with status {status}")
