"""How a gradient moves a model: one optimizer that every algorithm shares.

With gradient g, learning rate lr, momentum mu and weight decay wd:

    heavy ball   u <- mu u + (g + wd x);   x <- x - lr u
    Nesterov     u <- mu u + (g + wd x);   x <- x - lr (g + wd x + mu u)

as in I. Sutskever et al., ICML 2013, in the form that deep learning libraries use.
`lr` always means the movement of the average model for the mean gradient.
"""

import math

import numpy as np

from dsgd_bench.arrays import Array, Rule, Scratch, updates
from dsgd_bench.exchanges.resumable import State
from dsgd_bench.spec.trial import OptimizerSpec, ScheduleSpec


def scale(schedule: ScheduleSpec, epochs: float) -> float:
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
    settings : OptimizerSpec
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
        settings: OptimizerSpec,
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
        self._scratch = updates.Pair.like(like)
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
            updates.descend(x, g, lr, s.weight_decay, self._scratch.step)
            return
        rule = Rule(lr, s.momentum, s.weight_decay, s.nesterov)
        updates.update(x, g, u, rule, self._scratch)

    def descend(self, x: Array, g: Array, scale: float = 1.0) -> None:
        """Compute ``x <- x - scale lr (g + wd x)`` in place, without momentum.

        The velocity is left alone, so one thread may do this while another one is in
        `update`.
        """
        decay = self._settings.weight_decay
        updates.descend(x, g, scale * self.lr, decay, self._descent)
