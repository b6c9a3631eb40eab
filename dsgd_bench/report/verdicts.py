"""What became of the papers' expectations, for terminal, Markdown and page."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from dsgd_bench.analysis.findings import FAILS, HOLDS, OPEN, Answer, Finding
from dsgd_bench.io.escape import markdown as safe
from dsgd_bench.io.escape import plain
from dsgd_bench.report.numbers import DASH, NONE, number
from dsgd_bench.report.tables import Column, Table

TITLE = "What the papers expect"
MARKS = {HOLDS: "+", FAILS: "!", OPEN: "?"}
"""What a line of the terminal begins with, by verdict."""
WIDEST = 100
"""Characters up to which a line of text is easy to read."""


def terminal(answers: Sequence[Answer], columns: int) -> list[str]:
    """Return a line per expectation, and one per finding that does not hold."""
    if not answers:
        return []
    lines = [f"{TITLE}: {total(answers)}"]
    for answer in answers:
        if answer.verdict != OPEN:
            text = f"{count(answer)}: {answer.expectation.sentence}"
            lines.append(_wrapped(text, columns, MARKS[answer.verdict]))
            for finding in answer.having(FAILS):
                told = f"{DASH} {finding.subject}: {measured(finding, answer)}"
                lines.append(_wrapped(told, columns, " ", deeper=2))
    lines += [
        _wrapped(f"{OPEN}: {name} ({why})", columns, MARKS[OPEN])
        for name, why in _reasons(answers)
    ]
    return lines


def markdown(answers: Sequence[Answer]) -> str:
    """Return the same as a list, with all sources; empty without any."""
    if not answers:
        return ""
    lines = [f"### {TITLE}", "", f"{total(answers)}.", ""]
    for answer in answers:
        expected = answer.expectation
        lines.append(
            f"- **{count(answer)}** {expected.sentence} *{expected.source}.*"
            f" {_range(answer)}".rstrip()
        )
        lines += [
            f"  - **{finding.verdict}**: "
            + safe(f"{_about(finding)}{measured(finding, answer)}")
            for finding in (*answer.having(FAILS), *answer.having(OPEN))
        ]
    return "\n".join(lines)


def table(answer: Answer) -> Table:
    """Return a line per finding, for the page: what was measured, expected, and why."""
    unit = answer.expectation.unit
    columns = (
        Column("case", "", str, left=True),
        Column("measured", unit, str),
        Column("expected", unit, str),
        Column("verdict", "", str, left=True),
        Column("why", "", str, left=True, wide=True),
    )
    cells = tuple(
        (
            finding.subject or "the study",
            number(finding.measured),
            expected(finding),
            finding.verdict,
            finding.why,
        )
        for finding in answer.findings
    )
    return Table(columns, cells)


def count(answer: Answer) -> str:
    """Return the verdict in a few words: "holds 8 of 10"."""
    holds = len(answer.having(HOLDS))
    judged = holds + len(answer.having(FAILS))
    return f"{HOLDS} {holds} of {judged}" if judged else OPEN


def measured(finding: Finding, answer: Answer) -> str:
    """Return "1.32 x own epoch, expected 0.85 to 1.41: why"; only why if unmeasured."""
    if finding.measured is None:
        return finding.why
    unit = answer.expectation.unit
    text = f"{number(finding.measured)} {unit}, expected {expected(finding)}"
    return f"{text}: {finding.why}" if finding.why else text


def expected(finding: Finding) -> str:
    """Return the range in words: "0.85 to 1.41", "at most 5", "at least 1"."""
    if finding.low is None and finding.high is None:
        return NONE
    if finding.low is None:
        return f"at most {number(finding.high)}"
    if finding.high is None:
        return f"at least {number(finding.low)}"
    if finding.low == finding.high:
        return number(finding.low)
    return f"{number(finding.low)} to {number(finding.high)}"


def total(answers: Sequence[Answer]) -> str:
    """Return how many findings there are of each verdict."""
    words = {HOLDS: "hold", FAILS: "do not", OPEN: "cannot be decided here"}
    counts = {
        verdict: sum(len(answer.having(verdict)) for answer in answers)
        for verdict in words
    }
    told = (f"{counts[verdict]} {word}" for verdict, word in words.items())
    return f"{sum(counts.values())} checks: {', '.join(told)}"


def _reasons(answers: Iterable[Answer]) -> Iterator[tuple[str, str]]:
    """Yield every reason why something could not be judged, once per expectation."""
    for answer in answers:
        reasons: dict[str, list[str]] = {}
        for finding in answer.having(OPEN):
            reasons.setdefault(finding.why, []).append(finding.subject)
        for why, subjects in reasons.items():
            named = [subject for subject in subjects if subject]
            about = f", {len(named)} of {len(answer.findings)} cases" if named else ""
            yield f"{answer.expectation.name}{about}", why


def _range(answer: Answer) -> str:
    """Return the least and the largest number measured."""
    values = [f.measured for f in answer.findings if f.measured is not None]
    if not values:
        return ""
    low, high = number(min(values)), number(max(values))
    shown = low if low == high else f"{low}{DASH}{high}"
    return f"Measured: {shown} {answer.expectation.unit}."


def _about(finding: Finding) -> str:
    return f"{finding.subject}: " if finding.subject else ""


def _wrapped(text: str, columns: int, mark: str, *, deeper: int = 0) -> str:
    return textwrap.fill(
        plain(text),
        min(columns, WIDEST),
        initial_indent=f"{mark} " + " " * deeper,
        subsequent_indent="  " + " " * deeper + "  " * bool(deeper),
    )
