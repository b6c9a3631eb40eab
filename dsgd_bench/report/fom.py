"""Lines for machines: figures of merit, and a last line that says whether all is well.

``FOM <name> <value> <unit>``, one blank between them and none in any, for the regular
expressions of ReFrame, Ramble, JUBE and their like; docs/output.md describes them.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from dsgd_bench.analysis import labels
from dsgd_bench.analysis.checks import Verification
from dsgd_bench.analysis.rows import Row
from dsgd_bench.io.escape import token
from dsgd_bench.io.trial_folder import Outcome
from dsgd_bench.report.measures import FIGURES

SENTINEL = "DSGD_BENCH_RESULT"

COUNTED = {
    "finished": (Outcome.FINISHED,),
    "failed": (Outcome.FAILED,),
    "unreadable": (Outcome.UNREADABLE,),
    "missing": (Outcome.MISSING, Outcome.STOPPED),
}
"""What trials are counted as, each as one of these -> what became of them."""

NOT_RUN = ("crashed", "unreadable")
"""Statuses of rows that have no numbers."""


def lines(
    rows: Sequence[Row], verified: Sequence[Verification], states: Sequence[str]
) -> Iterator[str]:
    """Yield the figures of merit of every trial, then those of all together.

    Parameters
    ----------
    rows : sequence of Row
        One per trial of which anything is known.
    verified : sequence of Verification
        Of those that finished.
    states : sequence of str
        What became of every trial, see `collect.Collected`.
    """
    ran = [row for row in rows if row.status not in NOT_RUN]
    named = names(rows)
    for row in ran:
        label = named[row.trial.study, row.trial.id]
        for metric, value, unit in _metrics(row):
            yield line(f"{metric}[{label}]", value, unit)
    aimed = [row for row in ran if row.trial.target]
    yield line("trials", len(states), "count")
    for state, of in COUNTED.items():
        count = sum(each in of for each in states)
        yield line(f"trials_{state}", count, "count")
    invalid = sum(bool(trial.failed) for trial in verified)
    yield line("trials_invalid", invalid, "count")
    if aimed:
        yield line("trials_at_target", sum(row.reached for row in aimed), "count")


def line(name: str, value: float, unit: str) -> str:
    """Return one figure of merit; no part may have a blank."""
    return f"FOM {name} {value:.6g} {unit}"


def sentinel(valid: bool, ids: Iterable[str]) -> str:
    """Return the last line: whether the results are valid, and a hash of the trials."""
    digest = hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:12]
    return f"{SENTINEL} {'OK' if valid else 'FAIL'} id={digest}"


def names(rows: Sequence[Row]) -> dict[tuple[str, str], str]:
    """Return a name without blanks for every trial, by study and id.

    Algorithm with its settings, ranks, slowdown; whatever else differs between the
    trials; the seed. The id follows where that is still not enough.
    """
    different = _different(rows)
    several = len({row.trial.study for row in rows}) > 1
    found = {}
    for row in rows:
        words = [f"study={row.trial.study}"] if several else []
        words += [word.replace(" ", "=", 1) for word in row.trial.label.split(", ")]
        words += [f"ranks={row.trial.ranks}", f"slowdown={row.trial.slowdown}"]
        words += [f"{name}={_value(row, name)}" for name in different]
        words += [f"seed={row.trial.seed}"]
        found[row.trial.study, row.trial.id] = ",".join(map(token, words))
    twice = Counter(found.values())
    return {
        key: f"{name},id={token(key[1])}" if twice[name] > 1 else name
        for key, name in found.items()
    }


def _value(row: Row, name: str) -> str:
    return labels.text(row.trial.factors[name]) if name in row.trial.factors else ""


def _metrics(row: Row) -> Iterator[tuple[str, float, str]]:
    if row.trial.target:
        never = float("inf")
        reached = row.target.seconds
        yield "time_to_target", never if reached is None else reached, "s"
    for figure in FIGURES:
        value = figure.of(row)
        if value is not None:
            yield figure.name, value, figure.unit
    if "waiting" in row.times.shares:
        yield "waiting", row.times.shares["waiting"], "1"


def _different(rows: Sequence[Row]) -> list[str]:
    """Return the settings that differ between rows, but for those always named."""
    return [
        n for n in labels.differing([row.trial.factors for row in rows]) if n != "ranks"
    ]
