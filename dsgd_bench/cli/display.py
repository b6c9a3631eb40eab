"""What commands show while they work: a bar on a terminal, lines elsewhere."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from dsgd_bench.cli.console import Plain
from dsgd_bench.config import naming
from dsgd_bench.io import printing
from dsgd_bench.io.escape import plain
from dsgd_bench.spec.trial import Study, Trial
from dsgd_bench.study.simulation import Simulated

REFRESH = 0.25
"""Seconds between two looks at a simulation."""


class Silent:
    """A display that shows nothing: for all ranks but one."""

    def starting(self, *_: object) -> None:
        """Show nothing."""

    def ended(self, *_: object) -> None:
        """Show nothing."""

    def running(self, *_: object) -> None:
        """Show nothing."""


@dataclass(frozen=True)
class Stage:
    """One thing that is measured."""

    description: str


def described(what: Trial | Stage) -> str:
    """Return what a line says of a trial of a study, or of a thing that is measured."""
    return what.description if isinstance(what, Stage) else naming.description(what)


class Lines:
    """One plain line per trial, for logs and pipes."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._heading = "[-]"
        self._simulated: Simulated | None = None

    def starting(self, _: Trial | Stage, number: int, of: int) -> None:
        """Note the time; the line is written when the trial has ended."""
        self._started = time.monotonic()
        self._heading = f"[{number}/{of}]"
        self._simulated = None

    def running(self, progress: Simulated) -> None:
        """Take note of a simulation; the line says how quick it was."""
        self._simulated = progress

    def ended(self, trial: Trial | Stage, outcome: str) -> None:
        """Write the line."""
        if outcome == "skipped":
            return
        took = [f"{time.monotonic() - self._started:.1f} s"]
        if self._simulated is not None:
            took += [speed(self._simulated)]
        printing.complain(
            f"{self._heading} {described(trial)}: {outcome} ({', '.join(took)})"
        )


class Bar:
    """A progress bar with the time that is left."""

    def __init__(self, bar: Progress, trials: int) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=trials)
        self._simulated = threading.Event()

    def starting(self, trial: Trial | Stage, *_: object) -> None:
        """Say what is running."""
        self._bar.update(self._task, description=plain(described(trial)))

    def running(self, progress: Simulated) -> None:
        """Show a bar of its own for a simulation until it has ended."""
        self._simulated = over = threading.Event()
        task = self._bar.add_task("", total=1.0)

        def watch() -> None:
            while not over.wait(REFRESH):
                self._bar.update(
                    task, completed=progress.share, description=speed(progress)
                )
            self._bar.remove_task(task)

        threading.Thread(target=watch, daemon=True).start()

    def ended(self, trial: Trial | Stage, outcome: str) -> None:
        """Move on; say what did not go well."""
        self._simulated.set()
        if outcome not in ("finished", "skipped"):
            self._bar.console.print(f"{described(trial)}: {outcome}")
        self._bar.advance(self._task)


@contextmanager
def study_display(
    study: Study, *, silent: bool = False
) -> Iterator[Bar | Lines | Silent]:
    """Show a study's progress: a bar on a terminal, plain lines elsewhere."""
    with _display(len(study.trials), silent=silent) as display:
        yield display


@contextmanager
def _display(count: int, *, silent: bool) -> Iterator[Bar | Lines | Silent]:
    if silent:
        yield Silent()
        return
    terminal = Plain(stderr=True)
    if not terminal.is_terminal:
        yield Lines()
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=terminal) as bar:
        yield Bar(bar, count)


@contextmanager
def stages_display(
    count: int, *, silent: bool
) -> Iterator[Callable[[str], AbstractContextManager[None]]]:
    """Show the progress of `count` measurements, each in the block of its name."""
    numbers = itertools.count(1)
    with _display(count, silent=silent) as display:

        @contextmanager
        def stage(description: str) -> Iterator[None]:
            display.starting(Stage(description), next(numbers), count)
            yield
            display.ended(Stage(description), "finished")

        yield stage


def speed(progress: Simulated) -> str:
    """Return how far and how quick a simulation is."""
    budget = progress.trial.budget.seconds
    of = f" of {budget:g}" if budget else ""
    return (
        f"{progress.time:.3g}{of} virtual s, {progress.steps:,} steps, "
        f"{progress.steps_per_second:,.0f} a second"
    )
