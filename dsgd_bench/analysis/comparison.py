"""The lines of one study's table: every point beside its reference and its baseline.

The *reference* of a point is AllReduce-SGD, which says so of itself, under the same
slowdown and otherwise equal settings; the *baseline* is the same algorithm without
slowdown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.analysis import labels, straggler
from dsgd_bench.analysis.rows import per_epoch, seconds_to_target
from dsgd_bench.analysis.statistics import Estimate, ratio_of_medians
from dsgd_bench.analysis.summary import Group

REFERENCE = next(name for name, each in ALGORITHMS.items() if each.reference)
"""What the reference is called where no line is at hand."""


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes
    ----------
    group : Group
        The runs of the point.
    case : str
        What else the study varies ("8 ranks, alpha=0.1"); empty if nothing.
    algorithm : str
        Kind and settings: "adpsgd, ring", with optimizer settings where they vary.
    is_reference : bool
        Whether other lines are compared with this one.
    reference_failed : bool
        Whether there is a reference that never reached the target.
    against_reference : Estimate or None
        Own median over the reference's, below 1 is faster: of the times to the target
        where the study has one, else of the times per epoch.
    baseline : Group or None
        The same algorithm without slowdown.
    against_baseline : Estimate or None
        Time per epoch over the baseline's.
    predicted, paper : float or None
        What the model and the AD-PSGD paper say for `against_baseline`.
    """

    group: Group
    case: str
    algorithm: str
    is_reference: bool
    reference_failed: bool
    against_reference: Estimate | None
    baseline: Group | None
    against_baseline: Estimate | None
    predicted: float | None
    paper: float | None


def compare(groups: Sequence[Group]) -> list[Line]:
    """Return the lines of one study: by case, slowdown, then algorithm."""
    varying = labels.differing([group.first.trial.factors for group in groups])
    lines = [_line(group, groups, varying) for group in groups]
    seen = {kind: place for place, kind in enumerate(_kinds(groups))}

    def order(line: Line) -> tuple[object, ...]:
        row = line.group.first
        factor = row.trial.slow_factor
        severity = (
            factor is None,
            factor or 0.0,
            row.trial.slow_ranks,
            row.trial.slowdown,
        )
        return (
            row.trial.ranks,
            line.case,
            severity,
            seen[row.trial.algorithm],
            line.algorithm,
        )

    return sorted(lines, key=order)


def is_synchronous(kind: str) -> bool | None:
    """Return whether a step of the algorithm waits for all ranks; None if unknown."""
    algorithm = ALGORITHMS.get(kind)
    return None if algorithm is None else algorithm.synchronous


def keeps_step(kind: str) -> bool | None:
    """Return whether one slow worker slows all in the end; None if unknown."""
    algorithm = ALGORITHMS.get(kind)
    return None if algorithm is None else algorithm.keeps_step


def is_reference(kind: str) -> bool:
    """Return whether other algorithms are compared with this one."""
    algorithm = ALGORITHMS.get(kind)
    return algorithm is not None and algorithm.reference


def _line(group: Group, groups: Sequence[Group], varying: Sequence[str]) -> Line:
    row = group.first
    optimizer = [key for key in varying if key.startswith("optimizer.")]
    other = [key for key in varying if not key.startswith("optimizer.")]
    words = (row.trial.label, labels.chosen(row.trial.factors, optimizer))
    reference = _find(group, groups, ignore="algorithm.", reference=True)
    baseline = _find(group, groups, ignore="slowdown.", factor=1.0)
    against_baseline = straggler.measured(group, baseline) if baseline else None
    return Line(
        group=group,
        case=labels.chosen(row.trial.factors, other),
        algorithm=", ".join(word for word in words if word),
        is_reference=is_reference(row.trial.algorithm),
        reference_failed=bool(reference and row.trial.target and not reference.reached),
        against_reference=_against(group, reference),
        baseline=baseline,
        against_baseline=against_baseline,
        predicted=_predicted(group),
        paper=straggler.paper_ratio(group),
    )


def _find(
    group: Group,
    groups: Sequence[Group],
    *,
    ignore: str,
    reference: bool = False,
    factor: float | None = None,
) -> Group | None:
    """Return the group that differs in nothing but the `ignore`d settings."""
    wanted = _rest(group, ignore)
    for other in groups:
        row = other.first
        if reference and not is_reference(row.trial.algorithm):
            continue
        if factor not in (None, row.trial.slow_factor):
            continue
        if _rest(other, ignore) == wanted:
            return other
    return None


def _rest(group: Group, ignore: str) -> dict[str, Any]:
    return {
        k: v for k, v in group.first.trial.factors.items() if not k.startswith(ignore)
    }


def _against(group: Group, reference: Group | None) -> Estimate | None:
    if reference is None or is_reference(group.first.trial.algorithm):
        return None
    of = seconds_to_target if group.first.trial.target else per_epoch
    return ratio_of_medians(group.values(of), reference.values(of))


def _predicted(group: Group) -> float | None:
    row, together = group.first, keeps_step(group.first.trial.algorithm)
    if row.trial.slow_factor is None or together is None:
        return None
    return straggler.predicted(
        row.trial.workers,
        row.trial.slow_ranks,
        row.trial.slow_factor,
        synchronous=together,
    )


def _kinds(groups: Sequence[Group]) -> list[str]:
    """Return the kinds of algorithm, the reference first, then by table."""
    found = {group.first.trial.algorithm for group in groups}
    table = [kind for kind in ALGORITHMS if kind in found]
    rest = sorted(found.difference(table))
    return sorted(table + rest, key=lambda kind: not is_reference(kind))
