"""When to stop by oneself, before a batch system does it by force.

Two signs: a file, which the trap of a job script makes when the batch system sends its
signal, and the end of the job as Slurm tells it. Signals themselves do not reach Python
while a rank is inside MPI, and no single one works with every launcher.
"""

import os
import threading
import time
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from dsgd_bench.errors import ConfigError
from dsgd_bench.host import environment

FILE, END = "DSGD_BENCH_STOP", "SLURM_JOB_END_TIME"
"""Environment variables: path of the file; end of the job, seconds since the epoch."""

NO_END = ("unknown", "none", "n/a", "unlimited")
"""Words for the end of a job that has none."""

PERIOD = 0.5
"""Seconds between two looks."""


def expected() -> bool:
    """Tell whether this process may be asked to stop.

    Raises
    ------
    ConfigError
        As `end`.
    """
    return bool(os.environ.get(FILE)) or end() is not None


def end() -> int | None:
    """Return when the job around ends, in seconds since the epoch; None if it does not.

    Raises
    ------
    ConfigError
        If the variable has something that is no time.
    """
    if os.environ.get(END, "").lower() in NO_END:
        return None
    return environment.number(END)


def refuse_past() -> None:
    """Refuse to start in a job that has ended, since nothing would ever be run.

    Shells keep the variable of a job that is over: status 75 would promise that the
    same command goes on, and it never would.

    Raises
    ------
    ConfigError
        If the end of the job is in the past, or is no time.
    """
    ends = end()
    if ends is None or time.time() < ends:
        return
    try:
        when = f" ({datetime.fromtimestamp(ends).astimezone():%Y-%m-%d %H:%M:%S %z})"
    except (ValueError, OverflowError, OSError):  # beyond the calendar
        when = ""
    raise ConfigError(
        f"the environment variable {END} is {ends}{when}, which is in the past: it is "
        f"of a job that has ended, and no trial would ever be started; unset {END}, or "
        "start in a new job"
    )


def due(margin: float) -> bool:
    """Tell whether it is time to stop.

    Parameters
    ----------
    margin : float
        Seconds before the end of the job.

    Raises
    ------
    ConfigError
        As `end`.
    """
    name, ends = os.environ.get(FILE, ""), end()
    if name and Path(name).exists():
        return True
    return ends is not None and time.time() >= ends - margin


class Watch:
    """Looks for a sign to stop, from a thread of its own, in a ``with`` block.

    Parameters
    ----------
    margin : float
        Seconds before the end of the job.
    """

    def __init__(self, margin: float) -> None:
        self._margin = margin
        self._due = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        if expected():
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def __call__(self) -> bool:
        """Tell whether a sign has been seen; costs nothing."""
        return self._due

    def _look(self) -> None:
        while not self._due and not self._over.wait(PERIOD):
            self._due = due(self._margin)
