"""The table of ``doctor``."""

from rich import box
from rich.table import Table
from rich.text import Text

from dsgd_bench.cli.console import console
from dsgd_bench.study.doctor import Finding

KINDS = {"ok": "green", "note": "yellow", "bad": "red"}


def print_findings(findings: list[Finding]) -> None:
    """Print what the doctor found."""
    table = Table("", "what", "found", box=box.SIMPLE_HEAD)
    for finding in findings:
        verdict = Text(finding.verdict, style=KINDS[finding.verdict])
        table.add_row(verdict, finding.what, finding.found)
    console().print(table)
