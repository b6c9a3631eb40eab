"""What the papers expect of times: the price of a slow worker, and who waits.

Symbols: n workers, m of them s times slower; t_c seconds for a gradient, t_m for an
exchange.
"""

from collections.abc import Iterator, Sequence

from dsgd_bench import slowdowns
from dsgd_bench.analysis import straggler
from dsgd_bench.analysis.comparison import Line, keeps_step
from dsgd_bench.analysis.findings import (
    HOLDS,
    TOLERANCE,
    Finding,
    circumstances,
    entry,
    failed,
    judged,
    mean,
    name,
    slowed,
    slower,
    split,
    unknown,
)
from dsgd_bench.analysis.summary import Group

IDLE = 0.05
"""Share of time up to which a worker is said not to wait."""
OVERLAP = 0.1
"""What an exchange beside the gradient may cost more than one after it, by chance."""
CLEAR = 4.0
"""Slowdown from which on no difference in quality should make up for waiting."""

LOCKS = "with one thread an averaging waits for those that hold a replica of the two"
"""What those wait for that wait for nobody, but exchange on the training thread."""


def all_wait(lines: Sequence[Line]) -> Iterator[Finding]:
    """Compare the price of a slow worker with its own step, where all keep step."""
    for line, baseline, factor in slowed(lines):
        if keeps_step(line.group.first.trial.algorithm) and line.against_baseline:
            computing = baseline.shares.get("compute", 1.0)
            # t_m adds to s t_c, or hides behind it, in units of t_c + t_m
            low = factor * computing * (1 - TOLERANCE)
            high = (1 + (factor - 1) * computing) * (1 + TOLERANCE)
            yield judged(line, line.against_baseline.value, low=low, high=high)


def rates_add_up(lines: Sequence[Line]) -> Iterator[Finding]:
    """Compare the price of a slow worker with its lost share, where none waits."""
    for line, baseline, factor in slowed(lines):
        row = line.group.first
        if keeps_step(row.trial.algorithm) is False and line.against_baseline:
            low, high = (
                straggler.predicted(
                    row.trial.workers, row.trial.slow_ranks, s, synchronous=False
                )
                for s in slower(baseline, factor)
            )
            yield judged(
                line,
                line.against_baseline.value,
                low=low * (1 - TOLERANCE),
                high=high * (1 + TOLERANCE),
            )


def share_of_work(lines: Sequence[Line]) -> Iterator[Finding]:
    """Compare how many steps the others take while a slow one takes one."""
    for line, baseline, factor in slowed(lines):
        if keeps_step(line.group.first.trial.algorithm) is False:
            slow, others = split(line, lambda row: row.times.steps_per_rank)
            low, high = slower(baseline, factor)
            own, theirs = mean(slow), mean(others)
            ratio = theirs / own if own and theirs else None
            yield judged(
                line, ratio, low=low * (1 - TOLERANCE), high=high * (1 + TOLERANCE)
            )


def overlaps(lines: Sequence[Line]) -> Iterator[Finding]:
    """Compare an epoch with that of the form that exchanges after each gradient."""
    for line in lines:
        algorithm, row = entry(line), line.group.first
        form = algorithm.overlapped_form_of if algorithm else ""
        for other in lines if row.trial.slow_factor == 1.0 else ():
            beside = other.group.first
            same = (line.case, row.trial.slowdown) == (
                other.case,
                beside.trial.slowdown,
            )
            if same and form == beside.trial.algorithm:
                own, its = line.group.time_per_epoch, other.group.time_per_epoch
                ratio = own.value / its.value if own and its else None
                yield judged(line, ratio, high=1 + OVERLAP)


