"""What the commands show: progress while a study runs, plans, lists, findings."""

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.analysis import labels
from dsgd_bench.config import naming
from dsgd_bench.errors import ConfigError
from dsgd_bench.graphs import EXAMPLES, GRAPHS, make, usage
from dsgd_bench.host import environment
from dsgd_bench.io import printing
from dsgd_bench.io.escape import plain
from dsgd_bench.problems import PROBLEMS, catalog, settings
from dsgd_bench.spec.trial import Study, Trial
from dsgd_bench.study import plan
from dsgd_bench.study.doctor import Finding
from dsgd_bench.study.simulation import Simulated

PIPE_WIDTH = 140
"""Columns of a table that does not go to a terminal."""

UNLIMITED = 100_000
"""Columns that no table needs."""

LISTED_RANKS = (4, 8, 16)
"""Numbers of ranks for which graphs are listed."""

REFRESH = 0.25
"""Seconds between two looks at a simulation."""

KINDS = {"ok": "green", "note": "yellow", "bad": "red"}


class Plain(Console):
    """Shows every text as it is: on one line, without markup, pictures or escapes.

    What we mark or break into lines ourselves is given as a `Text` of our own words.
    """

    def render_str(self, text: str, **how: Any) -> Text:
        """Return a text that is shown as it is."""
        kept = ("style", "justify", "overflow")
        return Text(plain(text), **{name: how[name] for name in kept if name in how})


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


