"""The tables as Markdown, CSV and JSON."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from dsgd_bench.analysis.comparison import Line
from dsgd_bench.analysis.statistics import Estimate
from dsgd_bench.analysis.summary import SPANS, Row
from dsgd_bench.report import tables
from dsgd_bench.report.study import Study
from dsgd_bench.report.tables import Table

SCHEMA = 1
MEDIANS = (
    "loss",
    "accuracy",
    "replica_distance",
    "staleness_mean",
    "blocked",
    "hidden",
    "bytes_per_step",
    "messages_per_step",
    "exchanges_per_gradient",
)
"""Row attributes whose medians are exported; units in `UNITS`."""
UNITS = {
    "blocked": "s",
    "hidden": "s",
    "bytes_per_step": "byte",
    "staleness_mean": "count",
    "messages_per_step": "count",
    "exchanges_per_gradient": "count",
}


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
        parts += [f"## {study.heading}", _markdown_table(study.results)]
        parts += [" ".join(tables.notes(study.results))]
        if study.cautions:
            parts += ["### Read this first"]
            parts += ["\n".join(f"- {caution.text}" for caution in study.cautions)]
        parts += ["### Quality, work and traffic", _markdown_table(study.work)]
        if study.provenance:
            facts = (f"- {name}: {text}" for name, text in study.provenance.items())
            parts += ["### Measured on", "\n".join(facts)]
    parts += [f"![{name}]({name})" for name in figures]
    return "\n\n".join(part for part in [*parts, f"    {command}"] if part) + "\n"


def comma_separated(studies: Sequence[Study]) -> str:
    """Return one CSV line per point, every header with its unit."""
    records = [_record(study, line) for study in studies for line in study.lines]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
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
            }
            for study in studies
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n"


def _markdown_table(table: Table) -> str:
    heads = [
        f"{column.name} [{column.unit}]" if column.unit else column.name
        for column in table.columns
    ]
    marks = [":--" if column.left else "--:" for column in table.columns]
    rows = [heads, marks, *([c.replace("|", "\\|") for c in r] for r in table.cells)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _record(study: Study, line: Line) -> dict[str, Any]:
    """Return one CSV record: plain numbers, empty where unknown."""
    group, row = line.group, line.group.first
    record: dict[str, Any] = {
        "study": study.name,
        "case": line.case,
        "algorithm": line.algorithm,
        "slowdown": row.slowdown,
        "slow_factor [1]": row.slow_factor,
        "ranks": row.ranks,
        "target": row.target,
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
    record |= {
        f"{name} [{UNITS.get(name, '1')}]": group.median(name) for name in MEDIANS
    }
    record["staleness_max [count]"] = group.maximum("staleness_max")
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
        "slowdown": row.slowdown,
        "settings": dict(row.factors),
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
        "medians": {name: group.median(name) for name in MEDIANS},
        "each": [_run(each) for each in group.rows],
    }


def _estimate(found: Estimate | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)


def _run(row: Row) -> dict[str, Any]:
    """Return one run without what its point says, and without its curve."""
    said = ("factors", "study", "algorithm", "label", "slowdown", "target", "curve")
    names = (field.name for field in fields(row) if field.name not in said)
    return {name: getattr(row, name) for name in names}
