"""Send what is missing of a study to Slurm, and nothing twice."""

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dsgd_bench import plan, rank
from dsgd_bench.errors import LaunchError, TraceError
from dsgd_bench.slurm import queue, records, script
from dsgd_bench.slurm.groups import JOBS, Group, Order, grouped
from dsgd_bench.specs import Trial

REMEDIES = {
    "account": "mend slurm.account",
    "partition": "mend slurm.partition",
    "qos": "mend slurm.qos",
    "feature": "mend slurm.constraint",
    "time limit": "lower slurm.time",
    "array": "lower slurm.array",
    "gres": "mend slurm.gpus_per_node",
    "node count": "lower study.ranks or raise slurm.ranks_per_node",
    "node configuration": "mend slurm.ranks_per_node and slurm.cores_per_rank",
    "cpu count": "lower slurm.ranks_per_node or slurm.cores_per_rank",
    "connect": "the batch system may be down; try again later",
}
"""What sbatch complains of -> what to do, in the order in which they are looked for."""


@dataclass(frozen=True)
class Missing:
    """What is left of a study.

    Attributes
    ----------
    groups : list of Group
        What no job is going to run, by size.
    finished, held, other : int
        Trials that are done, that a pending or running job is going to run, and that
        are left out because only failed ones were asked for.
    """

    groups: list[Group]
    finished: int
    held: int
    other: int

    @property
    def rest(self) -> str:
        """What is not sent, and why, in one line; empty if all is sent."""
        said = {
            "finished": self.finished,
            "in the hands of jobs that wait or run": self.held,
            "not failed": self.other,
        }
        return ", ".join(f"{count} {what}" for what, count in said.items() if count)


def missing(order: Order, *, failed: bool = False) -> Missing:
    """Find what is to be sent: what is not finished and in no living job's hands.

    Parameters
    ----------
    order : Order
        The study and the machine.
    failed : bool
        Send only what failed.

    Raises
    ------
    ConfigError
        If the machine file asks nothing of Slurm.
    LaunchError
        If jobs were submitted earlier and Slurm does not say what became of them.
    """
    found = records.read(order.folder / JOBS).values()
    states = queue.states(record.job for record in found)
    taken = {
        trial
        for record in found
        if states[record.job] in queue.ALIVE
        for trial in record.trials
    }
    counts = dict.fromkeys(("finished", "held", "other"), 0)
    left: list[Trial] = []
    for trial in order.study.trials:
        folder = order.folder / trial.id
        if (folder / rank.READY).exists():
            counts["finished"] += 1
        elif trial.id in taken:
            counts["held"] += 1
        elif failed and not (folder / rank.ERROR).exists():
            counts["other"] += 1
        else:
            left.append(trial)
    costs = [plan.cost(trial) for trial in left]
    return Missing(grouped(order, costs), **counts)


def send(order: Order, groups: Sequence[Group]) -> Iterator[records.Record]:
    """Submit one job, or one array, for each group; yield what Slurm has accepted.

    Raises
    ------
    LaunchError
        In sbatch's words, if it refuses; groups before that one are sent.
    ConfigError
        If a script cannot be made.
    TraceError
        If the results folder cannot be written.
    """
    jobs = order.folder / JOBS
    for group in groups:
        number = max((int(n) for n in _numbers(jobs)), default=0) + 1
        folder = jobs / f"{number:04}-{group.ranks}-ranks"
        text = script.render(order, group, folder)
        try:
            _fill(folder, order, group, text)
            job = _sbatch(folder / script.SCRIPT)
        except LaunchError:
            shutil.rmtree(folder)
            raise
        except OSError as error:
            raise TraceError(
                f"{folder} cannot be written ({error}): choose another folder with "
                "--results, or free some space"
            ) from None
        record = records.Record(
            job=job,
            submitted=datetime.now().astimezone().isoformat(timespec="seconds"),
            ranks=group.ranks,
            nodes=group.nodes,
            jobs=group.jobs,
            time=group.slurm.time,
            trials=tuple(trial.id for trial in group.trials),
        )
        record.write(folder)
        yield record


def _numbers(jobs: Path) -> Iterator[str]:
    for path in jobs.glob("[0-9]*-*"):
        yield path.name.partition("-")[0]


def _fill(folder: Path, order: Order, group: Group, text: str) -> None:
    """Keep what the job reads as it is now, so that later edits do not change it."""
    machine = folder / script.MACHINE
    machine.mkdir(parents=True)
    shutil.copyfile(order.study.path, folder / order.study.path.name)
    shutil.copyfile(order.machine_file, machine / order.machine_file.name)
    for path in Path(group.slurm.template).parent.glob("*.j2"):
        shutil.copyfile(path, machine / path.name)
    lines = (f"{trial.id} {trial.description}\n" for trial in group.trials)
    (folder / script.TRIALS).write_text("".join(lines), encoding="utf-8")
    path = folder / script.SCRIPT
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def _sbatch(path: Path) -> str:
    """Submit a script; return the job's number.

    Raises
    ------
    LaunchError
        If sbatch refuses, in its words.
    """
    said = queue.ask(["sbatch", "--parsable", str(path)])
    job = said.stdout.strip().partition(";")[0]
    if said.returncode == 0 and re.fullmatch(r"\d+", job):
        return job
    words = queue.one_line(said.stderr or said.stdout) or f"status {said.returncode}"
    remedy = next(
        (what for key, what in REMEDIES.items() if key in words.lower()),
        "mend the machine file",
    )
    raise LaunchError(
        f"Slurm refuses the job {path.parent.name}: {words}; {remedy}, then submit "
        "again: what was accepted before is not sent twice"
    )
