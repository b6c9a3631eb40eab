"""What ``data`` shows: downloads while they run, and the data sets there are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich import box
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from dsgd_bench.cli.console import Plain, console, size
from dsgd_bench.errors import ConfigError
from dsgd_bench.io import printing
from dsgd_bench.io.escape import plain
from dsgd_bench.problems import catalog


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
