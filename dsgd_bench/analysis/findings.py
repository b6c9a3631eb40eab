"""What an expectation finds: a measured number, the expected range, and a verdict."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.algorithms.base import Algorithm
from dsgd_bench.analysis.comparison import Line
from dsgd_bench.analysis.rows import Row
from dsgd_bench.analysis.statistics import median
from dsgd_bench.analysis.summary import Group

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be decided here"
"""The verdicts."""
TIMES = "\N{MULTIPLICATION SIGN}"
TOLERANCE = 0.25
"""Of times and of staleness: what shared cores, short runs and uneven steps may do."""


@dataclass(frozen=True)
class Finding:
    """One expectation on one line of the table.

    Attributes
    ----------
    subject : str
        Which line; "" where the finding is about the study.
    measured : float or None
        In the unit of the expectation.
    low, high : float or None
        The expected range, its tolerance included; None where it is open.
    verdict : str
        `HOLDS`, `FAILS` or `OPEN`.
    why : str
        What explains the verdict; empty where the numbers do.
    """

    subject: str
    measured: float | None
    low: float | None
    high: float | None
    verdict: str
    why: str = ""


@dataclass(frozen=True)
class Expectation:
    """What a paper, or the rule of an algorithm, says must come out.

    Attributes
    ----------
    name, sentence : str
        A word to find it by, and what must hold, tolerance included.
    source : str
        Where that stands, or what it follows from.
    unit : str
        Of the measured number and the range.
    check : callable
        Lines of one study to the findings; none where no algorithm of the study is
        concerned.
    """

    name: str
    sentence: str
    source: str
    unit: str
    check: Callable[[Sequence[Line]], Iterable[Finding]]


@dataclass(frozen=True)
class Answer:
    """What became of one expectation in one study."""

    expectation: Expectation
    findings: tuple[Finding, ...]

    def having(self, verdict: str) -> list[Finding]:
        """Return the findings with that verdict."""
        return [finding for finding in self.findings if finding.verdict == verdict]

    @property
    def verdict(self) -> str:
        """The gravest of all: one that does not hold outweighs any that hold."""
        found = {finding.verdict for finding in self.findings}
        return next(each for each in (FAILS, HOLDS, OPEN) if each in found)


def judged(
    line: Line,
    measured: float | None,
    *,
    low: float | None = None,
    high: float | None = None,
    why: str = "",
) -> Finding:
    """Return whether `measured` lies in [low, high]; cannot be judged if unknown.

    `why` explains a number outside of the range; by default the line's circumstances.
    """
    if measured is None:
        return unknown(line, "no run has it")
    inside = (low is None or measured >= low) and (high is None or measured <= high)
    verdict = HOLDS if inside else FAILS
    told = "" if inside else why or circumstances(line)
    return Finding(name(line), measured, low, high, verdict, told)


def unknown(line: Line | None, why: str) -> Finding:
    """Return a finding that cannot be judged, and why."""
    return Finding(name(line) if line else "", None, None, None, OPEN, why)


def failed(finding: Finding, why: str) -> Finding:
    """Return the finding as one that does not hold for another reason."""
    return replace(finding, verdict=FAILS, why=why)


def name(line: Line) -> str:
    """Return how the table names the line."""
    slowdown = line.group.first.trial.slowdown
    words = [line.case, line.algorithm, slowdown if slowdown != "none" else ""]
    return ", ".join(word for word in words if word)


def entry(line: Line) -> Algorithm | None:
    """Return what the table of algorithms says about the line's; None if unknown."""
    return ALGORITHMS.get(line.group.first.trial.algorithm)


def slowed(lines: Sequence[Line]) -> Iterator[tuple[Line, Group, float]]:
    """Yield lines of some, not all, workers slowed: line, baseline, factor."""
    for line in lines:
        row = line.group.first
        some = 0 < row.trial.slow_ranks < row.trial.workers
        if (
            some
            and line.baseline
            and row.trial.slow_factor
            and row.trial.slow_factor > 1.0
        ):
            yield line, line.baseline, row.trial.slow_factor


def slower(baseline: Group, factor: float) -> tuple[float, float]:
    """Return the least and the most a slow worker's step takes, over an ordinary one.

    All of an ordinary step but computing the gradient takes equally long for both, or
    hides behind the gradient: from ``1 + (s - 1) c`` to s, with c the share of
    computing without slowdown.
    """
    computing = baseline.shares.get("compute", 1.0)
    return 1.0 + (factor - 1.0) * computing, factor


PerRank = Callable[[Row], Sequence[float]]
"""What a row tells of every worker: ``lambda row: row.staleness.per_rank``."""


def per_rank(group: Group, of: PerRank) -> list[float]:
    """Return the medians, worker by worker, of what rows tell of every worker."""
    runs = [values for row in group.rows if (values := of(row))]
    return [median(each) for each in zip(*runs, strict=True)] if runs else []


def split(line: Line, of: PerRank) -> tuple[list[float], list[float]]:
    """Return what is told of each slow worker and of each other one."""
    values = per_rank(line.group, of)
    slow = set(line.group.first.trial.slow)
    return (
        [value for rank, value in enumerate(values) if rank in slow],
        [value for rank, value in enumerate(values) if rank not in slow],
    )


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, or None of nothing."""
    return sum(values) / len(values) if values else None


def circumstances(line: Line) -> str:
    """Return where the line's time went, beside its baseline's, in words."""
    words = [f"{_shares(line.group)} of the time"]
    if line.baseline and line.baseline is not line.group:
        words.append(f"without slowdown {_shares(line.baseline)}")
    row = line.group.first
    if row.origin.oversubscribed:
        cores = row.origin.cores or "fewer"
        words.append(f"{row.trial.ranks} ranks share {cores} cores")
    steps = [count for row in line.group.rows for count in row.times.steps_per_rank]
    if steps:
        fewest, most = min(steps), max(steps)
        counted = f"{fewest} to {most}" if fewest < most else f"{most}"
        words.append(f"{counted} steps per worker")
    return "; ".join(words)


def _shares(group: Group) -> str:
    shown = ("compute", "waiting", "transfer", "update")
    shares = group.shares
    return ", ".join(f"{span} {percent(shares.get(span, 0.0))}" for span in shown)


def percent(share: float) -> str:
    """Return a share in words: "25 %", never broken in two."""
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"
