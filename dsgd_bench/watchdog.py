"""Ends a job in which some rank has stopped answering, and says where every rank stood.

Each rank watches itself: whoever waits for a rank that hangs does not move either, so
soon all of them write their stacks, and then end the job.
"""

import faulthandler
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from dsgd_bench import show

GRACE = 2.0
"""Seconds for the other ranks to write their stacks too."""

LAST_RESORT = 10.0
"""Seconds after which a process ends itself if even its watchdog cannot run."""


class Watchdog:
    """Watches one rank in a ``with`` block.

    Parameters
    ----------
    seconds : float
        How long nothing may happen.
    sign_of_life : callable
        Its value changes as long as the rank moves.
    end : callable
        Ends the job; called from the watchdog's thread.
    name : str
        Which rank this is, for the message.
    """

    def __init__(
        self,
        seconds: float,
        sign_of_life: Callable[[], object],
        end: Callable[[str], None],
        name: str,
    ) -> None:
        self._seconds, self._name = seconds, name
        self._sign_of_life, self._end = sign_of_life, end
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        last, since = self._sign_of_life(), time.monotonic()
        while not self._over.wait(min(1.0, self._seconds / 4)):
            # in C, so that it works where no Python thread gets to run any more
            faulthandler.dump_traceback_later(self._seconds + LAST_RESORT, exit=True)
            sign = self._sign_of_life()
            if sign != last:
                last, since = sign, time.monotonic()
            elif time.monotonic() - since >= self._seconds:
                self._bite()

    def _bite(self) -> None:
        what = f"{self._name} has not moved for {self._seconds:g} s"
        show.complain(f"watchdog: {what}; its threads:")
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        time.sleep(GRACE)
        self._end(f"{what}: the stacks of all ranks are in the output")
