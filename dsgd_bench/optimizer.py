"""How a gradient moves a model: one optimizer that every algorithm shares.

With gradient g, learning rate lr, momentum mu and weight decay wd:

    heavy ball   u <- mu u + (g + wd x);   x <- x - lr u
    Nesterov     u <- mu u + (g + wd x);   x <- x - lr (g + wd x + mu u)

as in I. Sutskever et al., ICML 2013, in the form that deep learning libraries use.
`lr` always means the movement of the average model for the mean gradient.
"""

import math
from typing import Protocol

import numpy as np

from dsgd_bench.arrays import Array, Scratch, axpy, blocks
from dsgd_bench.state import State


class ScheduleSettings(Protocol):
    """What a trial says about the learning rate over time."""

    @property
    def kind(self) -> str: ...
    @property
    def at(self) -> tuple[float, ...]: ...
    @property
    def factor(self) -> float: ...
    @property
    def length(self) -> float: ...
    @property
    def warmup(self) -> float: ...


class OptimizerSettings(Protocol):
    """What a trial says about the optimizer; `config.OptimizerSpec` is one."""

    @property
    def lr(self) -> float: ...
    @property
    def momentum(self) -> float: ...
    @property
    def nesterov(self) -> bool: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def schedule(self) -> ScheduleSettings: ...


def scale(schedule: ScheduleSettings, epochs: float) -> float:
    """Return what the learning rate is multiplied by after `epochs` of all ranks."""
    if schedule.kind == "constant":
        return 1.0
    if schedule.kind == "cosine":
        done = min(epochs / schedule.length, 1.0)
        return 0.5 * (1 + math.cos(math.pi * done))
    if schedule.warmup and epochs < schedule.warmup:
        return epochs / schedule.warmup if epochs > 0 else 1e-3
    passed = sum(epochs >= boundary for boundary in schedule.at)
    return float(schedule.factor**passed)


class Optimizer:
    """Moves models by gradients, in place, in one pass over memory.

    Parameters
    ----------
    settings : OptimizerSettings
        Rates and schedule.
    like : array of shape (dim,)
        A model, for shape and type.
    share : float
        What the learning rate is multiplied by where an algorithm applies every
        gradient in full.
    state : State, optional
        Of this rank, if it may be stopped and go on.

    Attributes
    ----------
    lr : float
        The learning rate now; `schedule` sets it.
    """

    def __init__(
        self,
        settings: OptimizerSettings,
        like: Array,
        share: float = 1.0,
        state: State | None = None,
    ) -> None:
        state = state or State()
        self._settings = settings
        self._share = share
        self._constant = settings.schedule.kind == "constant"
        self._velocity = (
            state.keep("velocity", np.zeros_like(like)) if settings.momentum else None
        )
        self._step, self._decayed = Scratch(like), Scratch(like)
        self._descent = Scratch(like)  # its own: `descend` may run beside `update`
        self.lr = settings.lr * share
        self.schedule(0.0)

    def schedule(self, epochs: float) -> None:
        """Set the learning rate for `epochs` done by all ranks together."""
        if not self._constant:
            rate = self._settings.lr * scale(self._settings.schedule, epochs)
            self.lr = rate * self._share

    def update(self, x: Array, g: Array) -> None:
        """Move `x` by `g`, with momentum and weight decay; `g` is left as it was."""
        s, u = self._settings, self._velocity
        lr = self.lr  # once: another thread may `schedule` meanwhile
        if u is None:
            _descend(x, g, lr, s.weight_decay, self._step)
            return
        for part in blocks(x):
            step, gradient = self._step[part], g[part]
            if s.weight_decay:  # gradient = g + wd x
                gradient = self._decayed[part]
                np.multiply(x[part], s.weight_decay, out=gradient)
                gradient += g[part]
            velocity = u[part]  # u <- mu u + gradient
            velocity *= s.momentum
            velocity += gradient
            if s.nesterov:  # step = lr (gradient + mu u)
                np.multiply(velocity, s.momentum, out=step)
                step += gradient
                step *= lr
            else:
                np.multiply(velocity, lr, out=step)
            x[part] -= step

    def descend(self, x: Array, g: Array, scale: float = 1.0) -> None:
        """Compute ``x <- x - scale lr (g + wd x)`` in place, without momentum.

        The velocity is left alone, so one thread may do this while another one is in
        `update`.
        """
        decay = self._settings.weight_decay
        _descend(x, g, scale * self.lr, decay, self._descent)


def _descend(x: Array, g: Array, lr: float, decay: float, scratch: Scratch) -> None:
    """Compute ``x <- x - lr (g + decay x)`` in place, in one pass over memory."""
    if not decay:
        axpy(-lr, g, x, scratch)
        return
    for part in blocks(x):
        step = scratch[part]
        np.multiply(x[part], decay, out=step)
        step += g[part]
        step *= lr
        x[part] -= step
