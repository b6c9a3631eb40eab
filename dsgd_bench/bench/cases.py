"""What ``bench problems`` computes: networks, their data, and the work that they need.

The least work of a gradient is its products: of the inputs of every layer with its
weights, of the errors with the inputs, and of the errors with the weights, this last
one not in the first layer. And its memory: the model and the batch are read, and the
gradient is written, each at least once.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np

from dsgd_bench import problems
from dsgd_bench.arrays import Host
from dsgd_bench.problems import Problem, data, pictures
from dsgd_bench.problems.data import Data, Size
from dsgd_bench.spec.trial import ProblemSpec

CLASSES = 10
SAMPLES = 2048
"""Generated data: enough for different batches, few enough to be made at once."""


@dataclass(frozen=True)
class Product:
    """What one layer is for one sample: a product of (rows, n) and (n, m) numbers."""

    rows: int
    n: int
    m: int

    @property
    def operations(self) -> int:
        """Additions and multiplications."""
        return 2 * self.rows * self.n * self.m


@dataclass(frozen=True)
class Case:
    """A network that both this suite and PyTorch have.

    Attributes
    ----------
    kind : str
        Our problem, and the name in `dsgd_bench.problems.torch_models`.
    batch : int
        Samples of a gradient, if nothing else is asked for.
    shape : tuple of int
        Shape of one sample.
    products : callable
        From the shape to the products of the layers, first to last.
    settings : mapping
        Of our problem, but for the size of the generated data.
    options : mapping
        What the module is made with, besides shape and classes.
    """

    kind: str
    batch: int
    shape: tuple[int, ...]
    products: Callable[[tuple[int, ...]], list[Product]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def flat(self) -> bool:
        """Whether samples have no rows and columns."""
        return len(self.shape) == 1

    def problem(self, dtype: str, device: Host) -> Problem:
        """Return our problem, without regularization, which the module has not."""
        sizes = {"samples": SAMPLES, "classes": CLASSES}
        if self.flat:
            sizes["features"] = math.prod(self.shape)
        settings = {
            "data": "generated",
            "regularization": 0.0,
            **sizes,
            **self.settings,
        }
        asked = {"kind": self.kind, "dtype": dtype, "settings": settings}
        spec = msgspec.convert(asked, ProblemSpec)
        return problems.make(spec, 0, device=device)

    def samples(self, dtype: np.dtype[Any]) -> Data:
        """Return the samples of our problem, on the host."""
        if self.flat:
            size = Size(SAMPLES, math.prod(self.shape), CLASSES)
            return data.load("generated", size, seed=0, dtype=dtype)
        size = Size(SAMPLES, classes=CLASSES)
        return pictures.load("generated", size, seed=0, dtype=dtype)[0]

    def operations(self, batch: int) -> int:
        """Return the additions and multiplications of one gradient, at least."""
        first, *others = self.products(self.shape)
        later = sum(3 * product.operations for product in others)
        return batch * (2 * first.operations + later)

    def nbytes(self, batch: int, problem: Problem) -> int:
        """Return the bytes that one gradient reads and writes, at least."""
        numbers = 2 * problem.dimension + batch * math.prod(self.shape)
        return numbers * problem.dtype.itemsize


def dense(*widths: int) -> list[Product]:
    """Return fully connected layers of these widths."""
    return [Product(1, n, m) for n, m in pairwise(widths)]


def lenet(shape: tuple[int, ...]) -> list[Product]:
    """Return the layers of LeNet: convolutions of 5 x 5 that keep the size."""
    channels, height, width = shape
    found = [
        Product(height * width, 25 * channels, 6),
        Product((height // 2) * (width // 2), 25 * 6, 16),
    ]
    return found + dense(16 * (height // 4) * (width // 4), 120, 84, CLASSES)


def resnet20(shape: tuple[int, ...]) -> list[Product]:
    """Return the layers of ResNet-20: convolutions of 3 x 3, shortcuts for nothing."""
    before, pixels = shape[0], shape[1] * shape[2]
    found = [Product(pixels, 9 * before, 16)]
    before = 16
    for channels in (16, 32, 64):
        pixels = pixels if channels == 16 else pixels // 4
        for _ in range(6):
            found.append(Product(pixels, 9 * before, channels))
            before = channels
    return found + dense(64, CLASSES)


def _mlp(*hidden: int) -> Callable[[tuple[int, ...]], list[Product]]:
    return lambda shape: dense(*shape, *hidden, CLASSES)


CASES = {
    "mlp": Case(
        "mlp",
        32,
        (64,),
        _mlp(64),
        settings={"hidden": (64,)},
        options={"hidden": (64,)},
    ),
    "mlp-wide": Case(
        "mlp",
        128,
        (784,),
        _mlp(1024, 1024),
        settings={"hidden": (1024, 1024)},
        options={"hidden": (1024, 1024)},
    ),
    "lenet": Case("lenet", 64, (3, 32, 32), lenet),
    "resnet20": Case("resnet20", 32, (3, 32, 32), resnet20),
}
"""Every network by its name; ``mlp`` is the size of the studies here."""
