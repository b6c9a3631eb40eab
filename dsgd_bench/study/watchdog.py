"""Ends a job in which some process has stopped answering.

Each rank watches itself, from before it meets the others until its process is gone: who
waits for a rank that hangs does not move either, so soon all of them write their
stacks, and then end the job. A process that was stopped cannot do that, nor can a
launcher: the process that has started them listens for signs of life.
"""

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from dsgd_bench.errors import HangError
from dsgd_bench.io import printing

GRACE = 2.0
"""Seconds for the other ranks to write their stacks too."""

LAST_RESORT = 5.0
"""Seconds after which a process ends itself if even its watchdog cannot run."""

STARTING = 10.0
"""Seconds that ranks may take to meet and to part, however short a step is: computers
with more processes than cores need them."""

MARGIN = 10.0
"""Seconds that a launch may be silent for longer than a rank: the rank speaks first."""

SHORTEST = 5.0
"""Seconds of a rank that are at least expected of it, before that margin."""

ENDING = 7.0
"""Seconds of silence after the ranks have said how their trial ended."""

PERIOD = 1.0
"""Seconds between two looks, at most."""


class Silence:
    """Counts the seconds in which a sign has not changed.

    A look counts for no more than two periods: a process that was stopped itself, alone
    or with all others, must not take that time for their silence.
    """

    def __init__(self) -> None:
        self._sign: object = None
        self._looked = time.monotonic()
        self._seconds = 0.0

    def __call__(self, sign: object) -> float:
        """Look once more; return the seconds since the sign has changed."""
        now = time.monotonic()
        self._seconds += min(now - self._looked, 2 * PERIOD)
        self._looked = now
        if sign != self._sign:
            self._sign, self._seconds = sign, 0.0
        return self._seconds


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
    beat : Path, optional
        A file that is touched as long as the watchdog itself can run: a sign of life
        for the process that has started the ranks.

    Attributes
    ----------
    last_resort : bool
        Whether this process ends itself if no thread of Python can run for even longer.
        The timer for that does not know that a process was stopped; where another one
        listens, it is not needed all the time.
    """

    def __init__(
        self,
        seconds: float,
        sign_of_life: Callable[[], object],
        end: Callable[[str], None],
        name: str,
        *,
        beat: Path | None = None,
    ) -> None:
        self.beat, self.last_resort = beat, True
        self._seconds, self._name = seconds, name
        self._sign_of_life, self._end = sign_of_life, end
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def follow(
        self,
        seconds: float,
        sign_of_life: Callable[[], object],
        end: Callable[[str], None],
        name: str,
    ) -> None:
        """Watch for something else from now on; parameters as of the class."""
        self._seconds, self._name = seconds, name
        self._sign_of_life, self._end = sign_of_life, end
        self._still_here()

    def __enter__(self) -> Self:
        self._still_here()
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

    def _still_here(self) -> None:
        if self.last_resort:  # in C, so that it works where no Python thread runs
            faulthandler.dump_traceback_later(self._seconds + LAST_RESORT, exit=True)
        else:
            faulthandler.cancel_dump_traceback_later()
        if self.beat is not None:
            with suppress(OSError):  # on a host without that folder there is no sign
                os.utime(self.beat)

    def _watch(self) -> None:
        silence = Silence()
        while not self._over.wait(min(PERIOD, self._seconds / 4)):
            self._still_here()
            sign = self._name, self._sign_of_life()
            if silence(sign) >= self._seconds:
                self._bite()
                return

    def _bite(self) -> None:
        faulthandler.dump_traceback_later(GRACE + LAST_RESORT, exit=True)
        what = f"{self._name} has not moved for {self._seconds:g} s"
        printing.complain(f"watchdog: {what}; its threads:")
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        time.sleep(GRACE)
        self._end(f"{what}: the stacks of all ranks are in the output")


def end_within(seconds: float) -> None:
    """Let the system end this process if it still exists after so many seconds.

    For the very end, when no thread of Python runs any more.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


class Listener:
    """Listens for signs of life of a launch: to be called again and again.

    Parameters
    ----------
    watchdog : float
        Seconds that a rank may be silent.
    files : sequence of Path
        What changes as long as the launch is alive: the file that a rank's watchdog
        touches, and the log.
    over : callable, optional
        Tells that the ranks have said how they ended: then the rest is quick.
    unheard : float
        Seconds of silence that are at least allowed until the first file has changed:
        ranks on another host may not see it.
    """

    def __init__(
        self,
        watchdog: float,
        *files: Path,
        over: Callable[[], bool] = lambda: False,
        unheard: float = 0.0,
    ) -> None:
        self._limit = max(watchdog, SHORTEST) + MARGIN
        self._files, self._over = files, over
        self._unheard, self._first = unheard, _state(files[0])
        self._silence = Silence()

    def __call__(self) -> None:
        """Look once more.

        Raises
        ------
        HangError
            If there has been no sign of life for too long.
        """
        limit = ENDING if self._over() else self._limit
        states = [_state(path) for path in self._files]
        if states[0] == self._first:
            limit = max(limit, self._unheard)
        if self._silence(states) >= limit:
            raise HangError(
                f"the launcher and its ranks gave no sign of life for {limit:g} s and "
                "were ended"
            )


def _state(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file is touched or written; None if there is none.

    It is opened for that: NFS answers `stat` from memory, for up to a minute.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return found.st_mtime_ns, found.st_size
