"""Matrix products on a GPU: how cuBLAS is called, and nothing is allocated.

Like `kernels.py` this file knows no CuPy; it is given cuBLAS's ``gemmEx``. cuBLAS
counts columns first: what it takes for the transpose of an array here is the array.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.arrays.kernels import Kernels, address
from dsgd_bench.arrays.vectors import Array

Gemm = Callable[..., None]
"""``gemmEx`` without its handle."""

AS_IT_IS, TRANSPOSED = 0, 1
REAL_32, REAL_64, BFLOAT_16 = 0, 1, 14
SUMS_32, SUMS_64, SUMS_32_OF_TF32 = 68, 70, 77
ANY_ALGORITHM = -1
"""Values of cuBLAS's and CUDA's enumerations."""

PRECISIONS = ("float32", "tf32", "bfloat16")
"""How float32 may be multiplied; see `Blas.matmul`."""


def layout(x: Array) -> tuple[int, int]:
    """Return whether cuBLAS must transpose a matrix, and its leading dimension."""
    rows, columns = x.shape
    if x.flags.c_contiguous:
        return AS_IT_IS, max(columns, 1)
    return TRANSPOSED, max(rows, 1)


class Blas:
    """Multiplies matrices.

    Parameters
    ----------
    kernels : Kernels
        Make bfloat16 of float32, and keep the memory for it.
    gemm : callable
        See `Gemm`.
    """

    def __init__(self, kernels: Kernels, gemm: Gemm) -> None:
        self._kernels, self._gemm = kernels, gemm
        # cuBLAS reads both factors from the host, in the type of the sums.
        self._factors = {char: np.array([1, 0], char) for char in "fd"}

    def matmul(self, a: Array, b: Array, out: Array, precision: str) -> None:
        """Compute ``out <- a b``; see `dsgd_bench.arrays.layers.matmul`.

        With ``"tf32"`` the factors of float32 lose 13 bits on the way to the tensor
        cores, with ``"bfloat16"`` 16; float64 is always multiplied as it is.
        """
        (rows, columns), inner = out.shape, a.shape[1]
        char = out.dtype.char
        kind, sums = (REAL_32, SUMS_32) if char == "f" else (REAL_64, SUMS_64)
        (flip_a, lead_a), (flip_b, lead_b) = layout(a), layout(b)
        result = kind
        if char == "f" and precision == "tf32":
            sums = SUMS_32_OF_TF32
        elif char == "f" and precision == "bfloat16":
            kind = BFLOAT_16
            a, b = self._rounded("a", a), self._rounded("b", b)
        one = self._factors[char].ctypes.data
        zero = one + out.itemsize
        # out^T = b^T a^T, and these are what cuBLAS sees
        self._gemm(
            *(flip_b, flip_a, columns, rows, inner),
            *(one, address(b), kind, lead_b, address(a), kind, lead_a),
            *(zero, address(out), result, max(columns, 1), sums, ANY_ALGORITHM),
        )

    def _rounded(self, name: str, x: Array) -> NDArray[Any]:
        """Return `x`, in the order in which it lies in memory, as bfloat16."""
        rounded = self._kernels.scratch(f"bfloat16 {name}", x.size, np.uint16)
        self._kernels.to_bfloat16(x, rounded)
        return rounded
