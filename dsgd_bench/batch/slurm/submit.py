"""Send what is missing of a study to Slurm, and nothing twice."""

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from msgspec import structs

from dsgd_bench.batch.slurm import (
    answers,
    calls,
    options,
    queue,
    records,
    script,
    states,
)
from dsgd_bench.batch.slurm.answers import Answer
from dsgd_bench.batch.slurm.groups import JOBS, Group, Order, grouped
from dsgd_bench.config import naming
from dsgd_bench.config.identity import trial_id
from dsgd_bench.errors import LaunchError, TraceError
from dsgd_bench.io import files
from dsgd_bench.spec.trial import Trial
from dsgd_bench.study import plan
from dsgd_bench.trace import trials

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
    finished, held, unsure, other : int
        Trials that are done, that a job is going to run which waits, runs or may come
        back, that are in a job of which that is not known, and that are left out
        because only failed ones were asked for.
    notes : tuple of str
        What is not known of jobs, and how to find out.
    """

    groups: list[Group]
    finished: int
    held: int
    unsure: int
    other: int
    notes: tuple[str, ...]

    @property
    def rest(self) -> str:
        """What is not sent, and why, in one line; empty if all is sent."""
        said = {
            "finished": self.finished,
            "in the hands of jobs that wait or run": self.held,
            "in jobs that may be queued": self.unsure,
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
    found = records.read(order.folder / JOBS)
    told = queue.of_records(found)
    taken = _taken(found, told, states.alive)
    unsure = _taken(found, told, states.unsure)
    counts = dict.fromkeys(("finished", "held", "unsure", "other"), 0)
    left: list[Trial] = []
    places = trials.Places(order.folder)
    for trial in order.study.trials:
        folder = places.of(trial)
        names = {trial_id(trial), folder.name}  # the latter of an earlier version
        if folder.ready.exists():
            counts["finished"] += 1
        elif names & taken:
            counts["unsure" if names & unsure else "held"] += 1
        elif failed and not folder.error.exists():
            counts["other"] += 1
        else:
            left.append(trial)
    costs = [plan.cost(trial) for trial in left]
    return Missing(grouped(order, costs), **counts, notes=notes(found, told))


def _taken(
    found: dict[Path, records.Record],
    told: dict[Path, str],
    so: Callable[[str], bool],
) -> set[str]:
    """Return the trials of all jobs whose state is so."""
    return {
        trial
        for folder, record in found.items()
        if so(told[folder])
        for trial in record.trials
    }


def notes(found: dict[Path, records.Record], told: dict[Path, str]) -> tuple[str, ...]:
    """Return a sentence for each job of which it is not known what became of it."""
    said = []
    for folder, record in found.items():
        if told[folder] == states.UNSURE:
            said.append(
                f"the job {folder.name} may be queued, since sbatch's answer was "
                f"unclear: {record.how_to_find(folder)}"
            )
        elif states.unsure(told[folder]):
            said.append(
                f"the job {record.job or record.name} {told[folder]}: this state is "
                "not known here, so its trials are not sent again; `scontrol show job` "
                "tells more"
            )
    return tuple(said)


def send(order: Order, groups: Sequence[Group]) -> Iterator[records.Record]:
    """Submit one job, or one array, for each group; yield what Slurm has accepted.

    Raises
    ------
    LaunchError
        In sbatch's words, if it refuses, or if it is not known whether it did; groups
        before that one are sent.
    ConfigError
        If a script cannot be made, or a variable of the environment is in the way.
    TraceError
        If the results folder cannot be written.
    """
    jobs = order.folder / JOBS
    for group in groups:
        number = max(_numbers(jobs), default=0) + 1
        folder = jobs / f"{number:04}-{group.ranks}-ranks"
        text = script.render(order, group, folder)
        without = options.dropped(text)
        record = _record(order, group)
        _keep(folder, order, group, text, record)
        answer = _sbatch(folder, record, without)
        cluster = answer.cluster or record.cluster
        record = structs.replace(record, job=answer.job, cluster=cluster)
        try:
            record.write(folder)
        except OSError as error:
            raise TraceError(
                f"the job {record.job} was sent, but that cannot be written into "
                f"{folder} ({error}): free some space; it is found by its name, and "
                "not sent twice"
            ) from None
        yield record


def _record(order: Order, group: Group) -> records.Record:
    """Return what is kept of a job before sbatch is called."""
    return records.Record(
        job="",
        submitted=datetime.now().astimezone().isoformat(timespec="seconds"),
        ranks=group.ranks,
        nodes=group.nodes,
        jobs=group.jobs,
        time=group.slurm.time,
        trials=tuple(trial_id(trial) for trial in group.trials),
        name=script.unique_name(order, group),
        cluster=os.environ.get(calls.CLUSTERS, ""),
    )


def _keep(
    folder: Path, order: Order, group: Group, text: str, record: records.Record
) -> None:
    """Make the folder of a job, whole or not at all.

    Raises
    ------
    TraceError
        If it cannot be written.
    """
    made = False
    try:
        folder.mkdir(parents=True)
        made = True
        _fill(folder, order, group, text)
        record.write(folder)
    except OSError as error:
        if made:
            _take_back(folder)
        raise TraceError(
            f"{folder} cannot be written ({error}): choose another folder with "
            "--results, or free some space"
        ) from None


def _numbers(jobs: Path) -> Iterator[int]:
    """Yield the numbers of the folders there are; some may have other names."""
    for path in jobs.iterdir():
        if match := re.match(r"([0-9]{1,9})-", path.name, re.ASCII):
            yield int(match[1])


def _fill(folder: Path, order: Order, group: Group, text: str) -> None:
    """Keep what the job reads as it is now, so that later edits do not change it."""
    study, machine = folder / script.study_place(order), folder / script.MACHINE
    for place in (study.parent, machine):
        place.mkdir(exist_ok=True)
    templates = Path(group.slurm.template).parent.glob("*.j2")
    copied = [order.machine_file, *filter(Path.is_file, templates)]
    places = {machine / path.name: path for path in copied}
    for place, path in (places | {study: order.study.path}).items():
        files.write_bytes(place, files.read_bytes(path))
    lines = (
        f"{trial_id(trial)} {naming.description(trial)}\n" for trial in group.trials
    )
    files.write_text(folder / script.TRIALS, "".join(lines))
    files.write_text(folder / script.SCRIPT, text)
    (folder / script.SCRIPT).chmod(0o755)


def _sbatch(folder: Path, record: records.Record, without: Collection[str]) -> Answer:
    """Submit the script in a job's folder; return the job's number and cluster.

    Raises
    ------
    LaunchError
        If sbatch refuses, in its words: then nothing is left of the folder. If it is
        not known whether it did, the folder and its record stay.
    """
    words = ["sbatch", "--parsable", f"--job-name={record.name}"]
    try:
        answer = answers.read(
            calls.ask([*words, str(folder / script.SCRIPT)], without=without)
        )
    except calls.UnansweredError as error:
        answer = Answer(unclear=str(error))
    except LaunchError:
        _take_back(folder)
        raise
    if not answer.job:
        answer = _looked_for(record, answer)
    if answer.job:
        return answer
    if answer.refused:
        _take_back(folder)
        raise LaunchError(
            f"Slurm refuses the job {folder.name}: {answer.refused}; "
            f"{_remedy(answer.refused)}, then submit again: what was accepted before "
            "is not sent twice"
        )
    raise LaunchError(
        f"it is unclear whether Slurm has accepted the job {folder.name}, so it may be "
        f"queued, and its {len(record.trials)} trials are not sent again: "
        f"{answer.unclear}; {record.how_to_find(folder)}"
    )


def _looked_for(record: records.Record, answer: Answer) -> Answer:
    """Return the job's number if Slurm has a job of its name, whatever sbatch said."""
    try:
        found = queue.find([record], record.cluster)
    except LaunchError:
        return answer
    job, _ = found.get(record.name, ("", ""))
    return Answer(job, cluster=record.cluster) if job else answer


def _take_back(folder: Path) -> None:
    """Remove the folder of a job that was not sent; all of it was made just now."""
    with suppress(OSError):
        (folder / records.RECORD).unlink()  # first: it holds the trials
    shutil.rmtree(folder, ignore_errors=True)


def _remedy(words: str) -> str:
    return next(
        (what for key, what in REMEDIES.items() if key in words.lower()),
        "mend the machine file",
    )
