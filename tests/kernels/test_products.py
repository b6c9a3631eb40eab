"""Matrix products: what cuBLAS is asked for, answered by NumPy or by a GPU."""

import ctypes
from typing import Any

import numpy as np
import on_host
import pytest

from dsgd_bench.arrays.blas import BFLOAT_16, REAL_32, REAL_64, Blas

REALS = {REAL_32: np.float32, REAL_64: np.float64, BFLOAT_16: np.uint16}


def memory(place, count, dtype):
    nbytes = count * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * nbytes).from_address(place), dtype)


def operand(place, kind, flip, lead, rows, columns):
    """Return the matrix that cuBLAS would see, columns first, as float64."""
    if flip:
        rows, columns = columns, rows
    assert lead >= rows
    flat = memory(place, lead * columns, REALS[kind])
    if kind == BFLOAT_16:
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    seen = flat.reshape(columns, lead).T[:rows].astype(np.float64)
    return seen.T if flip else seen


def gemm_ex(*words):  # the order of arguments is cuBLAS's
    flip_a, flip_b, m, n, k, alpha, a, kind_a, lead_a, b, kind_b, lead_b = words[:12]
    beta, c, kind_c, lead_c, sums, _ = words[12:]
    scalar = np.float64 if sums == 70 else np.float32
    assert memory(alpha, 1, scalar)[0] == 1
    assert memory(beta, 1, scalar)[0] == 0
    left = operand(a, kind_a, flip_a, lead_a, m, k)
    right = operand(b, kind_b, flip_b, lead_b, k, n)
    out = memory(c, lead_c * n, REALS[kind_c]).reshape(n, lead_c)
    out[:, :m] = (left @ right).T


@pytest.fixture
def multiply(request, library):
    blas = Blas(on_host.kernels(library, True), gemm_ex)

    def run(a, b, out, precision):
        blas.matmul(a, b, out, precision)

    return run


@pytest.fixture(params=["asked", pytest.param("gpu", marks=pytest.mark.gpu)])
def product(request):
    """Return a function that gives ``a b`` for arrays here, transposed or not."""
    multiply: Any
    put: Any
    get: Any
    if request.param == "asked":
        multiply, put, get = request.getfixturevalue("multiply"), np.copy, np.asarray
    else:
        device = request.getfixturevalue("device")
        from dsgd_bench.arrays import cuda, host

        multiply, put, get = cuda.blas().matmul, device.put, host

    def run(a, b, precision="float32", flipped=(False, False)):
        a, b = (
            put(np.ascontiguousarray(x.T)).T if flip else put(x)
            for x, flip in zip((a, b), flipped, strict=True)
        )
        out = put(np.full((a.shape[0], b.shape[1]), 7, a.dtype))
        multiply(a, b, out, precision)
        return get(out)

    return run


SHAPES = [(1, 1, 1), (3, 5, 2), (1, 7, 4), (6, 1, 3), (5, 4, 1), (33, 65, 17)]
FLIPS = [(False, False), (True, False), (False, True), (True, True)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("flipped", FLIPS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_is_numpys_whichever_factor_is_transposed(
    product, shape, flipped, dtype
):
    random = np.random.default_rng(1)
    m, k, n = shape
    a = random.standard_normal((m, k)).astype(dtype)
    b = random.standard_normal((k, n)).astype(dtype)
    found = product(a, b, flipped=flipped)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    # sums of k products of size 1
    np.testing.assert_allclose(found, exact, rtol=0, atol=8 * k * np.finfo(dtype).eps)


@pytest.mark.parametrize(("precision", "bits"), [("tf32", 10), ("bfloat16", 7)])
def test_less_precise_products_lose_bits_of_their_factors_only(
    product, precision, bits
):
    random = np.random.default_rng(2)
    a = random.standard_normal((40, 64)).astype(np.float32)
    b = random.standard_normal((64, 30)).astype(np.float32)
    for flipped in FLIPS:
        found = product(a, b, precision, flipped)
        # both factors may be cut off after so many bits
        bound = 2 * 2**-bits * (np.abs(a) @ np.abs(b))
        assert (np.abs(found - a.astype(float) @ b.astype(float)) <= bound).all()


def test_float64_is_multiplied_as_it_is_whatever_the_precision(product):
    random = np.random.default_rng(3)
    a, b = random.standard_normal((2, 9, 9))
    # rounding of sums of nine products
    np.testing.assert_allclose(product(a, b, "bfloat16"), a @ b, rtol=0, atol=1e-13)
