"""Networks whose kernels run on the host or on a GPU, against the same with NumPy."""

import contextlib
import importlib
from typing import Any

import numpy as np
import on_host
import pytest

from dsgd_bench import arrays
from dsgd_bench.arrays import HOST, Host, layers, updates, vectors
from dsgd_bench.arrays.maps import MapKernels
from dsgd_bench.problems import PROBLEMS

MODULES = (
    arrays,
    updates,
    layers,
    vectors,
    *(
        importlib.import_module(f"dsgd_bench.problems.{name}")
        for name in (
            "classifier",
            "convolutional",
            "layers.convolution",
            "layers.dense",
            "layers.normalization",
            "layers.pooling",
            "layers.strided",
        )
    ),
)

NETWORKS: dict[str, Any] = {
    "mlp": {"data": "generated", "samples": 40, "features": 9, "hidden": (8, 5)},
    "softmax": {"data": "generated", "samples": 40, "features": 9},
    "lenet": {"data": "digits"},
    "lenet, average": {"data": "digits", "pooling": "average", "augmentation": True},
    "lenet, colors": {"data": "generated", "samples": 12, "classes": 3},
    "resnet20": {"data": "digits", "augmentation": True},
}

TOLERANCES = {"float64": 1e-10, "float32": 1e-4}
"""Relative, of the whole gradient. In float32 an element that rounding moves across
zero switches a ReLU, so the seed is one where none does."""


class Emulated(Host):
    """A GPU whose kernels were compiled for the host."""

    kind = "emulated"

    def __init__(self, precision="float32"):
        self.precision = precision

    def put(self, values):
        return np.array(values)


def matmul(a, b, out, precision):
    np.matmul(a, b, out=out)


@pytest.fixture(params=["ascending", "descending"])
def emulated(request, library, monkeypatch):
    """Where work goes to kernels on the host, each block's threads in this order."""
    ascending = request.param == "ascending"
    kernels = on_host.kernels(library, ascending)
    on_maps = MapKernels(on_host.functions(library, ascending), kernels)
    replacements = {
        "on_gpu": lambda x: True,
        "gpu": lambda: kernels,
        "on_maps": lambda: on_maps,
        "matmul": matmul,
        "load": lambda values, out: np.copyto(out, values),
        "host": lambda x: x,
    }

    @contextlib.contextmanager
    def patched():
        with monkeypatch.context() as patch:
            for module in MODULES:
                for name, value in replacements.items():
                    if hasattr(module, name):
                        patch.setattr(module, name, value)
            yield

    return patched


def make(kind, dtype, device, **more):
    settings: dict[str, Any] = {**NETWORKS[kind], **more}
    kind = kind.partition(",")[0]
    return PROBLEMS[kind](**settings, dtype=dtype, seed=1, device=device)


CASES = [
    (kind, dtype)
    for kind in NETWORKS
    for dtype in TOLERANCES
    if (kind, dtype) != ("resnet20", "float32")  # takes half a minute
]


@pytest.mark.parametrize(("kind", "dtype"), CASES)
def test_a_network_of_kernels_has_the_gradient_of_numpys(emulated, kind, dtype):
    here = make(kind, dtype, HOST)
    x = here.initial()
    x += 0.02 * np.random.default_rng(2).standard_normal(x.size).astype(dtype)
    batch = np.array([3, 1, 4, 1, 5] if kind != "resnet20" else [3, 1])
    expected, found = np.empty_like(x), np.full_like(x, np.nan)
    loss = here.gradient(x, batch, expected)
    with emulated():
        there = make(kind, dtype, Emulated())
        for _ in range(2):  # the second time in memory that was used
            found_loss = there.gradient(x, batch, found)
            assert found_loss == pytest.approx(loss, rel=TOLERANCES[dtype])
            error = np.linalg.norm(found - expected)
            assert error < TOLERANCES[dtype] * np.linalg.norm(expected)


@pytest.mark.parametrize("kind", ["mlp", "lenet, colors"])
def test_a_network_of_kernels_judges_as_numpys_does(emulated, kind):
    here = make(kind, "float64", HOST)
    x = here.initial()
    with emulated():
        found = make(kind, "float64", Emulated()).evaluate(x)
    expected = here.evaluate(x)
    assert found.loss == pytest.approx(expected.loss, rel=1e-10)
    assert found.accuracy == expected.accuracy


def test_judging_with_kernels_takes_statistics_too(emulated):
    settings: dict[str, Any] = {
        "data": "generated",
        "samples": 3,
        "classes": 2,
        "augmentation": False,
    }
    here = make("resnet20", "float64", HOST, **settings)
    x = here.initial()
    with emulated():
        found = make("resnet20", "float64", Emulated(), **settings).evaluate(x)
    assert found.loss == pytest.approx(here.evaluate(x).loss, rel=1e-10)


@pytest.mark.parametrize("kind", ["lenet", "resnet20"])
def test_rounded_products_go_through_columns(emulated, kind):
    """With TF32 and bfloat16 cuBLAS multiplies columns; here it rounds nothing."""
    here = make(kind, "float64", HOST)
    x = here.initial()
    expected, found = np.empty_like(x), np.full_like(x, np.nan)
    here.gradient(x, np.arange(2), expected)
    with emulated():
        there = make(kind, "float64", Emulated("tf32"))
        there.gradient(x, np.arange(2), found)
    assert np.linalg.norm(found - expected) < 1e-12 * np.linalg.norm(expected)
