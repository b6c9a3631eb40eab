"""A PyTorch module on vectors of CuPy: the same memory, the right order, the same g."""

from typing import Any

import numpy as np
import pytest

from dsgd_bench import arrays
from dsgd_bench.problems import make
from dsgd_bench.spec.trial import ProblemSpec

pytestmark = pytest.mark.gpu

cupy = pytest.importorskip("cupy", reason="CuPy is an extra, and not installed here")
torch = pytest.importorskip(
    "torch", reason="PyTorch is an extra, and not installed here"
)


@pytest.fixture(scope="module")
def gpu() -> Any:
    if not cupy.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch is not built for CUDA, or sees no device")
    return arrays.device("cuda")


def both(gpu: Any, module: str, dtype: Any, **settings: Any) -> tuple[Any, Any]:
    """Return the same problem on the host and on the GPU."""
    spec = ProblemSpec("torch", dtype=dtype, settings={"module": module, **settings})
    return make(spec, 3), make(spec, 3, device=gpu)


CASES = [
    ("mlp", "float64", {}),
    ("mlp", "float32", {}),
    ("resnet20", "float64", {"shape": (1, 8, 8)}),
    ("resnet20", "float32", {"shape": (1, 8, 8)}),
]

# What rounding leaves. In float32 a few units lie so near to 0 that rounding turns them
# on or off: on the host, float32 and float64 differ by 1e-6, or, with one unit, 2e-3.
TOLERANCE = {"float64": 1e-10, "float32": 1e-2}


@pytest.mark.parametrize(("module", "dtype", "more"), CASES)
def test_host_and_gpu_have_the_same_gradient(
    gpu: Any, module: str, dtype: str, more: dict[str, Any]
) -> None:
    host, there = both(gpu, module, dtype, **more)
    x = host.initial()
    y = there.initial()
    assert isinstance(y, cupy.ndarray)
    assert np.array_equal(y.get(), x)
    g, h = np.empty_like(x), cupy.full_like(y, np.nan)
    batch = np.arange(64)
    loss = host.gradient(x, batch, g)
    assert there.gradient(y, batch, h) == pytest.approx(loss, rel=1e-5)
    difference = np.linalg.norm(h.get() - g)
    assert difference < TOLERANCE[dtype] * np.linalg.norm(g)
    judged, expected = there.evaluate(y), host.evaluate(x)
    assert judged.loss == pytest.approx(expected.loss, rel=1e-5)
    # one held-out digit of 261 may lie on the border between two classes
    assert judged.accuracy == pytest.approx(expected.accuracy, abs=1.5 / 261)


def test_parameters_and_gradients_are_the_flat_vectors_themselves(gpu: Any) -> None:
    _, mlp = both(gpu, "mlp", "float32")
    x = mlp.initial()
    g = cupy.empty_like(x)
    mlp.gradient(x, np.arange(5), g)
    start = 0
    for parameter in mlp._module.parameters():
        assert parameter.data.data_ptr() == x[start:].data.ptr
        assert parameter.grad.data_ptr() == g[start:].data.ptr
        start += parameter.numel()
    assert start == mlp.dimension


def test_torch_waits_for_what_cupy_was_given_before_and_ends_first(gpu: Any) -> None:
    """Long kernels write the model just before; the sum is taken just after."""
    host, there = both(gpu, "mlp", "float64", data="generated", features=3000)
    x = host.initial()
    g = np.empty_like(x)
    batch = np.arange(64)
    host.gradient(x, batch, g)
    first = there.initial()
    y, h = cupy.empty_like(first), cupy.empty_like(first)
    long = cupy.ones((6000, 6000), cupy.float64)
    for _ in range(10):
        y.fill(np.nan)
        h.fill(np.nan)
        long @ long  # so that the model is written late
        cupy.multiply(first, 1.0, out=y)
        there.gradient(y, batch, h)
        copied = h.copy()  # at once, on the stream of this thread
        y.fill(np.nan)
        assert np.linalg.norm(copied.get() - g) < 1e-10 * np.linalg.norm(g)


def test_what_is_told_to_be_ready_is_complete(gpu: Any) -> None:
    _, there = both(gpu, "resnet20", "float32", shape=(1, 8, 8))
    x = there.initial()
    g = cupy.full_like(x, np.nan)
    told: list[tuple[slice, Any]] = []
    there.gradient(
        x, np.arange(32), g, ready=lambda part: told.append((part, g[part].get()))
    )
    assert sum(part.stop - part.start for part, _ in told) == there.dimension
    assert all(np.array_equal(values, g[part].get()) for part, values in told)
    ends = [there.dimension, *(part.start for part, _ in told)]
    assert ends == [*(part.stop for part, _ in told), 0], "from the end to the start"
    assert len(told) > 10


def test_no_memory_of_torch_grows_from_step_to_step(gpu: Any) -> None:
    _, there = both(gpu, "resnet20", "float32", shape=(1, 8, 8))
    x = there.initial()
    models = [x, x + 0, x + 0]
    g = cupy.empty_like(x)
    batch = np.arange(32)
    for y in models:
        there.gradient(y, batch, g)
    before = torch.cuda.memory_reserved(), cupy.get_default_memory_pool().total_bytes()
    for k in range(30):
        there.gradient(models[k % 3], batch, g)
    after = torch.cuda.memory_reserved(), cupy.get_default_memory_pool().total_bytes()
    assert after == before


def test_a_gradient_repeats_bit_by_bit(gpu: Any) -> None:
    _, there = both(gpu, "resnet20", "float32", shape=(1, 8, 8))
    x = there.initial()
    one, other = cupy.empty_like(x), cupy.empty_like(x)
    there.gradient(x, np.arange(32), one)
    there.gradient(x, np.arange(32), other)
    assert np.array_equal(one.get(), other.get())
