"""Work of a helper thread, overlapped with what the training thread computes."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.columns import Spans

Work = Callable[[Spans], None]
"""Communicates, and books its time on the account that it is called with."""


class Overlapped:
    """One helper thread and its account; it does one piece of work after the other.

    Its time is booked on `Ledger.overlapped`, which is no part of the step. The time
    that the training thread waits for it is part of the step; the exchange that waits
    books it.

    Parameters
    ----------
    fabric : Fabric
        This rank's fabric.

    Attributes
    ----------
    running : bool
        Whether a piece of work was begun and has not ended.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.now = fabric.now
        self._thread = fabric.helper()
        self._account = fabric.ledger.overlapped
        self._begun = False
        self.running = False

    def begin(self, work: Work) -> None:
        """Begin `work` once the piece before has ended; raise what that one raised."""
        self.join()
        self._begun = self.running = True
        self._thread.start(partial(self._do, work))

    def _do(self, work: Work) -> None:
        try:
            work(self._account)
        finally:
            self.running = False

    def join(self) -> None:
        """Wait for the last piece of work, if it was not awaited; raise its error."""
        if self._begun:
            self._begun = False
            self._thread.join()

    def check(self) -> None:
        """Raise now what a piece of work raised, if one has failed."""
        self._thread.check()

    def during(
        self, work: Work, book: Callable[[float], None]
    ) -> AbstractContextManager[None]:
        """Return a block: `work` begins when it is entered and is awaited on exit.

        Parameters
        ----------
        work : callable
            What the helper thread does while the block runs.
        book : callable
            ``book(started)`` books the time that the training thread has waited on
            exit, since it was `started` on the fabric's clock, in seconds.
        """
        return _During(self, work, book)

    def close(self) -> None:
        """Give the thread back."""
        self._thread.close()


class _During:
    """A class, since a generator costs microseconds more in every step."""

    __slots__ = ("_book", "_overlapped", "_work")

    def __init__(
        self, overlapped: Overlapped, work: Work, book: Callable[[float], None]
    ) -> None:
        self._overlapped, self._work, self._book = overlapped, work, book

    def __enter__(self) -> None:
        self._overlapped.begin(self._work)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:  # a failed rank waits for no thread
            started = self._overlapped.now()
            self._overlapped.join()
            self._book(started)
