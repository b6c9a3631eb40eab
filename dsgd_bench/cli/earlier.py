"""What a run says of the trials that it skips: when, where and how they were made.

A trial that is finished is not run again, even where the machine file has changed: then
its numbers are of another machine than the one that was asked for now.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dsgd_bench.analysis.labels import fact
from dsgd_bench.analysis.rows import Row
from dsgd_bench.config.identity import trial_id
from dsgd_bench.errors import DsgdError
from dsgd_bench.host import provenance
from dsgd_bench.io.escape import plain
from dsgd_bench.io.trial_folder import JOB, TrialFolder
from dsgd_bench.spec.job import Job
from dsgd_bench.spec.machine import Machine
from dsgd_bench.study.runner import StudyOutcome

FEW = 4
"""Hosts, or keys of a machine file, that are named; of more it is said how many."""


def sentences(outcome: StudyOutcome, rows: Sequence[Row], of: int) -> Iterator[str]:
    """Yield how many trials were skipped, when and where they were made, and with what.

    Parameters
    ----------
    outcome : StudyOutcome
        Of the run.
    rows : sequence of Row
        What is known of the trials of the study.
    of : int
        How many were asked for.
    """
    skipped = {trial_id(trial): outcome.places.of(trial) for trial in outcome.skipped}
    if not skipped:
        return
    known = {row.trial.id: row for row in rows}
    times, hosts = [], Counter[str]()
    for name, folder in skipped.items():
        origin = known[name].provenance if name in known else {}
        times.append(_time(origin, folder))
        hosts.update(_hosts(origin))
    first, last = min(times), max(times)
    when = f"at {first}" if first == last else f"from {first} to {last}"
    where = f" on {_few(sorted(hosts))}" if hosts else ""
    count = f"{len(skipped)} of {_trials(of)}"
    yield f"skipped {count}, as finished before: run {when}{where}"
    yield from _other_settings(skipped.values(), outcome.machine)


def _other_settings(skipped: Iterable[TrialFolder], machine: Machine) -> Iterator[str]:
    """Yield in which settings of the machine file trials differ from what is asked."""
    found: Counter[tuple[str, ...]] = Counter()
    unknown = 0
    for folder in skipped:
        try:
            then = Job.read(folder.job).machine
        except DsgdError:
            unknown += 1
        else:
            found[tuple(differences(then, machine))] += 1
    for words, count in found.items():
        if words:
            yield (
                f"warning: the numbers of {_trials(count, 'skipped ')} come from other "
                f"settings than those of the machine file now: {_few(words, '; ')}; to "
                "run them with these, name another folder with --results, or remove "
                "theirs"
            )
    if unknown:
        yield (
            f"warning: of {_trials(unknown, 'skipped ')} it is not known with which "
            f"machine file they were run, as their {JOB} cannot be read"
        )


def differences(then: Machine, now: Machine) -> list[str]:
    """Return what differs between two machine files: "threads_per_rank 1, now 2".

    Values of variables that may be secrets are withheld.
    """
    before, after = provenance.settings(then), provenance.settings(now)
    return [
        f"{plain(key)} {provenance.setting(key, before)}, now "
        f"{provenance.setting(key, after)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _time(origin: Mapping[str, Any], folder: TrialFolder) -> str:
    """Return when a trial was run, by its trace, or else by the mark in its folder."""
    told = fact(origin, "time_utc")
    if isinstance(told, str):
        return plain(told)
    ended = folder.ready.stat().st_mtime
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ended))


def _hosts(origin: Mapping[str, Any]) -> list[str]:
    """Return the names of the hosts of a trial's ranks, each once."""
    hosts = fact(origin, "hosts")
    if not isinstance(hosts, list):
        host = fact(origin, "host")
        hosts = [host["name"]] if isinstance(host, Mapping) and "name" in host else []
    return sorted({plain(str(host)) for host in hosts})


def _few(words: Sequence[str], mark: str = ", ") -> str:
    more = len(words) - FEW
    return mark.join([*words[:FEW], *([f"and {more} more"] if more > 0 else [])])


def _trials(count: int, kind: str = "") -> str:
    return f"{count} {kind}trial{'s' * (count != 1)}"
