"""What only a GPU shows: memory, streams and launches. Results: tests/kernels."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from dsgd_bench import arrays
from dsgd_bench.algorithms.compensation import Compensation
from dsgd_bench.arrays import Scratch, layers, updates
from dsgd_bench.spec.trial import OptimizerSpec
from dsgd_bench.trial.optimizer import Optimizer

pytestmark = pytest.mark.gpu

SETTINGS = [
    OptimizerSpec(lr=0.3),
    OptimizerSpec(lr=0.3, weight_decay=0.1),
    OptimizerSpec(lr=0.3, momentum=0.9, weight_decay=0.1),
    OptimizerSpec(lr=0.3, momentum=0.9, nesterov=True, weight_decay=0.1),
]


@pytest.fixture
def cuda(device):
    from dsgd_bench.arrays import cuda

    return cuda


@pytest.mark.parametrize("spec", SETTINGS)
def test_steps_on_a_gpu_are_those_on_the_host_bit_for_bit(device, spec):
    random = np.random.default_rng(0)
    here = random.standard_normal(10_001).astype(np.float32)
    there = device.put(here)
    optimizers = Optimizer(spec, here), Optimizer(spec, there)
    for _ in range(5):
        g = random.standard_normal(here.size).astype(np.float32)
        optimizers[0].update(here, g)
        optimizers[1].update(there, device.put(g))
    np.testing.assert_array_equal(arrays.host(there), here)


@pytest.mark.parametrize("kind", ["constant", "adaptive"])
def test_a_step_allocates_nothing(device, cuda, kind):
    x, y, g, before = (device.put(np.ones(5001, np.float32)) for _ in range(4))
    optimizer = Optimizer(SETTINGS[-1], x)
    compensation = Compensation(g, kind, 0.4, 0.95)
    one = Scratch(x)

    def step():
        compensation(g, x, before)
        optimizer.update(x, g)
        optimizer.descend(x, g)
        arrays.axpy(0.1, g, x, one)
        arrays.average(x, y)
        updates.average_both(x, y)

    step()  # compiles
    with cuda.Allocations() as made:
        step()
    assert (made.count, made.peak) == (0, 0)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_layers_allocate_nothing_once_a_batch_size_was_met(device, cuda, precision):
    if precision != "float32" and int(cuda.cupy.cuda.Device().compute_capability) < 80:
        pytest.skip(f"this GPU has no {precision}")
    random = np.random.default_rng(0)
    batch, n, m = 3000, 30, 20  # enough rows for a sum in parts
    rows = device.put(random.random((500, n)).astype(np.float32))
    where = random.integers(500, size=batch)
    indices, labels = device.put(where), device.put(where % m)
    W = device.put(random.random((n, m)).astype(np.float32))
    b, db, dW = W[0].copy(), W[0].copy(), W.copy()
    h0 = device.put(np.zeros((batch, n), np.float32))
    h1 = device.put(np.zeros((batch, m), np.float32))
    error = h1.copy()
    loss = device.put(np.zeros(batch + 1))

    def step():
        arrays.load(where, indices)
        layers.gather(rows, indices, h0)
        layers.matmul(h0, W, h1, precision)
        layers.bias_relu(h1, b)
        layers.cross_entropy(h1, labels, loss)
        layers.bias_relu_backward(error, h1, db)
        layers.bias_backward(error, db)
        layers.matmul(h0.T, error, dW, precision)
        return float(loss[0])

    step()
    with cuda.Allocations() as made:
        step()
    # CuPy makes one array of its own for the number that is read
    assert made.peak <= 512


def test_what_is_loaded_may_change_at_once(device):
    values, out = np.arange(200_000.0), device.put(np.zeros(200_000))
    sums = device.put(np.zeros(20))
    for k in range(20):
        values[:] = k
        arrays.load(values, out)
        values[:] = -1  # while the copy, and the earlier ones, may be under way
        sums[k] = out.sum()
    np.testing.assert_array_equal(arrays.host(sums), 200_000.0 * np.arange(20))


def test_a_copy_is_complete_in_either_direction(device):
    values = np.random.default_rng(0).random(100_001)
    there, back = device.put(np.zeros(values.size)), np.zeros(values.size)
    arrays.copy(values, there)
    arrays.copy(there, back)
    np.testing.assert_array_equal(back, values)


def test_threads_that_accumulate_lose_nothing(device):
    y, ones = (device.put(np.full(10_000, k, np.float32)) for k in (0, 1))
    one, rounds = Scratch(y), 200

    def add():
        device.__class__(0)  # a thread chooses its device itself
        for _ in range(rounds):
            updates.accumulate(1.0, ones, y, one)
        device.finish()

    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (arrays.host(y) == 3 * rounds).all()


def test_a_launch_takes_little_of_pythons_time(device):
    x, g = (device.put(np.ones(8, np.float32)) for _ in range(2))
    optimizer, launches = Optimizer(SETTINGS[-1], x), 300
    optimizer.update(x, g)
    device.finish()
    best = np.inf
    for _ in range(10):
        started = time.perf_counter()
        for _ in range(launches):
            optimizer.update(x, g)
        best = min(best, (time.perf_counter() - started) / launches)
        device.finish()
    assert best < 20e-6  # seconds; 10 are aimed at, and this host may be slow


def test_compiled_kernels_are_kept_on_this_host(cuda):
    kept = os.environ.get("CUPY_CACHE_DIR")
    assert kept or os.environ.get("CUPY_CACHE_IN_MEMORY")
    assert kept != str(Path.home() / ".cupy" / "kernel_cache")


def test_all_is_compiled_before_the_clock_starts(cuda):
    cuda.compile_all()
    started = time.perf_counter()
    cuda.compile_all()
    assert time.perf_counter() - started < 0.1  # seconds; compiling takes some


def test_the_gpu_says_what_it_is(cuda):
    facts = cuda.describe()
    assert "compute capability" in facts["GPU"]
    assert cuda.cupy.__version__ in facts["CUDA"]
