"""The table of ``plan``: what every trial of a study costs."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from dsgd_bench.analysis import labels
from dsgd_bench.cli.console import console, duration, print_whole, size
from dsgd_bench.config import naming
from dsgd_bench.host import environment
from dsgd_bench.spec.trial import Study, Trial
from dsgd_bench.study import plan

WORDS = ("algorithm", "slowdown", "graph")
NUMBERS = (
    "ranks",
    "repeats",
    "model",
    "spectral gap",
    "messages\nper step",
    "sent\nper step",
    "memory\nper rank",
    "seconds",
)
"""Headings of the columns."""


def print_plan(study: Study) -> None:
    """Print what every trial of a study costs, and the sum."""
    costs = plan.costs(study)
    out = console()
    print_whole(out, _plan_table(study, costs))
    for trial, reason in study.excluded:
        out.print(f"excluded: {naming.description(trial)}: {reason}", soft_wrap=True)
    largest = max((cost.memory or 0 for cost in costs), default=0)
    if largest:
        available = environment.available_memory()
        left = "" if available is None else f" of {size(available)} that are left here"
        out.print(f"simulated in one process: {size(largest)} at most{left}")
        out.print(f"{len(costs)} trials; nothing was simulated")
        return
    known = [cost.seconds for cost in costs if cost.seconds is not None]
    total = duration(sum(known)) if len(known) == len(costs) else "unknown"
    core_hours = sum((c.seconds or 0) * c.trial.ranks for c in costs) / 3600
    out.print(
        f"{len(costs)} trials, estimated duration {total}, "
        f"{core_hours:.2f} rank-hours; nothing was run"
    )


def _plan_table(study: Study, costs: Sequence[plan.Cost]) -> Table:
    """Return one line per point of the study; its repeats are counted."""
    table = Table(
        box=box.SIMPLE_HEAD, title=f"study {study.name}", title_justify="left"
    )
    for heading in WORDS:
        table.add_column(heading)
    for heading in NUMBERS:
        table.add_column(Text(heading), justify="right")
    groups: dict[tuple[str, str, int, int, str], list[plan.Cost]] = {}
    cases = _cases([cost.trial for cost in costs])
    for cost, case in zip(costs, cases, strict=True):
        t = cost.trial
        key = (
            naming.label(t.algorithm),
            naming.slowdown(t),
            t.ranks,
            cost.model_bytes,
            case,
        )
        groups.setdefault(key, []).append(cost)
    for (label, slowdown, ranks, model, case), group in sorted(groups.items()):
        first = group[0]
        sent, gap, seconds = first.bytes_per_step, first.spectral_gap, first.seconds
        messages = first.messages_per_step
        table.add_row(
            f"{label}, {case}" if case else label,
            slowdown,
            first.graph,
            str(ranks),
            str(len(group)),
            size(model),
            "" if gap is None else f"{gap:.3f}",
            "" if messages is None else f"{messages:.3g}",
            "a result" if sent is None else size(sent),
            size(first.memory_per_rank),
            "unknown" if seconds is None else f"{seconds:.1f}",
        )
    return table


def _cases(trials: Sequence[Trial]) -> list[str]:
    """Return for each trial what else the study varies, in words."""
    factors = [labels.factors(trial) for trial in trials]
    varying = [name for name in labels.differing(factors) if name != "ranks"]
    return [labels.chosen(each, varying) for each in factors]
