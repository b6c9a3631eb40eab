"""When to stop by oneself, before a batch system does it by force.

Two signs: a file, which the trap of a job script makes when the batch system sends its
signal, and the end of the job as Slurm tells it. Signals themselves do not reach Python
while a rank is inside MPI, and no single one works with every launcher.
"""

import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

FILE, END = "DSGD_BENCH_STOP", "SLURM_JOB_END_TIME"
"""Environment variables: path of the file; end of the job, seconds since the epoch."""

PERIOD = 0.5
"""Seconds between two looks."""


def expected() -> bool:
    """Tell whether this process may be asked to stop."""
    return FILE in os.environ or END in os.environ


def due(margin: float) -> bool:
    """Tell whether it is time to stop.

    Parameters
    ----------
    margin : float
        Seconds before the end of the job.
    """
    name, end = os.environ.get(FILE, ""), os.environ.get(END, "")
    if name and Path(name).exists():
        return True
    return end.isdigit() and time.time() >= int(end) - margin


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
