"""What algorithms do to whole models, each in one pass over memory.

On a GPU each of these is one kernel. On the host a result that several terms make up
goes through blocks that stay in the cache, and `Scratch` holds what lies between; on a
GPU nothing lies between, and the scratch passed stays empty.
"""

from typing import NamedTuple

import numpy as np

from dsgd_bench.arrays import Array, Rule, Scratch, axpy, blocks, gpu, on_gpu


class Pair(NamedTuple):
    """The two blocks that an update needs on the host."""

    step: Scratch
    decayed: Scratch

    @classmethod
    def like(cls, x: Array) -> "Pair":
        """Return scratch for models like `x`."""
        return cls(Scratch(x), Scratch(x))


def descend(x: Array, g: Array, lr: float, decay: float, scratch: Scratch) -> None:
    """Compute ``x <- x - lr (g + decay x)`` in place."""
    if on_gpu(x):
        gpu().descend(x, g, lr, decay)
        return
    if not decay:
        axpy(-lr, g, x, scratch)
        return
    for part in blocks(x):
        step = scratch[part]
        np.multiply(x[part], decay, out=step)
        step += g[part]
        step *= lr
        x[part] -= step


def update(x: Array, g: Array, u: Array, rule: Rule, scratch: Pair) -> None:
    """Compute ``u <- mu u + d`` with ``d = g + wd x``; move `x` by it, in place.

    Heavy ball: ``x <- x - lr u``; Nesterov: ``x <- x - lr (d + mu u)``. `g` is left as
    it was.

    Parameters
    ----------
    x, g, u : arrays of shape (dim,)
        Model, gradient and velocity.
    rule : Rule
        lr, mu, wd, and which of the two.
    scratch : Pair
        Made for `x`.
    """
    if on_gpu(x):
        gpu().update(x, g, u, rule)
        return
    lr, momentum, decay, nesterov = rule
    for part in blocks(x):
        step, gradient = scratch.step[part], g[part]
        if decay:  # gradient = g + wd x
            gradient = scratch.decayed[part]
            np.multiply(x[part], decay, out=gradient)
            gradient += g[part]
        velocity = u[part]  # u <- mu u + gradient
        velocity *= momentum
        velocity += gradient
        if nesterov:  # step = lr (gradient + mu u)
            np.multiply(velocity, momentum, out=step)
            step += gradient
            step *= lr
        else:
            np.multiply(velocity, lr, out=step)
        x[part] -= step


def average_both(x: Array, y: Array) -> None:
    """Compute ``x, y <- (x + y) / 2`` in place; on a GPU either may be a neighbor's."""
    if on_gpu(x):
        gpu().average_both(x, y)
        return
    for part in blocks(x):
        mean, other = x[part], y[part]
        mean += other
        np.multiply(mean, 0.5, out=other)
        mean *= 0.5  # halved twice, since copying within the cache is slower


def debias(x: Array, w: Array, z: Array) -> None:
    """Compute ``z <- x / w``, the push-sum model; `w` has one element, where x lies."""
    if on_gpu(x):
        gpu().debias(x, w, z)
        return
    np.divide(x, w, out=z)


def accumulate(a: float, x: Array, y: Array, scratch: Scratch) -> None:
    """Compute ``y <- y + a x``, on a GPU atomically, element by element.

    So on a GPU other processes may do the same to `y`, mapped into them, at the same
    time. On the host it is `axpy`: there MPI has accumulate operations.
    """
    if on_gpu(y):
        gpu().accumulate(a, x, y)
        return
    axpy(a, x, y, scratch)


EPSILON = 1e-7
"""Keeps the adaptive compensation finite where all gradients were 0."""


def compensate(
    g: Array, x: Array, before: Array, strength: float, scratch: Pair
) -> None:
    """Compute ``g <- g + strength g g (x - before)`` in place, elementwise."""
    if on_gpu(g):
        gpu().compensate(g, x, before, strength)
        return
    for part in blocks(g):
        change, moved = scratch.step[part], scratch.decayed[part]
        np.multiply(g[part], g[part], out=change)
        np.subtract(x[part], before[part], out=moved)
        change *= moved
        change *= strength
        g[part] += change


def compensate_adaptively(
    g: Array,
    x: Array,
    before: Array,
    mean_square: Array,
    rates: tuple[float, float],
    scratch: Pair,
) -> None:
    """Compute `compensate` with ``strength / sqrt(M + EPSILON)``, in place.

    Parameters
    ----------
    g, x, before : arrays of shape (dim,)
        Gradient, the model it is brought to, and the model it was taken at.
    mean_square : array of shape (dim,)
        M; first ``M <- memory M + (1 - memory) g g``.
    rates : (float, float)
        Strength and memory.
    scratch : Pair
        Made for `g`.
    """
    if on_gpu(g):
        gpu().compensate_adaptively(g, x, before, mean_square, (*rates, EPSILON))
        return
    strength, memory = rates
    for part in blocks(g):
        change, rate = scratch.step[part], scratch.decayed[part]
        np.multiply(g[part], g[part], out=change)
        mean = mean_square[part]
        mean *= memory
        np.multiply(change, 1 - memory, out=rate)
        mean += rate
        np.add(mean, EPSILON, out=rate)
        np.sqrt(rate, out=rate)
        change /= rate
        np.subtract(x[part], before[part], out=rate)
        change *= rate
        change *= strength
        g[part] += change
