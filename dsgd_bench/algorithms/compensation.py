"""Delay compensation: what a gradient would be at a model that has moved on.

S. Zheng et al., "Asynchronous stochastic gradient descent with delay compensation",
ICML 2017, equations 10 and 11 (arXiv:1609.08326). A gradient g taken at `before` is
brought to x by an estimate of the diagonal of the Hessian:

    g  <-  g + lambda g * g * (x - before)

elementwise, with lambda constant or, adaptively,

    M       <-  m M + (1 - m) g * g
    lambda  =   lambda_0 / sqrt(M + 1e-7)
"""

from typing import Literal

import numpy as np

from dsgd_bench.arrays import Array, Scratch, blocks
from dsgd_bench.state import State

Kind = Literal["none", "constant", "adaptive"]

EPSILON = 1e-7


class Compensation:
    """Brings gradients to another model, in place and in one pass over memory.

    Parameters
    ----------
    like : array of shape (dim,)
        A gradient, for shape and type.
    kind : str
        ``"none"``, ``"constant"`` or ``"adaptive"``.
    strength : float
        lambda, or lambda_0 where adaptive; 0 changes nothing.
    memory : float
        m, the weight of the past in the mean square M; 0 takes g's own square.
    state : State, optional
        Of this rank, if it may be stopped and go on.
    """

    def __init__(
        self,
        like: Array,
        kind: Kind,
        strength: float,
        memory: float = 0.0,
        state: State | None = None,
    ) -> None:
        state = state or State()
        self._strength = 0.0 if kind == "none" else strength
        self._adaptive = kind == "adaptive"
        self._memory = memory
        self._mean_square = (
            state.keep("mean square", np.zeros_like(like)) if self._adaptive else None
        )
        self._square, self._rate = Scratch(like), Scratch(like)

    def __call__(self, g: Array, x: Array, before: Array) -> None:
        """Bring `g`, taken at `before`, to `x`; arrays of shape (dim,)."""
        if not self._strength:
            return
        for part in blocks(g):
            change, rate = self._square[part], self._rate[part]
            np.multiply(g[part], g[part], out=change)
            if self._mean_square is not None:
                mean = self._mean_square[part]
                mean *= self._memory
                np.multiply(change, 1 - self._memory, out=rate)
                mean += rate
                np.add(mean, EPSILON, out=rate)
                np.sqrt(rate, out=rate)
                change /= rate
            np.subtract(x[part], before[part], out=rate)
            change *= rate
            change *= self._strength
            g[part] += change
