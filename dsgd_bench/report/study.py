"""One study as the report shows it: lines, tables, warnings and what they stand on."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dsgd_bench.analysis import labels
from dsgd_bench.analysis.checks import Verification
from dsgd_bench.analysis.comparison import Line, compare
from dsgd_bench.analysis.expectations import judge
from dsgd_bench.analysis.findings import Answer
from dsgd_bench.analysis.rows import Row
from dsgd_bench.analysis.servers import Load
from dsgd_bench.analysis.summary import Group, combine
from dsgd_bench.host import placement
from dsgd_bench.io.trial_folder import Outcome, TrialFolder
from dsgd_bench.report import provenance_warnings, tables, warnings
from dsgd_bench.report.collect import Collected
from dsgd_bench.report.evidence import Evidence
from dsgd_bench.report.tables import Table
from dsgd_bench.report.warnings import Caution


@dataclass(frozen=True)
class Study:
    """One study, ready to be shown.

    Attributes
    ----------
    name : str
        Name of the study.
    lines : tuple of Line
        One per point, in the order of the table.
    results, work : Table
        The study's table, and the second one on quality, work and traffic.
    cautions : tuple of Caution
        The warnings that apply.
    loads : tuple of Load
        What every trial with parameter servers asked of them.
    answers : tuple of Answer
        What became of the papers' expectations.
    verified : tuple of Verification
        Whether each finished trial is valid.
    folder : Path
        Where its results lie.
    states : mapping of TrialFolder to Outcome
        Every trial's folder, and what became of the trial, see `Collected`.
    ids : mapping of TrialFolder to str
        The trial of each of these folders.
    traces : mapping of str to Path
        Where the trace of each finished trial lies, by its id.
    """

    name: str
    lines: tuple[Line, ...]
    results: Table
    work: Table
    cautions: tuple[Caution, ...]
    loads: tuple[Load, ...] = ()
    answers: tuple[Answer, ...] = ()
    verified: tuple[Verification, ...] = ()
    folder: Path = Path()
    states: Mapping[TrialFolder, Outcome] = field(default_factory=dict)
    ids: Mapping[TrialFolder, str] = field(default_factory=dict)
    traces: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def of(cls, collected: Collected) -> "Study":
        """Return the study that lies in one folder."""
        lines = tuple(compare(combine(collected.rows)))
        cautions = tuple(warnings.cautions(Evidence(lines, collected)))
        results, work = tables.results(lines), tables.work(lines)
        loads, answers = tuple(collected.loads), tuple(judge(lines))
        return cls(
            collected.name,
            lines,
            results,
            work,
            cautions,
            loads,
            answers,
            tuple(collected.verified),
            collected.folder,
            collected.states,
            collected.ids,
            collected.traces,
        )

    @property
    def notes(self) -> list[str]:
        """How to read the table of results, a sentence each."""
        return tables.notes(self.results, self.lines)

    @property
    def groups(self) -> list[Group]:
        """The points of the study."""
        return [line.group for line in self.lines]

    @property
    def rows(self) -> list[Row]:
        """The trials of the study, point by point."""
        return [row for group in self.groups for row in group.rows]

    @property
    def simulated(self) -> bool:
        """Whether its trials ran in virtual time: all or none did."""
        return any(row.fabric == "virtual" for row in self.rows)

    @property
    def heading(self) -> str:
        """What all points have in common: "smoke: digits, 4 ranks, batch 32, ..."."""
        words = []
        for name, say in _COMMON.items():
            values = {group.first.trial.factors.get(name) for group in self.groups}
            if len(values) == 1 and (value := values.pop()) is not None:
                words.append(say.format(labels.text(value)))
        targets = {group.first.trial.target for group in self.groups}
        target = targets.pop() if len(targets) == 1 else None
        if target:
            words.append(f"target {target}")
        if self.simulated:
            words.append("in virtual time")
        return f"{self.name}: {', '.join(words)}"

    @property
    def provenance(self) -> dict[str, str]:
        """Every provenance value of the runs; several where they differ."""
        found: dict[str, Counter[str]] = {}
        for group in self.groups:
            for row in group.rows:
                facts = provenance_warnings.facts(row.provenance)
                places = placement.lines(row.origin.placement)
                facts |= {f"node {host}": text for host, text in places.items()}
                for name, value in facts.items():
                    found.setdefault(name, Counter())[value] += 1
        return {name: " | ".join(found[name]) for name in found}


_COMMON = {
    "problem.kind": "{}",
    "ranks": "{} ranks",
    "problem.batch": "batch {} per rank",
    "compute.seconds": "{} s emulated compute",
    "budget.seconds": "budget {} s",
    "budget.steps": "budget {} steps",
    "budget.samples": "budget {} samples",
    "budget.epochs": "budget {} epochs",
}
"""Settings of the heading, where all points share them."""
