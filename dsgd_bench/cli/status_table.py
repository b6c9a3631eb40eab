"""The tables of the verb ``status``: trials by state, and the jobs of a study."""

from rich import box
from rich.table import Table
from rich.text import Text

from dsgd_bench.batch.slurm.records import Record
from dsgd_bench.batch.slurm.status import STATES, Status
from dsgd_bench.cli.console import console


def print_status(status: Status) -> None:
    """Print how many trials are in which state, every job, and why trials failed."""
    out = console()
    table = Table("trials", "", "", box=box.SIMPLE_HEAD)
    table.columns[0].justify = "right"
    for state, count in status.counts.items():
        table.add_row(str(count), state, STATES[state])
    out.print(table)
    if status.jobs:
        table = Table("job", "state", box=box.SIMPLE_HEAD)
        for heading in ("ranks", "nodes", "trials", "of these\nfinished"):
            table.add_column(Text(heading), justify="right")
        table.add_column("submitted")
        for record, state in status.jobs:
            states = [status.trials.get(trial, ("", ""))[1] for trial in record.trials]
            table.add_row(
                _job(record),
                state,
                str(record.ranks),
                str(record.nodes),
                str(len(states)),
                str(states.count("finished")),
                record.submitted,
            )
        out.print(table)
    for sentence in status.notes:
        out.print(sentence, soft_wrap=True)
    for name, reason in status.reasons.items():
        words = f"{status.trials[name][0]} ({name}) failed: {reason}"
        out.print(words, soft_wrap=True)


def _job(record: Record) -> str:
    """Return the number of a job and its elements, or the name it was sent under."""
    if not record.job:
        return record.name
    return record.job + (f"_[1-{record.jobs}]" if record.jobs > 1 else "")
