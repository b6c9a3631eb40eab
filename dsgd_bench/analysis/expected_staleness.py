"""What the papers expect of staleness, replicas and push-sum weights.

Symbols: n workers, m of them s times slower.
"""

from collections.abc import Iterator, Sequence
from math import inf

from dsgd_bench.algorithms.facts import amount
from dsgd_bench.analysis.comparison import Line
from dsgd_bench.analysis.findings import (
    TOLERANCE,
    Finding,
    entry,
    failed,
    judged,
    mean,
    slowed,
    slower,
    split,
)

ROUNDING = 1e-4
"""Distance of replicas, relative to the largest on the way, that is called none."""
WEIGHTS = 1e-5
"""What 32-bit push-sum weights may lack of their sum, relative to n."""


def bounded(lines: Sequence[Line]) -> Iterator[Finding]:
    """Compare staleness with the bound that the rule enforces."""
    for line in lines:
        algorithm, row = entry(line), line.group.first
        if algorithm is None or (
            algorithm.staleness == "steps" and row.trial.workers < 2
        ):
            continue  # who sends no message mixes no old one
        setup = algorithm.setup(row.trial.settings, row.trial.ranks)
        least, most = algorithm.stale(setup)
        if most == inf:
            continue
        # after the warm-up, one step with no message, then always what the rule says
        warm_up = amount(algorithm.warm_up, setup)
        begun = warm_up + 1 < min(row.times.steps_per_rank, default=0)
        low = least if least and begun and row.trial.workers > 1 else None
        yield judged(
            line,
            line.group.maximum(lambda row: row.staleness.largest),
            low=low,
            high=most,
        )


def typical(lines: Sequence[Line]) -> Iterator[Finding]:
    """Compare the mean staleness with that of lock step."""
    for line in lines:
        if _counts_all(line):
            row = line.group.first
            low, high = _ordinary(line)
            # one short run: the first rounds, and gradients that nothing delays yet
            low = low * (1 - TOLERANCE) if row.trial.workers > 1 else 0.0
            average = line.group.median(lambda row: row.staleness.mean)
            yield judged(line, average, low=low, high=high * (1 + TOLERANCE))


def slow_is_stale(lines: Sequence[Line]) -> Iterator[Finding]:
    """Compare a slow worker's staleness with the others' work meanwhile."""
    for line, baseline, factor in slowed(lines):
        if _counts_all(line):
            row = line.group.first
            slow, _ = split(line, lambda row: row.staleness.per_rank)
            fast = row.trial.workers - row.trial.slow_ranks
            low, high = (
                s * fast + row.trial.slow_ranks - 1 for s in slower(baseline, factor)
            )
            unsent = _ordinary(line)[1] - _ordinary(line)[0]
            yield judged(
                line,
                mean(slow),
                low=low * (1 - TOLERANCE),
                high=(high + unsent) * (1 + TOLERANCE),
            )


def others_are_not(lines: Sequence[Line]) -> Iterator[Finding]:
    """Compare the staleness of all others with that of lock step."""
    for line, _, _ in slowed(lines):
        if _counts_all(line):
            _, others = split(line, lambda row: row.staleness.per_rank)
            high = _ordinary(line)[1] * (1 + TOLERANCE)
            yield judged(line, mean(others), high=high)


def older_models(lines: Sequence[Line]) -> Iterator[Finding]:
    """Compare the age of mixed models with that without slowdown."""
    for line, baseline, _ in slowed(lines):
        algorithm = entry(line)
        if algorithm and algorithm.staleness == "steps" and not algorithm.keeps_step:
            before = baseline.median(lambda row: row.staleness.mean)
            yield judged(
                line, line.group.median(lambda row: row.staleness.mean), low=before
            )


def same_model(lines: Sequence[Line]) -> Iterator[Finding]:
    """Look how far replicas are apart that should be equal."""
    for line in lines:
        algorithm, group = entry(line), line.group
        if algorithm and "identical" in algorithm.traits:
            yield judged(
                line, group.maximum(lambda row: row.quality.widest), high=ROUNDING
            )
        elif algorithm and "eventually-identical" in algorithm.traits:
            widest = group.maximum(lambda row: row.quality.widest) or 0.0
            last = group.maximum(lambda row: row.quality.distance)
            yield judged(line, last, high=ROUNDING * max(widest, ROUNDING))


def positive_weights(lines: Sequence[Line]) -> Iterator[Finding]:
    """Look at the weights of push-sum and their sum."""
    for line in lines:
        algorithm, row = entry(line), line.group.first
        if not algorithm or "push-sum" not in algorithm.traits:
            continue
        if not amount(
            algorithm.weighted, algorithm.setup(row.trial.settings, row.trial.ranks)
        ):
            continue
        least = min(line.group.values(lambda row: row.weights.least), default=None)
        found = judged(line, least, low=1e-12, why="a weight is not positive")
        missing = line.group.maximum(lambda row: row.weights.departure) or 0.0
        if missing > WEIGHTS:
            found = failed(found, f"the weights lack {missing:.2g} n of their sum n")
        yield found


def _counts_all(line: Line) -> bool:
    """Whether staleness counts the gradients, or versions, of all workers."""
    algorithm = entry(line)
    families = ("gradients", "versions", "sets")
    return (
        algorithm is not None
        and algorithm.staleness in families
        and not algorithm.keeps_step
    )


def _ordinary(line: Line) -> tuple[float, float]:
    """Return n - 1, and what is added where K gradients are sent in one sum."""
    algorithm, row = entry(line), line.group.first
    others = row.trial.workers - 1.0
    if algorithm is None:
        return others, others
    sums = amount(
        algorithm.summed, algorithm.setup(row.trial.settings, row.trial.ranks)
    )
    return others, others * (sums + 1) / 2
