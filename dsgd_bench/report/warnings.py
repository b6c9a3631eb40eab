"""What a reader must know before believing a table: one closed list of warnings.

Each is a sentence or two with a cause, an effect on the numbers, and a remedy.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsgd_bench.analysis.comparison import Line, is_synchronous
from dsgd_bench.analysis.links import Links
from dsgd_bench.analysis.rows import Row
from dsgd_bench.analysis.statistics import MIN_RUNS
from dsgd_bench.io.escape import plain
from dsgd_bench.io.trial_folder import JOB, LOG
from dsgd_bench.report.evidence import Evidence
from dsgd_bench.report.numbers import number
from dsgd_bench.report.provenance_warnings import mixed_machines, mixed_provenance

PASSIVE = "passive"
"""The progress verdict under which one-sided operations need no help."""
COARSE = 0.1
"""Gap between copies, as a part of the time to target, above which we warn."""


@dataclass(frozen=True)
class Caution:
    """One warning: its kind, a name from `CHECKS`, and what it says."""

    kind: str
    text: str


def crashed(evidence: Evidence) -> Iterator[str]:
    """Name runs that ended by a crash."""
    for line, rows in _with_status(evidence, "crashed"):
        reason = next((row.reason for row in rows if row.reason), "")
        yield (
            f"{_name(line)}: {_runs(rows, line)} crashed"
            f"{_because(reason)}. No time is shown for"
            f" a crashed run. See {LOG} in {rows[0].trial.id}/, then run the study"
            " again: finished trials are skipped."
        )


def nameless(evidence: Evidence) -> Iterator[str]:
    """Name failed trials whose settings cannot be read."""
    for folder, reason in evidence.collected.nameless:
        yield (
            f"{folder} failed{_because(reason)}, and its {JOB} cannot be read: the"
            " trial is counted, and in no line of the table. Run the study again."
        )


def copied(evidence: Evidence) -> Iterator[str]:
    """Name copies of trials, which are not counted."""
    for folder in evidence.collected.copies:
        yield (
            f"{folder} is a copy of a trial that lies beside it, and is not counted."
            " Move it elsewhere."
        )


def unreadable(evidence: Evidence) -> Iterator[str]:
    """Name trials whose trace is missing or damaged."""
    for path, problem in evidence.collected.unreadable:
        yield (
            f"{path} cannot be read ({problem}). The run counts as failed. Delete its"
            " folder and run the study again."
        )


def unfinished(evidence: Evidence) -> Iterator[str]:
    """Count trials that are still running or were interrupted."""
    count = len(evidence.collected.unfinished)
    if count:
        yield (
            f"{count} trial{'s are' if count > 1 else ' is'} neither finished nor"
            " failed, and not in the table. Wait for the study to end, or run it again"
            " to resume."
        )


def diverged(evidence: Evidence) -> Iterator[str]:
    """Name runs whose loss left the finite numbers."""
    for line, rows in _with_status(evidence, "diverged"):
        yield (
            f"{_name(line)}: {_runs(rows, line)} diverged. Its time per epoch measures"
            " arithmetic on useless numbers. Lower optimizer.lr, for all algorithms"
            " alike."
        )


def unreached(evidence: Evidence) -> Iterator[str]:
    """Name points where no run reached the target, in one sentence per target."""
    found: dict[str, list[str]] = {}
    for line in evidence.lines:
        target = line.group.first.trial.target
        if target and not line.group.reached:
            found.setdefault(target, []).append(_name(line))
    for target, names in found.items():
        points = f"{len(names)} points" if len(names) > 1 else "one point"
        yield (
            f"No run of {points} reached the target ({target}), so there is no time to"
            f" compare: {'; '.join(names)}. Raise study.budget, or set a target within"
            " reach."
        )


def flatters(evidence: Evidence) -> Iterator[str]:
    """Name medians over the successful runs only."""
    for line in evidence.lines:
        group = line.group
        if 0 < group.reached < len(group.rows):
            failed = len(group.rows) - group.reached
            yield (
                f"{_name(line)}: {failed} of {len(group.rows)} runs did not reach the"
                f" target. The median is over {group.reached} and flatters it. Raise"
                ' study.budget, or read the "reached" column first.'
            )


def few_repeats(evidence: Evidence) -> Iterator[str]:
    """Say where there are too few runs for a confidence interval."""
    runs = [len(line.group.rows) for line in evidence.lines]
    fewest = min(runs, default=MIN_RUNS)
    if fewest < MIN_RUNS:
        yield (
            f"With {fewest} run{'s' if fewest > 1 else ''} of a point there is no 95 %"
            f" confidence interval of the median; it takes {MIN_RUNS}. Differences may"
            f" be chance. Set study.repeats to {MIN_RUNS} or more."
        )


def oversubscribed(evidence: Evidence) -> Iterator[str]:
    """Say where there are more ranks than cores."""
    rows = [row for row in evidence.rows if row.origin.oversubscribed]
    if not rows:
        return
    ranks = max(row.trial.ranks for row in rows)
    where, limited = _shared_cores(rows[0]), ""
    if any(row.origin.cpu_quota for row in rows):
        limited = " A control group allows no more: see its CPU quota."
    if all(row.trial.factors.get("compute.mode") == "emulated" for row in rows):
        yield (
            f"{ranks} ranks {where}: computing is emulated by sleep and so not"
            " disturbed, but transfer and update wait for a core. Trust the times per"
            " epoch only while those two shares are small; use a core per rank"
            f" otherwise.{limited}"
        )
    else:
        yield (
            f"{ranks} ranks {where}: ranks wait for each other's cores, which no"
            " algorithm is to blame for. Use at most one rank per core, or compute ="
            f' {{mode = "emulated"}}.{limited}'
        )


def shared_gpus(evidence: Evidence) -> Iterator[str]:
    """Say where ranks took turns on a GPU."""
    gpus = [gpu for row in evidence.rows for gpu in row.origin.gpus]
    most = max((gpu.ranks for gpu in gpus if not gpu.mps), default=1)
    if most > 1:
        yield (
            f"{most} ranks computed on one GPU without NVIDIA's Multi-Process Service:"
            " their kernels took turns, so a rank's compute holds time of the others."
            " Start nvidia-cuda-mps-control -d before the ranks, or use one rank per"
            " GPU."
        )


def _shared_cores(row: Row) -> str:
    """Say in a few words which cores the ranks of a run shared."""
    places = row.origin.placement
    cores = row.origin.cores or row.origin.cores_allowed
    if places and not all(place.shares for place in places):
        return f"of which {sum(place.shares for place in places)} shared cores"
    if places and places[-1].node:
        return f"on {places[-1].node + 1} nodes, sharing cores"
    return "shared cores" if cores is None else f"on {cores:g} cores"


def strange_links(evidence: Evidence) -> Iterator[str]:
    """Name hosts that the machine file gives links of, and that no rank ran on."""
    found = [links for row in evidence.rows if (links := Links.of(row.provenance))]
    strange = sorted({plain(name) for links in found for name in links.unknown})
    if strange:
        yield (
            f"The machine file names links of {', '.join(strange)}, where no rank of"
            " these runs was: its lines on them are not in the bounds. Name the"
            " hosts as in the provenance."
        )


def known_bugs(evidence: Evidence) -> Iterator[str]:
    """Name bugs of the MPI library that the runs could have met."""
    found: dict[str, int] = {}
    for row in evidence.rows:
        for sentence in row.origin.known_bugs:
            found[sentence] = found.get(sentence, 0) + 1
    for sentence, count in found.items():
        yield (
            f"{count} of {len(evidence.rows)} runs could have met a known bug of their"
            f" MPI library: {sentence}."
        )


def needs_help(evidence: Evidence) -> Iterator[str]:
    """Say whether a target that computes needed help to answer."""
    rows = [
        row for row in evidence.rows if is_synchronous(row.trial.algorithm) is False
    ]
    verdicts = [verdict for row in rows if (verdict := _active(row.progress))]
    if not verdicts:
        return
    count = f"In {len(verdicts)} of {len(rows)} asynchronous runs a computing rank"
    if any("waits" in verdict for verdict in verdicts):
        yield (
            f"{count} did not answer one-sided operations (verdict: waits). Averagings"
            " wait for the other's gradient, so asynchronous algorithms look slower"
            ' than they are. Set progress = "auto" in the machine file, or use another'
            " MPI library (dsgd-bench doctor)."
        )
    else:
        yield (
            f"{count} answered one-sided operations only with the help of the progress"
            " thread (verdict: with-thread). It takes time from computing on every"
            " rank. Compare with an MPI library whose verdict is passive (dsgd-bench"
            " doctor)."
        )


def interrupted(evidence: Evidence) -> Iterator[str]:
    """Say which runs were stopped and went on later."""
    rows = [row for row in evidence.rows if row.interruptions]
    if rows:
        most = max(row.interruptions for row in rows)
        yield (
            f"{len(rows)} of {len(evidence.rows)} runs were stopped before the end of"
            f" their job, up to {most} times, and went on from a checkpoint. The clock"
            " stood still meanwhile, but what was in flight arrived first, caches were"
            " cold again, and the nodes may be others. Run them in one piece where"
            ' times matter: when_stopped = "rerun" in the machine file.'
        )


def coarse_copies(evidence: Evidence) -> Iterator[str]:
    """Say where the target was met somewhere in a long gap between two copies."""
    gaps = {
        row.target.gap / row.target.seconds: row
        for row in evidence.rows
        if row.target.gap and row.target.seconds
    }
    if gaps and max(gaps) > COARSE:
        row = gaps[max(gaps)]
        yield (
            "Models were copied too rarely to see exactly when the target was met: in"
            f" {row.trial.label}, {row.trial.slowdown}, some time in the"
            f" {number(row.target.gap)} s before {number(row.target.seconds)} s."
            " Differences smaller than that"
            " mean nothing. Raise measure.copies."
        )


CHECKS: dict[str, Callable[[Evidence], Iterator[str]]] = {
    "crashed": crashed,
    "nameless": nameless,
    "copied": copied,
    "unreadable": unreadable,
    "unfinished": unfinished,
    "diverged": diverged,
    "unreached": unreached,
    "flatters": flatters,
    "mixed-provenance": mixed_provenance,
    "mixed-machines": mixed_machines,
    "known-bugs": known_bugs,
    "strange-links": strange_links,
    "oversubscribed": oversubscribed,
    "shared-gpus": shared_gpus,
    "progress": needs_help,
    "interrupted": interrupted,
    "coarse-copies": coarse_copies,
    "few-repeats": few_repeats,
}
"""All warnings there are, gravest first."""


def cautions(evidence: Evidence) -> list[Caution]:
    """Return every warning that applies to one study."""
    return [
        Caution(kind, text)
        for kind, check in CHECKS.items()
        for text in check(evidence)
    ]


def _active(progress: Mapping[str, Any]) -> set[str]:
    """Return the verdicts in `progress` that are not `PASSIVE`."""
    words: set[str] = set()
    for name, value in progress.items():
        if isinstance(value, Mapping):
            words |= _active(value)
        elif name.startswith("verdict") and value != PASSIVE:
            words.add(str(value))
    return words


def _with_status(evidence: Evidence, status: str) -> Iterator[tuple[Line, list[Row]]]:
    for line in evidence.lines:
        rows = [row for row in line.group.rows if row.status == status]
        if rows:
            yield line, rows


def _because(reason: str) -> str:
    return f" ({reason.rstrip('.')})" if reason else ""


def _runs(rows: Sequence[Row], line: Line) -> str:
    return f"{len(rows)} of {len(line.group.rows)} runs"


def _name(line: Line) -> str:
    """Return how the table names the line."""
    words = [line.case, line.algorithm]
    if line.group.first.trial.slowdown != "none":
        words.append(line.group.first.trial.slowdown)
    return ", ".join(word for word in words if word)
