"""The optimizer: the formulas of its docstring, in blocks, beside another thread."""

import sys
import threading
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from dsgd_bench import arrays
from dsgd_bench.arrays import Array
from dsgd_bench.spec.trial import OptimizerSpec, ScheduleSpec
from dsgd_bench.trial.optimizer import Optimizer, scale

SETTINGS = [
    OptimizerSpec(lr=0.3),
    OptimizerSpec(lr=0.3, weight_decay=0.1),
    OptimizerSpec(lr=0.3, momentum=0.9),
    OptimizerSpec(lr=0.3, momentum=0.9, weight_decay=0.1),
    OptimizerSpec(lr=0.3, momentum=0.9, nesterov=True),
    OptimizerSpec(lr=0.3, momentum=0.9, nesterov=True, weight_decay=0.1),
]


def by_the_formula(s: OptimizerSpec, x: Array, gradients: list[Array]) -> Array:
    u = np.zeros_like(x)
    for g in gradients:
        d = g + s.weight_decay * x
        u = s.momentum * u + d
        x = x - s.lr * (d + s.momentum * u if s.nesterov else u)
    return x


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("length", [1, 8, 9, 25])
@pytest.mark.parametrize("spec", SETTINGS)
def test_updates_follow_the_formula_in_any_number_of_blocks(
    monkeypatch: pytest.MonkeyPatch, spec: OptimizerSpec, length: int, dtype: str
) -> None:
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 8 * np.dtype(dtype).itemsize)
    random = np.random.default_rng(0)
    gradients = [random.standard_normal(length).astype(dtype) for _ in range(6)]
    start = random.standard_normal(length).astype(dtype)
    x = start.copy()
    optimizer = Optimizer(spec, x)
    for g in gradients:
        before = g.copy()
        optimizer.update(x, g)
        np.testing.assert_array_equal(g, before)
    expected = by_the_formula(
        spec, start.astype(float), [g.astype(float) for g in gradients]
    )
    # rounding of six updates of numbers up to ten
    tolerance = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(x, expected, rtol=0, atol=tolerance)
    assert x.dtype == dtype


def test_descending_leaves_the_velocity_alone() -> None:
    spec = OptimizerSpec(lr=0.5, momentum=0.9, weight_decay=0.1)
    x, other, g = np.ones(3), np.ones(3), np.full(3, 2.0)
    optimizer, undisturbed = Optimizer(spec, x), Optimizer(spec, x)
    y = np.ones(3)
    optimizer.descend(y, g)
    # rounding of a handful of operations
    moved = -spec.lr * (2.0 + spec.weight_decay)
    np.testing.assert_allclose(y, np.full(3, 1.0 + moved), rtol=0, atol=1e-15)
    optimizer.descend(y, g, scale=0.0)
    np.testing.assert_allclose(y, np.full(3, 1.0 + moved), rtol=0, atol=1e-15)
    for _ in range(2):
        optimizer.update(x, g)
        undisturbed.update(other, g)
    np.testing.assert_array_equal(x, other)


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("spec", [SETTINGS[0], SETTINGS[1]])
def test_one_thread_may_descend_while_another_one_updates(
    hasty_threads: None, spec: OptimizerSpec
) -> None:
    """As in wait-free AD-PSGD, where a shared intermediate result would lose mass."""
    length, steps = 2000, 1500
    x, y = np.zeros(length), np.zeros(length)
    ones, twos = np.ones(length), np.full(length, 2.0)
    optimizer = Optimizer(spec, x)
    expected = by_the_formula(spec, np.zeros(1), [np.ones(1)] * steps)

    def update() -> None:
        for _ in range(steps):
            optimizer.update(x, ones)

    beside = threading.Thread(target=update)
    beside.start()
    descents = 0
    while beside.is_alive():
        optimizer.descend(y, twos)
        descents += 1
    beside.join()
    # rounding of so many additions
    np.testing.assert_allclose(x, np.full(length, expected), rtol=1e-10)
    lr, decayed = 0.3, 0.0
    for _ in range(descents):
        decayed -= lr * (2.0 + spec.weight_decay * decayed)
    np.testing.assert_allclose(y, np.full(length, decayed), rtol=1e-10)


def test_an_update_allocates_nothing_of_the_models_size() -> None:
    x, g = np.zeros(400_000), np.ones(400_000)
    optimizer = Optimizer(SETTINGS[-1], x)
    optimizer.update(x, g)
    tracemalloc.start()
    for _ in range(10):
        optimizer.update(x, g)
        optimizer.descend(x, g)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes / 10


# --- schedules


def test_a_constant_schedule_never_changes_the_rate() -> None:
    assert [scale(ScheduleSpec(), epochs) for epochs in (0, 1, 1e6)] == [1.0] * 3


def test_a_step_schedule_falls_at_each_boundary() -> None:
    spec = ScheduleSpec("step", at=(80.0, 120.0), factor=0.1)
    epochs = (0, 79.99, 80, 119, 120, 500)
    expected = [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    assert [scale(spec, e) for e in epochs] == pytest.approx(expected, rel=1e-15)


def test_a_cosine_falls_from_one_to_zero_and_stays_there() -> None:
    spec = ScheduleSpec("cosine", length=200.0)
    epochs = (0, 200 / 3, 100, 400 / 3, 200, 300)
    expected = [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert [scale(spec, e) for e in epochs] == pytest.approx(expected, abs=1e-15)


def test_a_warm_up_rises_linearly_and_then_falls_in_steps() -> None:
    spec = ScheduleSpec("warmup-step", at=(30.0,), factor=0.1, warmup=5.0)
    epochs = (1, 2.5, 4, 5, 29, 30)
    expected = [0.2, 0.5, 0.8, 1.0, 1.0, 0.1]
    assert [scale(spec, e) for e in epochs] == pytest.approx(expected, rel=1e-15)
    assert 0 < scale(spec, 0.0) <= 0.01  # the first step moves a little


def test_the_rate_follows_the_schedule() -> None:
    spec = OptimizerSpec(lr=0.5, schedule=ScheduleSpec("step", at=(2.0,), factor=0.1))
    x, g = np.zeros(1), np.ones(1)
    optimizer = Optimizer(spec, x)
    optimizer.update(x, g)
    optimizer.schedule(2.0)
    optimizer.update(x, g)
    assert optimizer.lr == pytest.approx(0.05, rel=1e-15)
    assert x[0] == pytest.approx(-0.55, rel=1e-15)
