"""Problems on a GPU: gradients as on the host, without allocation, and recorded."""

from typing import Any

import numpy as np
import pytest

from dsgd_bench import arrays
from dsgd_bench.arrays import HOST
from dsgd_bench.problems import PROBLEMS

pytestmark = pytest.mark.gpu

CASES: dict[str, Any] = {
    "logistic": {"data": "generated", "samples": 300, "features": 70},
    "softmax": {"data": "generated", "samples": 300, "features": 70},
    "mlp": {"data": "generated", "samples": 300, "features": 70, "hidden": (40, 30)},
    "quadratic": {"dimension": 900, "samples": 300},
    "message": {"dimension": 900, "samples": 300},
    "lenet": {"data": "digits"},
    "lenet, average": {"data": "digits", "pooling": "average"},
    "lenet, colors": {"data": "generated", "samples": 300},
    "resnet20": {"samples": 300},
    "resnet20, moved": {"samples": 300, "augmentation": True},
}

RECORDED = [
    kind for kind in CASES if kind.split(",")[0] in ("mlp", "lenet", "resnet20")
]

TOLERANCES = {"float64": 1e-10, "float32": 1e-4}
"""Relative, of the whole gradient."""

BATCHES = (7, 32)


def make(kind, dtype, device, **more):
    settings: dict[str, Any] = {**CASES[kind], **more}
    kind = kind.partition(",")[0]
    return PROBLEMS[kind](**settings, dtype=dtype, seed=1, device=device)


def batch(problem, size, seed=0):
    return np.random.default_rng(seed).integers(problem.samples, size=size)


def disturbed(problem):
    x = arrays.host(problem.initial())
    random = np.random.default_rng(2)
    return x + 0.02 * random.standard_normal(x.size).astype(x.dtype)


def error(found, expected):
    return np.linalg.norm(found - expected) / max(
        float(np.linalg.norm(expected)), 1e-30
    )


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("kind", CASES)
def test_the_gradient_is_that_of_the_host(device, kind, dtype):
    here, there = make(kind, dtype, HOST), make(kind, dtype, device)
    x = disturbed(here)
    x_there = device.put(x)
    np.testing.assert_array_equal(arrays.host(there.initial()), here.initial())
    for size in BATCHES:
        errors = []
        for seed in range(5):
            g, found = np.zeros_like(x), device.put(np.zeros_like(x))
            indices = batch(here, size, seed)
            loss = here.gradient(x, indices, g)
            loss_there = there.gradient(x_there, indices, found)
            assert loss_there == pytest.approx(loss, rel=TOLERANCES[dtype])
            errors.append(error(arrays.host(found), g))
        # In single precision rounding may move a value across the kink of a ReLU or
        # from one largest pixel to another, which changes one batch's gradient a bit;
        # a mistake would show in every batch.
        assert min(errors) < TOLERANCES[dtype]
        assert max(errors) < (1e-10 if dtype == "float64" else 0.05)


@pytest.mark.parametrize("kind", CASES)
def test_a_model_is_judged_as_on_the_host(device, kind):
    here, there = make(kind, "float64", HOST), make(kind, "float64", device)
    x = disturbed(here)
    expected, found = here.evaluate(x), there.evaluate(device.put(x))
    assert found.loss == pytest.approx(expected.loss, rel=1e-10)
    np.testing.assert_equal(found.accuracy, expected.accuracy)


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("kind", RECORDED)
def test_a_gradient_allocates_nothing_on_the_gpu(device, kind, recorded):
    from cupy import cuda

    class Counter(cuda.MemoryHook):
        name = "counter"
        count = 0

        def malloc_preprocess(self, **_):
            self.count += 1

    problem = make(kind, "float32", device, recorded=recorded)
    x = problem.initial()
    g = device.xp.zeros_like(x)
    for seed in range(4):
        problem.gradient(x, batch(problem, 32, seed), g)
    with Counter() as counter:
        for seed in range(4):
            problem.gradient(x, batch(problem, 32, seed), g)
    assert counter.count == 0


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("kind", RECORDED)
def test_what_is_recorded_gives_the_same_bits(device, kind, dtype):
    eager = make(kind, dtype, device, recorded=False)
    recorded = make(kind, dtype, device, recorded=True)
    models = [device.put(disturbed(eager)), eager.initial()]
    gradients = [device.xp.zeros_like(models[0]) for _ in range(3)]
    expected = device.xp.zeros_like(models[0])
    for step in range(8):
        x, g = models[step % 2], gradients[step % 3]
        indices = batch(eager, BATCHES[step % 2], step)
        loss = eager.gradient(x, indices, expected)
        assert recorded.gradient(x, indices, g) == loss
        np.testing.assert_array_equal(arrays.host(g), arrays.host(expected))
        x -= 0.01 * g
    assert recorded._record.recordings > 0, "nothing was recorded after all"


@pytest.mark.parametrize("kind", CASES)
def test_parts_are_ready_from_the_end_to_the_start(device, kind):
    problem = make(kind, "float64", device)
    x = problem.initial()
    whole, g = device.xp.zeros_like(x), device.xp.zeros_like(x)
    indices = batch(problem, 32)
    problem.gradient(x, indices, whole)
    parts = []

    def ready(part):
        parts.append((part, arrays.host(g[part])))

    for _ in range(3):  # once eagerly, once recorded, once replayed
        parts.clear()
        g.fill(0)
        problem.gradient(x, indices, g, ready)
    assert sum(part.stop - part.start for part, _ in parts) == problem.dimension
    end = problem.dimension
    for part, values in parts:
        assert part.stop == end
        end = part.start
        np.testing.assert_array_equal(values, arrays.host(whole[part]))


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
@pytest.mark.parametrize("kind", ["mlp", "lenet", "resnet20"])
def test_rounded_factors_give_nearly_the_same_gradient(device, kind, precision):
    exact = make(kind, "float32", device)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "precision", precision)
        rounded = make(kind, "float32", device)
    x = exact.initial()
    g, found = device.xp.zeros_like(x), device.xp.zeros_like(x)
    indices = batch(exact, 64)
    exact.gradient(x, indices, g)
    rounded.gradient(x, indices, found)
    difference = error(arrays.host(found), arrays.host(g))
    # 10 and 7 bits of mantissa; twenty layers, and ReLUs that switch
    limits = {"tf32": 0.1, "bfloat16": 0.5}
    assert 0 < difference < limits[precision]


@pytest.mark.parametrize("value", [3e38, -np.inf, np.nan])
@pytest.mark.parametrize("kind", RECORDED)
def test_a_diverged_model_has_no_finite_loss(device, kind, value):
    problem = make(kind, "float32", device)
    x = device.put(np.full(problem.dimension, value, np.float32))
    g = device.xp.zeros_like(x)
    for _ in range(2):
        assert not np.isfinite(problem.gradient(x, batch(problem, 32), g))
