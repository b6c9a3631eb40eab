"""The tables as Markdown, CSV and JSON."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dsgd_bench.analysis import labels
from dsgd_bench.analysis.comparison import Line
from dsgd_bench.analysis.findings import Answer
from dsgd_bench.analysis.rows import SPANS
from dsgd_bench.analysis.statistics import Estimate
from dsgd_bench.io.escape import cell, plain
from dsgd_bench.io.escape import markdown as safe
from dsgd_bench.report import across, renderers, verdicts, verification
from dsgd_bench.report.measures import MAXIMA, MEDIANS, RUN
from dsgd_bench.report.study import Study

SCHEMA = 1


def markdown(studies: Sequence[Study], command: str, figures: Sequence[str]) -> str:
    """Return the report as Markdown.

    Parameters
    ----------
    studies : sequence of Study
    command : str
        What made the report; its last line.
    figures : sequence of str
        Paths of the figures, relative to the report.
    """
    parts = ["# dsgd-bench report"]
    for study in studies:
        parts += [f"## {safe(study.heading)}", renderers.markdown(study.results)]
        parts += ["\n".join(f"- {safe(note)}" for note in study.notes)]
        if study.cautions:
            parts += ["### Read this first"]
            parts += [
                "\n".join(f"- {safe(caution.text)}" for caution in study.cautions)
            ]
        parts += [verification.markdown(study.verified)]
        parts += [verdicts.markdown(study.answers)]
        parts += ["### Quality, work and traffic", renderers.markdown(study.work)]
        if study.provenance:
            facts = (
                f"- {safe(f'{name}: {text}')}"
                for name, text in study.provenance.items()
            )
            how = "Simulated" if study.simulated else "Measured"
            parts += [f"### {how} on", "\n".join(facts)]
    for title, table, notes in across.sections(studies):
        parts += [f"## {safe(title)}", renderers.markdown(table)]
        parts += ["\n".join(f"- {safe(note)}" for note in notes)]
    parts += [f"![{name}]({name})" for name in figures]
    return (
        "\n\n".join(part for part in [*parts, f"    {plain(command)}"] if part) + "\n"
    )


def comma_separated(studies: Sequence[Study]) -> str:
    """Return one CSV line per point, every header with its unit."""
    records = [_record(study, line) for study in studies for line in study.lines]
    text = io.StringIO()
    headers = list(records[0]) if records else ["study"]
    writer = csv.DictWriter(text, headers, lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({name: cell(value) for name, value in record.items()})
    return text.getvalue()


def as_json(studies: Sequence[Study], command: str) -> str:
    """Return everything as JSON: points, the runs they stand on, and warnings."""
    content = {
        "schema": SCHEMA,
        "command": command,
        "studies": [
            {
                "name": study.name,
                "heading": study.heading,
                "points": [_point(line) for line in study.lines],
                "warnings": [asdict(caution) for caution in study.cautions],
                "expectations": [_answer(answer) for answer in study.answers],
                "verification": [asdict(trial) for trial in study.verified],
            }
            for study in studies
        ],
    }
    return json.dumps(content, indent=1, default=str) + "\n"


def _answer(answer: Answer) -> dict[str, Any]:
    told = answer.expectation
    return {
        "name": told.name,
        "sentence": told.sentence,
        "source": told.source,
        "unit": told.unit,
        "verdict": answer.verdict,
        "findings": [asdict(finding) for finding in answer.findings],
    }


def _record(study: Study, line: Line) -> dict[str, Any]:
    """Return one CSV record: plain numbers, empty where unknown."""
    group, row = line.group, line.group.first
    record: dict[str, Any] = {
        "study": study.name,
        "case": line.case,
        "algorithm": line.algorithm,
        "slowdown": row.trial.slowdown,
        "slow_factor [1]": row.trial.slow_factor,
        "ranks": row.trial.ranks,
        "target": row.trial.target,
        "runs": len(group.rows),
        "reached": group.reached,
        **_bounds("time_to_target", "s", group.time_to_target),
        **_bounds("against_reference", "1", line.against_reference),
        **_bounds("time_per_epoch", "s", group.time_per_epoch),
        **_bounds("own_slowdown", "1", line.against_baseline),
        "model_slowdown [1]": line.predicted,
        "paper_slowdown [1]": line.paper,
    }
    record |= {f"{span} [1]": group.shares.get(span) for span in SPANS}
    record |= {each.header: group.median(each.of) for each in MEDIANS}
    record |= {each.header: group.maximum(each.of) for each in MAXIMA}
    record["bound [s]"] = row.limits.bound.seconds if row.limits.bound else None
    record["bound_formula"] = row.limits.bound.formula if row.limits.bound else None
    record["links"] = row.limits.links or None
    record["weight_min [1]"] = min(
        group.values(lambda row: row.weights.least), default=None
    )
    for status in ("crashed", "unreadable", "diverged"):
        record[status] = group.statuses[status]
    return record


def _bounds(name: str, unit: str, found: Estimate | None) -> dict[str, float | None]:
    """Return value, bounds and level of an estimate under four headers."""
    return {
        f"{name} [{unit}]": found.value if found else None,
        f"{name}_low [{unit}]": found.low if found else None,
        f"{name}_high [{unit}]": found.high if found else None,
        f"{name}_confidence [1]": found.confidence if found else None,
    }


def _point(line: Line) -> dict[str, Any]:
    group, row = line.group, line.group.first
    return {
        "case": line.case,
        "algorithm": line.algorithm,
        "slowdown": row.trial.slowdown,
        "settings": {
            name: labels.text(value) for name, value in row.trial.factors.items()
        },
        "runs": len(group.rows),
        "reached": group.reached,
        "statuses": dict(group.statuses),
        "time_to_target_s": _estimate(group.time_to_target),
        "time_per_epoch_s": _estimate(group.time_per_epoch),
        "against_reference": _estimate(line.against_reference),
        "own_slowdown": _estimate(line.against_baseline),
        "model_slowdown": line.predicted,
        "paper_slowdown": line.paper,
        "shares": group.shares,
        "medians": {each.name: group.median(each.of) for each in MEDIANS},
        "maxima": {each.name: group.maximum(each.of) for each in MAXIMA},
        "each": [{name: of(row) for name, of in RUN.items()} for row in group.rows],
    }


def _estimate(found: Estimate | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)
