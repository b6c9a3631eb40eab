"""What ``dsgd-bench bench kernels`` times: operations beside their naive forms."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsgd_bench import arrays, rng
from dsgd_bench.arrays import Array, Host, Rule, Scratch, layers, updates
from dsgd_bench.arrays.updates import Pair

Form = Callable[[], None]

WIDTH = 256
CLASSES = 100
ROW = 784
"""Columns of the layers' arrays, of scores, and of the rows that are gathered."""

RULE = Rule(1e-3, 0.9, 1e-4, nesterov=True)
LR, DECAY = RULE.lr, RULE.decay

BATCH = 128
LAYERS = ((784, 1024), (1024, 1024), (1024, 10))
"""Samples, and inputs and outputs of layers, whose products are timed."""


@dataclass(frozen=True)
class Case:
    """One operation in its two forms.

    Attributes
    ----------
    name : str
        Of the operation.
    fused, naive : callable
        Our form; the formula as NumPy or CuPy evaluate it, term by term.
    nbytes : int
        Bytes that must be moved: what is read and written, once each.
    operations : int
        Floating-point operations, where they and not the bytes bound the time.
    """

    name: str
    fused: Form
    naive: Form
    nbytes: int
    operations: int = 0


def vector_cases(device: Host, nbytes: int, dtype: str) -> Iterator[Case]:
    """Yield the operations on models of `nbytes`, then those on layers of that size."""
    random = rng.generator(0, "bench")
    n = max(1, nbytes // np.dtype(dtype).itemsize)
    x, y, g, u, z = (device.put(random.random(n).astype(dtype)) for _ in range(5))
    yield from _models(x, y, z)
    yield from _learned(x, y, g, u)
    yield from _layers(device, x, y)


def copy_case(device: Host, nbytes: int, dtype: str) -> Case:
    """Return the copy of a vector, whose bandwidth is what all are measured by."""
    source = device.put(np.ones(max(1, nbytes // np.dtype(dtype).itemsize), dtype))
    out = device.put(np.zeros(source.size, dtype))

    def copy() -> None:
        np.copyto(out, source)

    return Case("copy", copy, copy, 2 * source.nbytes)


def _models(x: Array, y: Array, z: Array) -> Iterator[Case]:
    one, w = Scratch(x), x[:1].copy()
    size = x.nbytes

    def axpy() -> None:
        y[...] += LR * x

    def average() -> None:
        y[...] = (x + y) / 2

    def both() -> None:
        y[...] = x[...] = (x + y) / 2

    def debias() -> None:
        z[...] = x / w

    yield Case("axpy", lambda: arrays.axpy(LR, x, y, one), axpy, 3 * size)
    yield Case("average", lambda: arrays.average(x, y), average, 3 * size)
    yield Case("average both", lambda: updates.average_both(x, y), both, 4 * size)
    yield Case("de-bias", lambda: updates.debias(x, w, z), debias, 2 * size)
    yield Case("accumulate", lambda: updates.accumulate(LR, x, y, one), axpy, 3 * size)


def _update(x: Array, g: Array, u: Array) -> None:
    """Do what `updates.update` does, as its formula is written."""
    d = g + DECAY * x
    u *= RULE.momentum
    u += d
    x -= LR * (d + RULE.momentum * u)


def _learned(x: Array, before: Array, g: Array, u: Array) -> Iterator[Case]:
    one, pair, size = Scratch(x), Pair.like(x), x.nbytes

    def descend() -> None:
        x[...] -= LR * (g + DECAY * x)

    def compensate() -> None:
        g[...] += 0.04 * g * g * (x - before)

    def adaptively() -> None:
        u[...] = 0.95 * u + 0.05 * g * g
        g[...] += 0.04 / np.sqrt(u + updates.EPSILON) * g * g * (x - before)

    yield Case(
        "descend", lambda: updates.descend(x, g, LR, DECAY, one), descend, 3 * size
    )
    yield Case(
        "update",
        lambda: updates.update(x, g, u, RULE, pair),
        lambda: _update(x, g, u),
        5 * size,
    )
    yield Case(
        "compensate",
        lambda: updates.compensate(g, x, before, 0.04, pair),
        compensate,
        4 * size,
    )
    yield Case(
        "compensate adaptively",
        lambda: updates.compensate_adaptively(g, x, before, u, (0.04, 0.95), pair),
        adaptively,
        6 * size,
    )


def _matrix(x: Array, columns: int) -> Array:
    """Return the beginning of `x` as a matrix of so many columns, or of one row."""
    columns = min(columns, x.size)
    rows = x.size // columns
    matrix: Array = x[: rows * columns].reshape(rows, columns)
    return matrix


def _layers(device: Host, x: Array, y: Array) -> Iterator[Case]:
    h, error = _matrix(x, WIDTH), _matrix(y, WIDTH)
    b, db = h[0].copy(), h[0].copy()

    def bias_relu() -> None:
        h[...] = np.maximum(h + b, 0)

    def back() -> None:
        error[...] = error * (h > 0)
        db[...] = error.sum(axis=0)

    yield Case("bias, ReLU", lambda: layers.bias_relu(h, b), bias_relu, 2 * h.nbytes)
    yield Case(
        "bias, ReLU, backward",
        lambda: layers.bias_relu_backward(error, h, db),
        back,
        3 * h.nbytes,
    )
    yield _cross_entropy(device, _matrix(y, CLASSES))
    rows, out = _matrix(x, ROW), _matrix(y, ROW)
    indices = device.put(rng.generator(0, "order").permutation(len(rows)))

    def gather() -> None:
        out[...] = rows[indices]

    fused: Form = lambda: layers.gather(rows, indices, out)  # noqa: E731 (as above)
    yield Case("gather rows", fused, gather, 2 * out.nbytes + indices.nbytes)


def _cross_entropy(device: Host, scores: Array) -> Case:
    batch, classes = scores.shape
    random = rng.generator(0, "labels")
    labels: NDArray[Any] = device.put(random.integers(classes, size=batch))
    loss = device.put(np.empty(batch + 1))
    rows = device.put(np.arange(batch))

    def naive() -> None:
        shifted = scores - scores.max(axis=1, keepdims=True)
        p = np.exp(shifted)
        p /= p.sum(axis=1, keepdims=True)
        loss[1:] = -np.log(p[rows, labels])
        loss[:1] = loss[1:].mean()
        p[rows, labels] -= 1
        scores[...] = p / batch

    moved = 2 * scores.nbytes + labels.nbytes + loss.nbytes
    fused: Form = lambda: layers.cross_entropy(scores, labels, loss)  # noqa: E731
    return Case("cross-entropy, both ways", fused, naive, moved)


def product_cases(device: Host, dtype: str, side: int) -> Iterator[Case]:
    """Yield products: a square one of `side`, then those of layers in both directions.

    Their naive form is ``out[...] = a @ b``.
    """
    random = rng.generator(0, "bench")

    def matrix(rows: int, columns: int) -> Array:
        return device.put(random.random((rows, columns)).astype(dtype))

    def case(name: str, a: Array, b: Array) -> Case:
        out = device.put(np.empty((a.shape[0], b.shape[1]), dtype))

        def naive() -> None:
            out[...] = a @ b

        return Case(
            name,
            lambda: layers.matmul(a, b, out, device.precision),
            naive,
            a.nbytes + b.nbytes + out.nbytes,
            2 * a.shape[0] * a.shape[1] * b.shape[1],
        )

    yield case(f"square {side}", matrix(side, side), matrix(side, side))
    for n, m in LAYERS:
        h, W, error = matrix(BATCH, n), matrix(n, m), matrix(BATCH, m)
        yield case(f"{BATCH} x {n} -> {m}", h, W)
        yield case(f"{BATCH} x {n} <- {m}", error, W.T)
        yield case(f"gradient of {n} x {m}", h.T, error)