def first_to_target(lines: Sequence[Line]) -> Iterator[Finding]:
    """Compare the time to the target with AllReduce-SGD's under a slowdown."""
    for line, _, factor in slowed(lines):
        row = line.group.first
        if (
            factor < CLEAR
            or keeps_step(row.trial.algorithm) is not False
            or not row.trial.target
        ):
            continue
        ratio = line.against_reference
        if ratio:
            yield judged(line, ratio.value, high=1.0)
        elif not line.reference_failed and not line.group.reached:
            found = unknown(line, "")
            yield failed(found, "AllReduce-SGD reached the target, this did not")
        elif line.group.reached and line.reference_failed:
            yield Finding(name(line), None, None, 1.0, HOLDS, "AllReduce-SGD never did")
        else:
            yield unknown(line, "neither reached the target: raise study.budget")


def jitter(lines: Sequence[Line]) -> Iterator[Finding]:
    """Compare the price of random delays with AllReduce-SGD's."""
    shown = [line for line in lines if _claims(line, "absorbs-delays")]
    kinds = [name for name, kind in slowdowns.KINDS.items() if kind.random]
    random = [
        line
        for line in shown
        if line.group.first.trial.factors.get("slowdown.kind") in kinds
    ]
    for line in random:
        row = line.group.first
        reference = next(
            (
                other.against_baseline
                for other in lines
                if other.is_reference
                and (other.case, other.group.first.trial.slowdown)
                == (line.case, row.trial.slowdown)
            ),
            None,
        )
        if line.against_baseline is None or reference is None:
            yield unknown(line, "no AllReduce-SGD or no run without slowdown beside it")
            continue
        ratio = line.against_baseline.value / reference.value
        yield judged(line, ratio, high=1 + OVERLAP)
    if shown and not random:
        yield unknown(None, "no slowdown of the study is random")


def slow_network(lines: Sequence[Line]) -> Iterator[Finding]:
    """Say what is not compared, where a paper speaks of slow networks."""
    if any(_claims(line, "slow-network") for line in lines):
        slow = any("links" in line.group.first.trial.slowdown for line in lines)
        never = "the study slows workers, never links"
        yield unknown(None, "no paper has these slow links" if slow else never)


def nobody_waits(lines: Sequence[Line]) -> Iterator[Finding]:
    """Look at the share of waiting where nobody should."""
    for line in lines:
        algorithm = entry(line)
        if algorithm and algorithm.waits_for == "none":
            why = f"{LOCKS}; " if algorithm.in_turn else ""
            yield judged(
                line,
                _waiting(line.group),
                high=100 * IDLE,
                why=why + circumstances(line),
            )


def only_the_server(lines: Sequence[Line]) -> Iterator[Finding]:
    """Look who is waited for where only the server answers."""
    for line, baseline, _ in slowed(lines):
        algorithm, row = entry(line), line.group.first
        if algorithm and algorithm.waits_for == "servers":
            before = _waiting(baseline) or 0.0
            found = judged(line, _waiting(line.group), high=before + 100 * IDLE)
            rank = line.group.median(lambda row: row.times.waited_for)
            if rank is not None and rank < row.trial.workers:
                found = failed(found, f"rank {rank:.0f}, a worker, was waited for most")
            yield found


def for_the_slow_one(lines: Sequence[Line]) -> Iterator[Finding]:
    """Look who waits, and for whom, where all keep step."""
    for line, _, _ in slowed(lines):
        algorithm, row = entry(line), line.group.first
        if not algorithm or not algorithm.keeps_step:
            continue
        slow, others = split(line, lambda row: row.times.waiting_per_rank)
        if not slow:
            yield unknown(line, "no run has it")
            continue
        found = judged(line, 100 * max(slow), high=100 * min(others))
        rank = line.group.median(lambda row: row.times.waited_for)
        meet = algorithm.waits_for == "all"
        if meet and rank is not None and rank not in row.trial.slow:
            found = failed(found, f"rank {rank:.0f} was waited for most")
        yield found


def _claims(line: Line, claim: str) -> bool:
    """Return whether a paper says this of the line's algorithm."""
    algorithm = entry(line)
    return algorithm is not None and claim in algorithm.claims


def _waiting(group: Group) -> float | None:
    """Return the share of time that workers waited, in percent."""
    share = group.shares.get("waiting")
    return None if share is None else 100 * share
