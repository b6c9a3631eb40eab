"""What the verb ``submit`` sends, and the table of the jobs that it needs."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from dsgd_bench.batch.slurm import options, records, script
from dsgd_bench.batch.slurm import submit as sending
from dsgd_bench.batch.slurm.groups import JOBS, Group, Order
from dsgd_bench.cli.console import console, duration
from dsgd_bench.io import printing


def submit(order: Order, *, failed: bool) -> None:
    """Send what is missing of a study, and say what was sent.

    Raises
    ------
    LaunchError
        If another submission is at work there, or Slurm refuses.
    """
    with records.held(order.folder / JOBS):
        missing = sending.missing(order, failed=failed)
        _print_missing(order, missing)
        _say_what_is_dropped(order, missing)
        for record in sending.send(order, missing.groups):
            array = f", an array of {record.jobs}" if record.jobs > 1 else ""
            sent = (
                f"job {record.job}{array}: {len(record.trials)} trials on "
                f"{record.ranks} ranks, nodes: {record.nodes}"
            )
            printing.lines([sent])


def dry_run(order: Order, *, failed: bool) -> None:
    """Print the scripts that `submit` would send, and what they would cost."""
    missing = sending.missing(order, failed=failed)
    for text in _scripts(order, missing):
        printing.lines(text.split("\n"))
    _print_missing(order, missing)
    _say_what_is_dropped(order, missing)
    printing.line("nothing was sent")


def _scripts(order: Order, missing: sending.Missing) -> list[str]:
    """Return the scripts as they are sent, but for the numbers of their folders."""
    return [
        script.render(order, group, order.folder / JOBS / f"NNNN-{group.ranks}-ranks")
        for group in missing.groups
    ]


def _say_what_is_dropped(order: Order, missing: sending.Missing) -> None:
    """Name the variables that would have changed what sbatch does."""
    dropped: dict[str, str] = {}
    for text in _scripts(order, missing):
        dropped |= options.dropped(text)
    for name, why in dropped.items():
        printing.complain(f"dsgd-bench: {name} is not passed on to sbatch: {why}")


def _print_missing(order: Order, missing: sending.Missing) -> None:
    if missing.groups:
        print_groups(missing.groups, order.machine.stop_margin)
        printing.line(
            f"not sent: {missing.rest}" if missing.rest else "all of the study"
        )
    else:
        printing.line(f"there is nothing to send: {missing.rest}")
    printing.lines(missing.notes)


def print_groups(groups: Sequence[Group], stop_margin: float) -> None:
    """Print the jobs that a study needs, what they cost, and which do not fit."""
    table = Table(box=box.SIMPLE_HEAD)
    headings = (
        "ranks,nodes,trials,jobs,time limit\neach,estimated\ntogether,"
        "core-hours\nestimated,core-hours\nat most"
    )
    for heading in headings.split(","):
        table.add_column(Text(heading), justify="right")
    for group in groups:
        hours = group.core_hours
        table.add_row(
            str(group.ranks),
            str(group.nodes),
            str(len(group.trials)),
            str(group.jobs),
            duration(group.slurm.seconds),
            "unknown" if group.seconds is None else duration(group.seconds),
            "unknown" if hours is None else f"{hours:.3g}",
            f"{group.most_core_hours:.3g}",
        )
    out = console()
    out.print(table)
    known = [group.core_hours for group in groups if group.core_hours is not None]
    total = f"{sum(known):.3g}" if len(known) == len(groups) else "unknown"
    out.print(
        f"{sum(len(group.trials) for group in groups)} trials, {total} core-hours "
        f"estimated, {sum(group.most_core_hours for group in groups):.3g} at most"
    )
    for group in groups:
        if warning := group.warning(stop_margin):
            out.print(f"warning: {warning}", soft_wrap=True)
