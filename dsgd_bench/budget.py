"""When a run ends: after a number of steps, samples or epochs, or a time.

Nothing collective: synchronous ranks agree on a last step that rank 0 announces,
asynchronous ones look at the clock or at a shared count of gradients.
"""

import math
from typing import Protocol

from dsgd_bench.fabric.board import Board

COUNT_PERIOD = 0.01
"""Seconds after which an asynchronous rank reports its steps to the shared count."""

COUNT_SHARE = 0.01
"""Share of its budget after which it reports in any case."""

LEAD = 1
"""Steps that another rank of a synchronous algorithm may be ahead of rank 0."""


class BudgetSettings(Protocol):
    """What a trial says about its end; `config.BudgetSpec` is one."""

    @property
    def seconds(self) -> float | None: ...
    @property
    def steps(self) -> int | None: ...
    @property
    def samples(self) -> int | None: ...
    @property
    def epochs(self) -> float | None: ...


class Budget:
    """The budget of one rank.

    Parameters
    ----------
    settings : BudgetSettings
        Whatever is used up first ends the run. `steps` are per rank: an asynchronous
        run ends after that many gradients per rank on average.
    board : Board
        Shared words.
    batch : int
        Samples per gradient.
    epoch : int
        Samples per epoch.
    synchronous : bool
        Whether all ranks must take equally many steps.
    counted : bool
        Whether `epochs` is wanted though no limit needs the shared count.

    Attributes
    ----------
    epochs : float
        Epochs done by all ranks together, as far as this rank knows.
    """

    def __init__(
        self,
        settings: BudgetSettings,
        board: Board,
        *,
        batch: int,
        epoch: int,
        synchronous: bool,
        counted: bool = True,
    ) -> None:
        size = board.size
        limits = [settings.steps * size] if settings.steps else []
        if settings.samples:
            limits.append(math.ceil(settings.samples / batch))
        if settings.epochs:
            limits.append(math.ceil(settings.epochs * epoch / batch))
        self._gradients = min(limits, default=math.inf)
        self._seconds = settings.seconds or math.inf
        self._board, self._rank, self._size = board, board.rank, size
        self._epochs_per_gradient = batch / epoch
        self._synchronous = synchronous
        self._counted = counted or self._gradients < math.inf
        self._announced = False
        share = COUNT_SHARE * self._gradients / size
        self._report_every = max(1.0, share)
        self._counted_steps, self._counted_at = 0, -math.inf
        self.epochs = 0.0

    def lasts(self, steps: int, elapsed: float) -> bool:
        """Tell whether this rank takes another step.

        Parameters
        ----------
        steps : int
            Steps this rank has taken.
        elapsed : float
            Seconds since its clock started.
        """
        if self._synchronous:
            return self._lasts_in_step(steps, elapsed)
        return self._lasts_alone(steps, elapsed)

    def _lasts_in_step(self, steps: int, elapsed: float) -> bool:
        gradients = steps * self._size
        self.epochs = gradients * self._epochs_per_gradient
        if gradients >= self._gradients:
            return False
        if self._seconds == math.inf:
            return True
        if self._rank == 0 and elapsed >= self._seconds and not self._announced:
            self._announced = True
            self._board.announce(steps + LEAD)
        return steps < self._board.last_step()

    def _lasts_alone(self, steps: int, elapsed: float) -> bool:
        if elapsed >= self._seconds:
            return False
        if not self._counted:  # no traffic that nobody asked for
            return True
        fresh = steps - self._counted_steps
        early = elapsed < self._counted_at + COUNT_PERIOD
        if fresh == 0 or (early and fresh < self._report_every):
            return True
        total = self._board.count(fresh)
        self._counted_steps, self._counted_at = steps, elapsed
        self.epochs = total * self._epochs_per_gradient
        return total < self._gradients
