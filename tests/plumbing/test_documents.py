"""Documents that say what the code says, and links that lead somewhere."""

import re
from pathlib import Path

import pytest

from dsgd_bench import graphs
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.algorithms.facts import STALENESS
from dsgd_bench.report.numbers import DASH
from dsgd_bench.report.tables import TIME_COLUMNS
from dsgd_bench.trace.variables import FORMER, SCHEMA, VARIABLES

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for folder in (".", "configs", "contrib", "docs", "jobs", "results")
    for path in (ROOT / folder).glob("*.md")
)


def test_the_trace_format_has_the_tables_of_the_variables():
    text = (ROOT / "docs" / "trace-format.md").read_text()
    tables = {}
    for name, (dimensions, unit, doc) in VARIABLES.items():
        row = f"| `{name}` | {unit} | {doc.replace('|', chr(92) + '|')} |"
        tables.setdefault(f"**({', '.join(dimensions)})**", []).append(row)
    head = "\n\n| variable | units | meaning |\n|---|---|---|\n"
    for title, rows in tables.items():
        table = title + head + "\n".join(rows) + "\n\n"
        assert table in text, f"docs/trace-format.md lacks:\n{table}"
    assert text.startswith(f"# The trace format, schema {SCHEMA}\n")


def test_the_trace_format_tells_the_former_names():
    text = (ROOT / "docs" / "trace-format.md").read_text()
    listed = ", ".join(f"`{name}`" for name in FORMER)
    named = ", ".join(f"`{name}`" for name in FORMER.values())
    assert f"| 3 | {listed} are {named} now; " in text


def test_the_page_on_graphs_says_what_the_graphs_are():
    text = (ROOT / "docs" / "graphs.md").read_text()
    row = re.compile(r"^\| `([a-z-]+)[^`]*` \|.*\| (.+), (.+) \| (.+), (.+) \|$", re.M)
    listed = {name: numbers for name, *numbers in row.findall(text)}
    expected = {}
    for name in graphs.EXAMPLES:
        made = [graphs.make(name, size) for size in (8, 16)]
        numbers = [f"{graph.messages_per_step():.3g}" for graph in made]
        numbers += [f"{graph.spectral_gap():.3f}" for graph in made]
        expected[name.partition(":")[0]] = numbers
    assert listed == expected
    assert all(f"| `{graphs.usage(name)}` |" in text for name in graphs.GRAPHS)


def graph_of(entry):
    """Return what the page on algorithms says an algorithm runs on."""
    if "servers" in entry.settings:
        return "servers"
    if "graph" not in entry.settings:
        return DASH
    return "undirected" if "undirected" in entry.traits else "any"


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150, "move it to docs/"


def test_the_page_on_algorithms_lists_all_with_paper_and_graph():
    text = (ROOT / "docs" / "algorithms.md").read_text()
    row = re.compile(r"^\| `([a-z-]+)` \| .+ \| (.+) \| (.+) \| (\S+) \|$", re.M)
    listed = {name: rest for name, *rest in row.findall(text)}
    assert list(listed) == list(ALGORITHMS), "all, in the order of the table"
    for name, (paper, waits_for, graph) in listed.items():
        entry = ALGORITHMS[name]
        number = re.search(r"\d{4}\.\d{4,5}", entry.paper)
        assert (number[0] if entry.paper.startswith("arXiv") else "this suite") in paper
        assert graph == graph_of(entry), name
        awaits = entry.synchronous or "push-sum" in entry.traits
        assert (waits_for in {"no worker", "servers only"}) != awaits, name


def test_the_glossary_explains_the_time_columns_and_every_family_of_staleness():
    text = (ROOT / "docs" / "glossary.md").read_text()
    assert not [name for name in TIME_COLUMNS if f"`{name}`" not in text]
    assert not [name for name in STALENESS if f"| family `{name}` |" not in text]


def test_the_table_of_learning_rates_has_every_algorithm():
    text = (ROOT / "docs" / "measuring.md").read_text()
    section = text.partition("## The learning rate")[2].partition("\n## ")[0]
    named = {
        name
        for row in re.findall(r"^\| (`.+?) \|", section, re.M)
        for name in re.findall(r"`([a-z-]+)`", row)
    }
    forms = {"adpsgd-overlapped", "adpsgd-waitfree", "adpsgd-delta"}  # "and its forms"
    assert named | forms == set(ALGORITHMS)
    divided = re.findall(r"^\| (`.+?) \| .+ \| \*\*lr/n\*\* \|", section, re.M)
    assert set(re.findall(r"`([a-z-]+)`", " ".join(divided))) == {
        name for name, entry in ALGORITHMS.items() if "per-gradient-lr" in entry.traits
    }


def test_the_table_of_bounds_has_every_algorithm_that_has_one():
    page = (ROOT / "docs" / "measuring.md").read_text()
    table = page.partition("| algorithm | bound |")[2].partition("\n\n")[0]
    listed = set(re.findall(r"`([a-z0-9-]+)`", table))
    assert listed == {name for name, entry in ALGORITHMS.items() if entry.bound}


def test_the_trace_format_explains_every_family_of_staleness():
    text = (ROOT / "docs" / "trace-format.md").read_text()
    families = re.findall(r"^\| `(\w+)` \| [^|]{9,} \|.+\| .+ \|$", text, re.M)
    assert set(families) == set(STALENESS)


def test_the_page_on_tests_names_tests_that_are_there_and_every_algorithm():
    """A row names files, and after each the tests in it."""
    rows = re.findall(
        r"^\| (.+?) \| .+ \| (.+) \|$",
        (ROOT / "docs" / "tests.md").read_text(),
        re.MULTILINE,
    )
    source, named = "", set()
    for algorithms, tests in rows:
        named |= set(re.findall(r"[a-z-]+", algorithms))
        for name in re.findall(r"`(test_\w+(?:\.py)?)`", tests):
            if name.endswith(".py"):
                [path] = (ROOT / "tests").glob(f"*/{name}")
                source = path.read_text()
            else:
                assert f"def {name}(" in source, name
    forms = {"adpsgd-overlapped", "adpsgd-delta"}  # "and its forms"
    assert named | forms >= set(ALGORITHMS)


def test_the_page_on_architecture_lists_every_room_and_only_files_that_exist():
    text = (ROOT / "docs" / "architecture.md").read_text()
    package = ROOT / "dsgd_bench"
    rooms = {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
    named = re.findall(r"^\| `(\w+)/` \| \w", text, re.M)
    assert sorted(named) == sorted(rooms)
    files = re.findall(r"`(\w+/[\w/]+\.(?:py|cu))`", text)
    files = [name for name in files if not name.startswith("tests/")]
    assert not [name for name in files if not (package / name).exists()]


@pytest.mark.parametrize(
    "path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_links_between_documents_lead_somewhere(path):
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", path.read_text())
    assert not [link for link in links if not (path.parent / link).exists()]


def test_the_makefile_lists_the_targets_that_documents_name():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {
        name
        for path in DOCUMENTS
        for name in re.findall(r"\bmake ([a-z-]+)\b", path.read_text())
        if re.search(rf"(^ {{4,}}|`)make {name}\b", path.read_text(), re.MULTILINE)
    }
    assert named <= targets
