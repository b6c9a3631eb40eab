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

from dsgd_bench.arrays import Array
from dsgd_bench.arrays.updates import Pair, compensate, compensate_adaptively
from dsgd_bench.exchanges.resumable import State

Kind = Literal["none", "constant", "adaptive"]


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
        self._memory = memory
        self._mean_square = (
            state.keep("mean square", np.zeros_like(like))
            if kind == "adaptive"
            else None
        )
        self._scratch = Pair.like(like)

    def __call__(self, g: Array, x: Array, before: Array) -> None:
        """Bring `g`, taken at `before`, to `x`; arrays of shape (dim,)."""
        if not self._strength:
            return
        if self._mean_square is None:
            compensate(g, x, before, self._strength, self._scratch)
        else:
            rates = (self._strength, self._memory)
            compensate_adaptively(g, x, before, self._mean_square, rates, self._scratch)
