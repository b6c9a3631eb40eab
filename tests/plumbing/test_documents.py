"""Documents that say what the code says, and links that lead somewhere."""

import re
from pathlib import Path

import pytest

from dsgd_bench.trace.variables import VARIABLES

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for folder in (".", "configs", "docs", "jobs", "results")
    for path in (ROOT / folder).glob("*.md")
)


def test_the_trace_format_lists_every_variable_with_its_unit():
    text = (ROOT / "docs" / "trace-format.md").read_text()
    row = re.compile(r"^\| `((?!dsgd_)\w+)` \| (\w+) \|", re.MULTILINE)
    listed = dict(row.findall(text))
    assert listed == {name: units for name, (_, units, _) in VARIABLES.items()}


@pytest.mark.parametrize(
    "path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_links_between_documents_lead_somewhere(path):
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", path.read_text())
    assert not [link for link in links if not (path.parent / link).exists()]


def test_the_makefile_lists_the_targets_that_documents_name():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        name
        for path in DOCUMENTS
        for name in re.findall(r"\bmake ([a-z]+)\b", path.read_text())
        if re.search(rf"(^ {{4,}}|`)make {name}\b", path.read_text(), re.MULTILINE)
    }
    assert named <= targets
