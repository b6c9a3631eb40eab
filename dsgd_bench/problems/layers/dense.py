"""A fully connected layer.

Formula   out = h W + b, with or without max(0, .); W has shape (in, out)
Model     (W, b)
Start     W normal with variance 2 / in, b = 0 (K. He et al., "Delving deep into
          rectifiers", ICCV 2015, section 2.2)
"""

import numpy as np

from dsgd_bench.arrays import Array
from dsgd_bench.arrays.layers import (
    add_bias,
    bias_backward,
    bias_relu,
    bias_relu_backward,
    matmul,
)


class Dense:
    """A fully connected layer; see `Unit` for the methods.

    Parameters
    ----------
    rows, out : array of shape (images, in), (images, out)
        What it reads and writes.
    part : slice
        Where W, then b lie in the model.
    error : array, like `out`
        The gradient of `out`; used up. May be `out` itself where there is no ReLU.
    back : array, like `rows`, optional
        Receives the gradient of `rows`; nothing where it is not used.
    relu : bool
        Whether a ReLU follows; then `out` is used up on the way back.
    precision : str
        How a GPU multiplies; see `dsgd_bench.arrays.layers.matmul`.
    """

    def __init__(  # noqa: PLR0913 (it is bound to its memory)
        self,
        rows: Array,
        out: Array,
        part: slice,
        *,
        error: Array,
        back: Array | None = None,
        relu: bool = False,
        precision: str = "float32",
    ) -> None:
        self.part = part
        self._rows, self._out, self._error, self._back = rows, out, error, back
        self._relu, self._precision = relu, precision

    def initialize(self, x: Array, random: np.random.Generator) -> None:
        """Draw the first weights."""
        W, b = self._split(x)
        W[...] = random.normal(0.0, np.sqrt(2 / len(W)), W.shape)
        b.fill(0.0)

    def forward(self, x: Array) -> None:
        """Compute the output."""
        W, b = self._split(x)
        matmul(self._rows, W, self._out, self._precision)
        (bias_relu if self._relu else add_bias)(self._out, b)

    def backward(self, x: Array, g: Array) -> None:
        """Compute the gradients of W, b and the input from the output's."""
        (W, _), (dW, db) = self._split(x), self._split(g)
        if self._relu:
            bias_relu_backward(self._error, self._out, db)
        else:
            bias_backward(self._error, db)
        matmul(self._rows.T, self._error, dW, self._precision)
        if self._back is not None:
            matmul(self._error, W.T, self._back, self._precision)

    def _split(self, x: Array) -> tuple[Array, Array]:
        """Return W and b, or what belongs to them, as views."""
        n, m = self._rows.shape[1], self._out.shape[1]
        part = x[self.part]
        return part[: n * m].reshape(n, m), part[n * m :]
