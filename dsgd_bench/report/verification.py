"""What verification found, for terminal, Markdown and page."""

import textwrap
from collections.abc import Iterator, Sequence

from dsgd_bench.analysis.checks import Check, Verification
from dsgd_bench.io.escape import html, plain
from dsgd_bench.io.escape import markdown as safe

TITLE = "Verification"
WIDEST = 100
"""Characters up to which a line of text is easy to read."""


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
    lines = [f"### {TITLE}", "", f"{summary(verified)}."]
    failures = list(_failures(verified))
    if failures:
        lines += ["", "| trial | check | found | expected | because |"]
        lines += ["| :-- | :-- | :-- | :-- | :-- |"]
    for trial, check in failures:
        cells = (f"{trial.label} ({trial.trial_id})", *_cells(check))
        lines.append(f"| {' | '.join(map(safe, cells))} |")
    return "\n".join(lines)


def page(verified: Sequence[Verification]) -> str:
    """Return a line of the page, or a card with a table of what does not hold."""
    if not verified:
        return ""
    told = html(summary(verified))
    failures = list(_failures(verified))
    if not failures:
        return f'<p class="soft">{TITLE}: {told}.</p>\n'
    rows = "".join(
        "<tr>"
        + "".join(
            f'<td class="text">{html(cell)}</td>'
            for cell in (f"{trial.label} ({trial.trial_id})", *_cells(check))
        )
        + "</tr>"
        for trial, check in failures
    )
    heads = ("trial", "check", "found", "expected", "because")
    head = "".join(f'<th class="text">{name}</th>' for name in heads)
    return (
        f'<div class="card warn"><h3>{TITLE}</h3><p>{told}.</p>'
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></div>\n"
    )


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
