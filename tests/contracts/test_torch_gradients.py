"""Networks on pictures against PyTorch, where that is installed."""

from typing import Any

import numpy as np
import pytest

from dsgd_bench.problems.lenet import LeNet
from dsgd_bench.problems.mlp import MLP
from dsgd_bench.problems.resnet20 import ResNet20

torch = pytest.importorskip(
    "torch", reason="PyTorch, which these gradients are compared with, is not installed"
)
functional = torch.nn.functional


class Weights:
    """The flat model as PyTorch's tensors, layer by layer in its order."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = torch.tensor(x, requires_grad=True)
        self._at = 0

    def _next(self, *shape: int) -> Any:
        size = int(np.prod(shape))
        self._at += size
        return self.x[self._at - size : self._at].reshape(shape)

    def convolution(self, c_out: int, c_in: int, size: int) -> Any:
        return self._next(c_out, size, size, c_in).permute(0, 3, 1, 2)

    def vector(self, size: int) -> Any:
        return self._next(size)

    def matrix(self, n: int, m: int) -> Any:
        return self._next(n, m).T


def lenet(x: Weights, h: Any, pooling: str) -> Any:
    c_in = h.shape[1]
    for c_out in (6, 16):
        w, b = x.convolution(c_out, c_in, 5), x.vector(c_out)
        if pooling == "max":
            h = functional.relu(functional.conv2d(h, w, b, padding=2))
            h = functional.max_pool2d(h, 2)
        else:
            h = functional.avg_pool2d(functional.conv2d(h, w, padding=2), 2)
            h = functional.relu(h + b[:, None, None])
        c_in = c_out
    h = h.flatten(1)
    for m in (120, 84, 10):
        w, b = x.matrix(h.shape[1], m), x.vector(m)
        h = functional.linear(h, w, b)
        h = functional.relu(h) if m != 10 else h
    return h


def resnet20(x: Weights, h: Any) -> Any:
    def layer(h: Any, c_out: int, stride: int = 1) -> Any:
        w = x.convolution(c_out, h.shape[1], 3)
        h = functional.conv2d(h, w, stride=stride, padding=1)
        gamma, beta = x.vector(c_out), x.vector(c_out)
        return functional.batch_norm(h, None, None, gamma, beta, training=True)

    h = functional.relu(layer(h, 16))
    for c_out in (16, 32, 64):
        for _ in range(3):
            stride = c_out // h.shape[1]
            way = h[:, :, ::stride, ::stride]
            way = functional.pad(way, (0, 0, 0, 0, 0, c_out - h.shape[1]))
            inside = functional.relu(layer(h, c_out, stride))
            h = functional.relu(layer(inside, c_out) + way)
    w, b = x.matrix(64, 10), x.vector(10)
    return functional.linear(h.mean(dim=(2, 3)), w, b)


def mlp(x: Weights, h: Any) -> Any:
    for m in (30, 20, 10):
        w, b = x.matrix(h.shape[1], m), x.vector(m)
        h = functional.linear(h, w, b)
        h = functional.relu(h) if m != 10 else h
    return h


CASES = [
    pytest.param(MLP, {"hidden": (30, 20)}, mlp, (64,), id="mlp"),
    pytest.param(
        LeNet, {}, lambda x, h: lenet(x, h, "max"), (1, 8, 8), id="lenet, digits"
    ),
    pytest.param(
        LeNet,
        {"data": "generated", "samples": 100},
        lambda x, h: lenet(x, h, "max"),
        (3, 32, 32),
        id="lenet, colors",
    ),
    pytest.param(
        LeNet,
        {"pooling": "average"},
        lambda x, h: lenet(x, h, "average"),
        (1, 8, 8),
        id="lenet, average",
    ),
    pytest.param(ResNet20, {"samples": 100}, resnet20, (3, 32, 32), id="resnet20"),
    pytest.param(
        ResNet20, {"data": "digits"}, resnet20, (1, 8, 8), id="resnet, digits"
    ),
]


def errors(
    build: Any, settings: dict[str, Any], model: Any, shape: Any, dtype: str, size: int
) -> list[float]:
    """Return the relative differences of the gradients of five batches."""
    problem = build(dtype=dtype, regularization=0.0, seed=1, **settings)
    x = problem.initial()
    random = np.random.default_rng(0)
    x += 0.02 * random.standard_normal(x.size).astype(dtype)
    g = np.empty_like(x)
    result = []
    for _ in range(5):
        batch = random.integers(problem.samples, size=size)
        loss = problem.gradient(x, batch, g)
        weights = Weights(x)
        inputs = torch.tensor(problem._data.inputs[batch].reshape(size, *shape))
        labels = torch.tensor(problem._data.labels[batch])
        there = functional.cross_entropy(model(weights, inputs), labels)
        there.backward()
        assert weights._at == x.size
        assert loss == pytest.approx(there.item(), rel=1e-5)
        expected = weights.x.grad.numpy()
        error = np.linalg.norm(g - expected) / np.linalg.norm(expected)
        result.append(float(error))
    return result


@pytest.mark.parametrize(("build", "settings", "model", "shape"), CASES)
def test_gradients_in_double_precision_are_pytorchs(
    build: Any, settings: dict[str, Any], model: Any, shape: Any
) -> None:
    assert max(errors(build, settings, model, shape, "float64", 16)) < 1e-8


@pytest.mark.parametrize(("build", "settings", "model", "shape"), CASES)
def test_gradients_in_single_precision_are_pytorchs(
    build: Any, settings: dict[str, Any], model: Any, shape: Any
) -> None:
    """Rounding moves some values across the kink of a ReLU, in either program.

    That changes the gradient of that batch by up to a percent: PyTorch in single and in
    double precision differ as much. Among five batches some have no such value, and a
    mistake would show in all of them.
    """
    found = sorted(errors(build, settings, model, shape, "float32", 4))
    assert found[0] < 1e-4
    assert found[-1] < 0.05
