"""What verification found, for terminal, Markdown and page."""

import textwrap
from collections.abc import Iterator, Sequence

from dsgd_bench.analysis.checks import Check, Verification
from dsgd_bench.io.escape import plain
from dsgd_bench.report import renderers
from dsgd_bench.report.tables import Column, Table

TITLE = "Verification"
WIDEST = 100
"""Characters up to which a line of text is easy to read."""
HEADS = tuple(
    Column(name, "", str, left=True)
    for name in ("trial", "check", "found", "expected", "because")
)


def terminal(verified: Sequence[Verification], columns: int) -> list[str]:
    """Return one line, and one more per check that does not hold."""
    if not verified:
        return []
    lines = [f"{TITLE}: {summary(verified)}"]
    for trial, check in _failures(verified):
        text = f"{trial.label}: {check.name}: {_told(check)}"
        wrapped = textwrap.fill(
            plain(text),
            min(columns, WIDEST),
            initial_indent="! ",
            subsequent_indent="  ",
        )
        lines.append(wrapped)
    return [*lines, ""]


def markdown(verified: Sequence[Verification]) -> str:
    """Return the same as a sentence, or a table; empty without finished trials."""
    if not verified:
        return ""
    parts = [f"### {TITLE}", f"{summary(verified)}."]
    found = table(verified)
    if found:
        parts.append(renderers.markdown(found))
    return "\n\n".join(parts)


def table(verified: Sequence[Verification]) -> Table | None:
    """Return a line per check that fails; None if all pass."""
    cells = tuple(
        (f"{trial.label} ({trial.trial_id})", *_cells(check))
        for trial, check in _failures(verified)
    )
    return Table(HEADS, cells) if cells else None


def summary(verified: Sequence[Verification]) -> str:
    """Return "412 checks of 20 finished trials, all pass", or how many do not."""
    checks = sum(len(trial.checks) for trial in verified)
    trials = f"{len(verified)} finished trial{'s' * (len(verified) != 1)}"
    broken = [trial for trial in verified if trial.failed]
    if not broken:
        return f"{checks} checks of {trials}, all pass"
    wrong = sum(len(trial.failed) for trial in broken)
    return f"{wrong} of {checks} checks fail: {len(broken)} of {trials} not valid"


def _failures(
    verified: Sequence[Verification],
) -> Iterator[tuple[Verification, Check]]:
    for trial in verified:
        for check in trial.failed:
            yield trial, check


def _cells(check: Check) -> tuple[str, str, str, str]:
    return check.name, check.found, check.expected, check.why


def _told(check: Check) -> str:
    return f"found {check.found}, expected {check.expected} ({check.why})"