def size(nbytes: float) -> str:
    """Return a number of bytes with its unit, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024 or unit == "GiB":
            break
        nbytes /= 1024
    return f"{nbytes:.3g} {unit}"


def duration(seconds: float) -> str:
    """Return seconds as hours, minutes and seconds."""
    if not math.isfinite(seconds):
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{n} {unit}" for n, unit in parts if n) or "0 s"


def console() -> Console:
    """Return where tables are printed; a pipe gets lines wide enough for them."""
    found = Plain(highlight=False)
    return found if found.is_terminal else Plain(highlight=False, width=PIPE_WIDTH)


def print_whole(out: Console, table: Table) -> None:
    """Print a table; a pipe gets lines so wide that no cell is broken."""
    if out.is_terminal:
        out.print(table)
    else:
        needed = out.measure(table, options=out.options.update(max_width=UNLIMITED))
        out.width = max(PIPE_WIDTH, needed.maximum)
        out.print(table)
        out.width = PIPE_WIDTH


def print_plan(study: Study) -> None:
    """Print what every trial of a study costs, and the sum."""
    costs = plan.costs(study)
    out = console()
    print_whole(out, _plan_table(study, costs))
    for trial, reason in study.excluded:
        out.print(f"excluded: {naming.description(trial)}: {reason}", soft_wrap=True)
    largest = max((cost.memory or 0 for cost in costs), default=0)
    if largest:
        available = environment.available_memory()
        left = "" if available is None else f" of {size(available)} that are left here"
        out.print(f"simulated in one process: {size(largest)} at most{left}")
        out.print(f"{len(costs)} trials; nothing was simulated")
        return
    known = [cost.seconds for cost in costs if cost.seconds is not None]
    total = duration(sum(known)) if len(known) == len(costs) else "unknown"
    core_hours = sum((c.seconds or 0) * c.trial.ranks for c in costs) / 3600
    out.print(
        f"{len(costs)} trials, estimated duration {total}, "
        f"{core_hours:.2f} rank-hours; nothing was run"
    )


def _plan_table(study: Study, costs: Sequence[plan.Cost]) -> Table:
    """Return one line per point of the study; its repeats are counted."""
    table = Table(
        box=box.SIMPLE_HEAD, title=f"study {study.name}", title_justify="left"
    )
    for heading in ("algorithm", "slowdown", "graph"):
        table.add_column(heading)
    headings = (
        "ranks,repeats,model,spectral gap,messages\nper step,sent\nper step,"
        "memory\nper rank,seconds"
    )
    for heading in headings.split(","):
        table.add_column(Text(heading), justify="right")
    groups: dict[tuple[str, str, int, int, str], list[plan.Cost]] = {}
    cases = _cases([cost.trial for cost in costs])
    for cost, case in zip(costs, cases, strict=True):
        t = cost.trial
        key = (
            naming.label(t.algorithm),
            naming.slowdown(t),
            t.ranks,
            cost.model_bytes,
            case,
        )
        groups.setdefault(key, []).append(cost)
    for (label, slowdown, ranks, model, case), group in sorted(groups.items()):
        first = group[0]
        sent, gap, seconds = first.bytes_per_step, first.spectral_gap, first.seconds
        messages = first.messages_per_step
        table.add_row(
            f"{label}, {case}" if case else label,
            slowdown,
            first.graph,
            str(ranks),
            str(len(group)),
            size(model),
            "" if gap is None else f"{gap:.3f}",
            "" if messages is None else f"{messages:.3g}",
            "a result" if sent is None else size(sent),
            size(first.memory_per_rank),
            "unknown" if seconds is None else f"{seconds:.1f}",
        )
    return table


def _cases(trials: Sequence[Trial]) -> list[str]:
    """Return for each trial what else the study varies, in words."""
    factors = [labels.factors(trial) for trial in trials]
    varying = [name for name in labels.differing(factors) if name != "ranks"]
    return [labels.chosen(each, varying) for each in factors]


def print_lists() -> None:
    """Print algorithms, problems and graphs, with settings and papers."""
    out = console()
    table = Table("algorithm", "what", "settings", "traits", box=box.SIMPLE_HEAD)
    for name, entry in ALGORITHMS.items():
        shown = ", ".join(f"{k}={v[1]}" for k, v in entry.settings.items())
        cited = Text(f"{entry.summary}\n{entry.paper}")
        table.add_row(name, cited, shown, ", ".join(sorted(entry.traits)))
    out.print(table)
    table = Table("problem", "what", "settings", box=box.SIMPLE_HEAD)
    for name, kind in PROBLEMS.items():
        shown = ", ".join(f"{k}={v[1]}" for k, v in settings(name).items())
        table.add_row(name, (kind.__doc__ or "").partition(";")[0], shown)
    out.print(table)
    at = ", ".join(map(str, LISTED_RANKS))
    headings = (
        "graph",
        "what",
        f"spectral gap\nat {at}",
        f"messages per step\nat {at}",
    )
    table = Table(box=box.SIMPLE_HEAD)
    for heading in headings:
        table.add_column(Text(heading))
    for name, builder in GRAPHS.items():
        what = (builder.__doc__ or "").partition("\n")[0]
        table.add_row(usage(name), what, *_graph_numbers(name))
    out.print(table)
    drawn = " and ".join(name for name in EXAMPLES if ":" in name)
    out.print(
        f"A message is a model. Numbers of random graphs are those of {drawn}; "
        "- where a graph cannot have so many ranks."
    )


def _graph_numbers(base: str) -> tuple[str, str]:
    """Return spectral gaps and messages per step at `LISTED_RANKS`."""
    names = [name for name in EXAMPLES if name.partition(":")[0] == base]
    gaps, messages = [], []
    for ranks in LISTED_RANKS if names else ():
        try:
            graph = make(names[0], ranks)
        except ConfigError:
            gaps.append("-")
            messages.append("-")
        else:
            gaps.append(f"{graph.spectral_gap():.3f}")
            messages.append(f"{graph.messages_per_step():.3g}")
    return ", ".join(gaps) or "-", ", ".join(messages) or "-"


def print_findings(findings: list[Finding]) -> None:
    """Print what the doctor found."""
    table = Table("", "what", "found", box=box.SIMPLE_HEAD)
    for finding in findings:
        verdict = Text(finding.verdict, style=KINDS[finding.verdict])
        table.add_row(verdict, finding.what, finding.found)
    console().print(table)


class Download:
    """The progress of one file, in the way that pooch tells it."""

    def __init__(self, bar: Progress, file: catalog.File) -> None:
        self._bar = bar
        self._file = file
        self._plain = not bar.console.is_terminal

    @property
    def total(self) -> int:
        """Bytes of the file; set when its download begins."""
        return self._file.nbytes

    @total.setter
    def total(self, nbytes: int) -> None:
        if self._plain:
            printing.complain(f"downloading {self._file.name}, {size(nbytes)}")
        self._task = self._bar.add_task(plain(self._file.name), total=nbytes or None)

    def update(self, nbytes: int) -> None:
        """Move on by that many bytes."""
        self._bar.advance(self._task, nbytes)

    def reset(self) -> None:
        """Go back to the start."""
        self._bar.update(self._task, completed=0)

    def close(self) -> None:
        """Leave the bar as it is."""


@contextmanager
def download_display() -> Iterator[Callable[[catalog.File], Download]]:
    """Show downloads: a bar for each on a terminal, a plain line elsewhere."""
    terminal = Plain(stderr=True)
    columns = (
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    shown = Progress(*columns, console=terminal, disable=not terminal.is_terminal)
    with shown as bar:
        yield lambda file: Download(bar, file)


def print_data_sets(folder: Path) -> None:
    """Print the data sets that can be fetched, and how they stand in `folder`."""
    table = Table("data", "download", box=box.SIMPLE_HEAD)
    for heading in ("folder", "state"):
        table.add_column(heading, overflow="fold")
    for name, data_set in catalog.DATA_SETS.items():
        state = "not there"
        if catalog.is_begun(data_set, folder):
            try:
                catalog.read(data_set, folder)
                state = "intact"
            except ConfigError as error:
                state = str(error).partition(";")[0]
        place = str(data_set.where(folder))
        table.add_row(name, size(data_set.nbytes), place, state)
    console().print(table)
