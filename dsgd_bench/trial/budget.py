"""When a run ends: after a number of steps, samples or epochs, or a time.

Nothing collective: synchronous ranks agree on a last step that rank 0 announces,
asynchronous ones look at the clock or at a shared count of gradients.
"""

import math
from collections.abc import Callable

from dsgd_bench.exchanges.termination import COUNT_SHARE, NEVER, Board
from dsgd_bench.spec.trial import BudgetSpec

COUNT_PERIOD = 0.01
"""Seconds after which an asynchronous rank reports its steps to the shared count."""


class Budget:
    """The budget of one rank.

    Parameters
    ----------
    settings : BudgetSpec
        Whatever is used up first ends the run. `steps` are per rank: an asynchronous
        run ends after that many gradients per rank on average.
    board : Board
        Shared words.
    batch : int
        Samples per gradient.
    epoch : int
        Samples per epoch.
    workers : int
        Ranks that compute gradients; rank 0 is one of them.
    synchronous : bool
        Whether all ranks must take equally many steps.
    counted : bool
        Whether `epochs` is wanted though no limit needs the shared count.
    lead : callable
        Returns the steps that another rank of a synchronous algorithm may be ahead of
        rank 0, known once the algorithm has made its resources; the announced last
        step lies that far ahead, so that no worker has passed it.
    stop : callable, optional
        Tells rank 0 whether to stop before the budget is used up; None, on every rank
        alike, if that will not happen.
    step : int
        Steps that this rank took before the run was stopped.

    Attributes
    ----------
    epochs : float
        Epochs done by all ranks together, as far as this rank knows.
    stopped : bool
        Whether this rank ended, or announced the end, because it was to stop.
    """

    def __init__(  # noqa: PLR0913 (each is one fact of the run)
        self,
        settings: BudgetSpec,
        board: Board,
        *,
        batch: int,
        epoch: int,
        workers: int,
        synchronous: bool,
        counted: bool = True,
        lead: Callable[[], int] = lambda: 1,
        stop: Callable[[], bool] | None = None,
        step: int = 0,
    ) -> None:
        size = workers
        limits = [settings.steps * size] if settings.steps else []
        if settings.samples:
            limits.append(math.ceil(settings.samples / batch))
        if settings.epochs:
            limits.append(math.ceil(settings.epochs * epoch / batch))
        self._gradients = min(limits, default=math.inf)
        self._seconds = settings.seconds or math.inf
        self._board, self._rank, self._size = board, board.rank, size
        self._lead = lead
        self._epochs_per_gradient = batch / epoch
        self._synchronous = synchronous
        self._counted = counted or self._gradients < math.inf
        self._announced = False
        share = COUNT_SHARE * self._gradients / size
        self._report_every = max(1.0, share)
        self._counted_steps, self._counted_at = step, -math.inf
        self.epochs = board.counted * self._epochs_per_gradient
        self._stop = stop
        self.stopped = False

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
            self.stopped = False  # all was done by the step at which it was to stop
            return False
        if self._seconds == math.inf and self._stop is None:
            return True
        if self._rank == 0 and not self._announced:
            self.stopped = self._is_to_stop()
            if self.stopped or elapsed >= self._seconds:
                self._announced = True
                self._board.announce(steps + self._lead())
        return steps < self._board.last_step()

    def _lasts_alone(self, steps: int, elapsed: float) -> bool:
        if elapsed >= self._seconds:
            return False
        if self._stop is not None and self._told_to_stop():
            return False
        if not self._counted:  # no traffic that no setting asks for
            return True
        fresh = steps - self._counted_steps
        early = elapsed < self._counted_at + COUNT_PERIOD
        if fresh == 0 or (early and fresh < self._report_every):
            return True
        total = self._board.count(fresh)
        self._counted_steps, self._counted_at = steps, elapsed
        self.epochs = total * self._epochs_per_gradient
        return total < self._gradients

    def _is_to_stop(self) -> bool:
        return self._stop is not None and self._stop()

    def _told_to_stop(self) -> bool:
        """Look for what rank 0 announces; on rank 0, announce it if it is time."""
        if self._rank == 0 and self._is_to_stop():
            self._board.announce(0)
            self.stopped = True
        else:
            self.stopped = self._board.last_step() != NEVER
        return self.stopped


class Service:
    """The budget of a server: it serves until the last worker has left.

    Parameters
    ----------
    epochs_per_message : float
        Epochs that one message served stands for: one gradient's.

    Attributes
    ----------
    epochs : float
        Epochs served so far.
    stopped : bool
        False: a server ends because the workers do.
    """

    stopped = False

    def __init__(self, epochs_per_message: float) -> None:
        self._epochs_per_message = epochs_per_message
        self.epochs = 0.0

    def lasts(self, steps: int, _elapsed: float) -> bool:
        """Return True; `steps` messages have been served."""
        self.epochs = steps * self._epochs_per_message
        return True
