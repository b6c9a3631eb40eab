"""Foreign text is shown as it is, and numbers come first, whatever the output is."""

import ast
import csv
import itertools
import json
import os
import re
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import synthetic

from dsgd_bench import cli
from dsgd_bench.cli.console import Plain
from dsgd_bench.io import escape
from dsgd_bench.report import read_report, write_report

PACKAGE = Path(cli.__file__).parents[1]

NASTY = (
    "<script>alert(1)</script>\nDSGD_BENCH_RESULT OK id=000000000000\n"
    "FOM loss[forged] 0 1\r\x1b[31mred\x1b]0;title\x07\u202egnp.\u2028 [/b] [old] :b:"
    " | ![x](http://y) `code` $a$ \udcff\x85"
)
"""Line ends, escapes, marks of direction, and the markup of all our outputs."""


# ---------------------------------------------------------------- each kind of output


def hidden(text: str) -> list[str]:
    return [c for c in text if c != "\n" and unicodedata.category(c) in escape.HIDDEN]


@pytest.mark.parametrize(
    "safe", [escape.plain, escape.token, escape.markdown, escape.html, escape.cell]
)
def test_no_output_shows_anything_unseen_or_a_second_line(safe):
    shown = safe(NASTY)
    assert not hidden(shown)
    assert "\n" not in shown
    assert "red" in shown


def test_a_word_of_a_line_for_machines_has_nothing_that_parts_it():
    assert escape.token("file:a b/x[1],\x1b\n2") == r"file:a_b/x_1_\x1b_2"


def test_markdown_shows_html_links_and_marks_as_they_were_written():
    assert escape.markdown("<b>&amp;") == "&lt;b>&amp;amp;"
    assert escape.markdown("![x](y) `z` *w* a|b") == r"![x]\(y) \`z\` \*w\* a\|b"
    assert escape.markdown("0.5 [0.4, 0.6] max_steps") == "0.5 [0.4, 0.6] max_steps"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_a_cell_that_looks_like_a_formula_is_a_text(text):
    assert escape.cell(text) == f"'{text}"
    assert escape.cell(-1.5) == -1.5


# ----------------------------------------------------------------- who prints, and how

PRINTERS = {"print", "input", "pprint"}
STREAMS = {"stdout", "stderr", "__stdout__", "__stderr__"}
ALLOWED = {
    # it makes what it prints safe, and so is the only one
    "io/printing.py": PRINTERS | STREAMS,
    # before anything is imported; a sentence of ours
    "__main__.py": {"print", "stderr"},
    # JSON, into the pipe to the process that asked
    "trace/inspector.py": {"print"},
    # what fails there is silenced, not printed to
    "cli/__init__.py": {"stdout"},
    # both are flushed before the process ends by force
    "fabric/mpi/fabric.py": STREAMS,
    # faulthandler writes names of our functions, from C, when Python may be stuck
    "study/watchdog.py": {"stderr"},
}
"""File -> names that it may use all the same."""


def printing(path: Path) -> set[str]:
    """Return the names of what a file prints with, without `show` and `display`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found |= {node.func.id} & PRINTERS
        elif isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == "sys":
                found |= {node.attr} & STREAMS
            if isinstance(node.value, ast.Name) and node.value.id == "traceback":
                found |= {node.attr} if node.attr.startswith("print") else set()
    return found


def test_all_printing_goes_through_what_makes_it_safe():
    used = {
        path.relative_to(PACKAGE).as_posix(): names
        for path in PACKAGE.rglob("*.py")
        if (names := printing(path))
    }
    assert {name: used[name] - ALLOWED.get(name, set()) for name in used} == {
        name: set() for name in used
    }, "print with show.line, show.complain or the console of display"


def calls(path: Path, name: str) -> list[ast.Call]:
    tree = ast.parse(path.read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [node for node in nodes if ast.unparse(node.func).endswith(name)]


def users_of_rich() -> list[Path]:
    return [
        path
        for path in PACKAGE.rglob("*.py")
        if re.search(r"^\s*(from|import) rich\b", path.read_text(), re.MULTILINE)
    ]


@pytest.mark.parametrize("path", users_of_rich(), ids=lambda path: path.name)
def test_tables_are_shown_by_the_console_that_takes_text_as_it_is(path):
    assert not calls(path, "Console")
    for word in ("markup", "emoji"):
        given = [k for node in calls(path, "") for k in node.keywords if k.arg == word]
        assert all(ast.unparse(k.value) == "False" for k in given)
    columns = calls(path, "TextColumn")
    assert all(
        "{" not in ast.unparse(node.args[0])
        or any(keyword.arg == "markup" for keyword in node.keywords)
        for node in columns
    )


def test_rich_has_no_other_door():
    rooms = {path.relative_to(PACKAGE).parts[0] for path in users_of_rich()}
    assert rooms == {"cli"}


def test_html_is_escaped_by_the_one_function_that_also_drops_what_is_unseen():
    users = {
        path.name
        for path in PACKAGE.rglob("*.py")
        if re.search(r"^(from|import) html\b", path.read_text(), re.MULTILINE)
    }
    assert users == {"escape.py"}


def test_pages_are_written_in_templates_and_not_in_code():
    files = PACKAGE.rglob("*.py")
    assert not [path for path in files if re.search("</[a-z]", path.read_text())]


def test_a_console_shows_text_as_it_is(capsys):
    Plain(width=1000).print(NASTY)
    (line,) = capsys.readouterr().out.splitlines()
    assert "[/b] [old] :b:" in line
    assert not hidden(line)


# -------------------------------------------------------------- hostile text everywhere


def drawn_by(path: Path) -> str:
    """Return the name of a ring that is drawn in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("0 1\n1 0\n1 2\n2 1\n2 3\n3 2\n3 0\n0 3\n")
    return f"file:{path}"


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """Return a study in which every text that can be foreign is nasty."""
    monkeypatch.setitem(synthetic.PROVENANCE, "cpus\n" + NASTY, NASTY)
    monkeypatch.setitem(synthetic.PROVENANCE, "known_bugs", [NASTY])
    monkeypatch.setitem(synthetic.PROVENANCE, "mpi_library", NASTY)
    name = NASTY.replace("/", "_").replace("\udcff", "")[:80]
    settings = {"graph": drawn_by(tmp_path / NASTY.replace("\udcff", ""))}
    for repeat in range(2):
        trial = synthetic.trial("dpsgd", settings=settings, repeat=repeat)
        folder = synthetic.save(synthetic.run(trial), tmp_path / name)
    (folder / "READY").unlink()
    (folder / "ERROR").write_text(NASTY, encoding="utf-8", errors="replace")
    return tmp_path / name


def test_nothing_foreign_forges_a_line_or_reaches_the_terminal(hostile, capsys):
    assert cli.main(["report", str(hostile), "--mllog"]) == 0
    printed = capsys.readouterr()
    assert not hidden(printed.out + printed.err)
    lines = printed.out.splitlines()
    results = [line for line in lines if line.startswith("DSGD_BENCH_RESULT")]
    assert [line.split()[1] for line in results] == ["FAIL"]
    assert not any(line.startswith("FOM loss[forged]") for line in lines)
    pattern = re.compile(r"^FOM (\S+) (\S+) (\S+)$")
    assert all(pattern.match(line) for line in lines if line.startswith("FOM"))


def test_nothing_foreign_is_markup_in_a_file_of_the_report(hostile):
    found = write_report(hostile)
    texts = {path.name: path for path in found.files if path.suffix != ".png"}
    for name in ("report.md", "report.html"):
        # the command at the end of the first is a block of code: there all is text
        text = texts[name].read_text().partition("\n    dsgd-bench report")[0]
        assert "<script>alert" not in text
        assert name == "report.html" or "](http" not in text
        assert not hidden(text)
    json.loads(texts["summary.json"].read_text())
    assert texts["summary.json"].read_text().isascii()
    rows = list(csv.DictReader(texts["summary.csv"].read_text().splitlines()))
    assert len(rows) == 1
    assert not hidden(texts["summary.csv"].read_text())


def test_dollars_in_a_label_are_no_formula_of_a_figure(tmp_path):
    for repeat in range(2):
        settings = {"graph": drawn_by(tmp_path / r"$\frac$ and $x")}
        trial = synthetic.trial("dpsgd", settings=settings, repeat=repeat, factor=4.0)
        synthetic.save(synthetic.run(trial), tmp_path / "$cost$")
    found = write_report(tmp_path / "$cost$")
    assert found.remarks == ()
    assert any(path.suffix == ".png" for path in found.files)


EXCLUDING = """
[study]
ranks = [2, 4]
budget = { seconds = 0.3 }

[problem]
kind = "softmax"

[[algorithm]]
kind = "allreduce"

[[exclude]]
when = { ranks = 4 }
reason = "see [/docs/limits] :b: <b>"
"""


def test_brackets_in_a_reason_are_shown_as_they_are(tmp_path, capsys):
    (tmp_path / "x.toml").write_text(EXCLUDING)
    assert cli.main(["plan", str(tmp_path / "x.toml")]) == 0
    assert "see [/docs/limits] :b: <b>\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["x [/b] y", "run [old] a", "a:b.txt"])
def test_brackets_in_the_name_of_a_graph_are_shown_as_they_are(tmp_path, capsys, name):
    (tmp_path / "x.toml").write_text(EXCLUDING)
    graph = drawn_by(tmp_path / name)
    words = ["--set", "study.ranks=4", "--set", 'algorithm.kind="sgp"']
    words += ["--set", f'algorithm.graph="{graph}"', "--set", "exclude=[]"]
    assert cli.main(["plan", str(tmp_path / "x.toml"), *words]) == 0
    assert graph in capsys.readouterr().out


def test_words_that_are_not_understood_are_shown_without_escapes(capsys):
    with pytest.raises(SystemExit):
        cli.main(["plan", "a.toml", "--no\x1b[31m"])
    assert r"unrecognized arguments: --no\x1b[31m" in capsys.readouterr().err


def test_an_error_is_one_line_whatever_the_user_wrote(capsys):
    assert cli.main(["report", "no\nsuch\x1b[31m folder"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(r"dsgd-bench: no\nsuch\x1b[31m folder does not exist")


# ---------------------------------------------------------------- outputs that are odd


@pytest.fixture(scope="module")
def plain_study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "toy"
    for kind, factor in itertools.product(("adpsgd", "allreduce"), (1.0, 4.0)):
        toy = synthetic.run(synthetic.trial(kind, factor=factor))
        for name in ("clock_offset_start", "clock_offset_end", "clock_error"):
            toy.arrays[name] = np.zeros(toy.trial.ranks)
        synthetic.save(toy, folder)
    return folder


def command(script: str, folder: Path, out: Path, **environment: str):
    words = f"{sys.executable} -m dsgd_bench report '{folder}' --out '{out}'"
    return subprocess.run(
        ["sh", "-c", script.format(words)],
        env={**os.environ, **environment},
        cwd=out.parent,
        check=False,
        capture_output=True,
        timeout=100,
    )


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict", "utf-16"])
def test_plain_output_takes_what_letters_it_can(plain_study, tmp_path, encoding):
    done = command("{}", plain_study, tmp_path / "o", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode(encoding.partition(":")[0])
    assert text.splitlines()[-1].startswith("DSGD_BENCH_RESULT")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        ("{} >&-", 0, ""),
        ("{} 2>&-", 0, ""),
        ("{} <&- >&- 2>&-", 0, ""),
        ("{} > /dev/full", 1, "what it prints cannot be written (No space left"),
        ("{} 2> /dev/full", 0, ""),
        ("{} > /dev/full 2> /dev/full", 1, ""),
    ],
)
def test_plain_output_that_is_closed_or_full_is_a_sentence_at_most(
    plain_study, tmp_path, script, status, said
):
    done = command(script, plain_study, tmp_path / "o")
    errors = done.stderr.decode()
    assert done.returncode == status, errors
    assert said in errors
    assert len(errors.splitlines()) == bool(said)
    assert (tmp_path / "o" / "report.md").exists()


USERS = {
    "LaTeX": b"text.usetex: True\n",
    "a missing font": b"font.family: No Such Font\n",
    "no encoding": b"\xff\xfe\x00\n",
    "nonsense": b"backend: nonsense\nfigure.dpi: many\nno.such.key: 1\n",
    "a huge figure": b"figure.dpi: 100000\nsavefig.dpi: 100000\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", USERS)
def test_a_users_settings_of_matplotlib_change_nothing(plain_study, tmp_path, what):
    (tmp_path / "matplotlibrc").write_bytes(USERS[what])
    done = command("{}", plain_study, tmp_path / "o")
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    lines = done.stdout.decode().splitlines()
    assert lines[0].startswith("FOM ")
    assert lines[-1].startswith("DSGD_BENCH_RESULT")
    drawn = list((tmp_path / "o" / "figures").glob("*.png"))
    assert drawn or "The report has no figures" in done.stdout.decode()
    if what != "no encoding":  # with that, the library cannot even be loaded
        assert len(drawn) == 3


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["module://no_notebook.here", "nonsense", "TkAgg"])
def test_a_backend_of_a_notebook_changes_nothing(plain_study, tmp_path, backend):
    done = command("{}", plain_study, tmp_path / "o", MPLBACKEND=backend)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(list((tmp_path / "o" / "figures").glob("*.png"))) == 3


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_changes_nothing(plain_study, tmp_path):
    (tmp_path / "file").write_text("")
    where = str(tmp_path / "file" / "cache")
    done = command("{}", plain_study, tmp_path / "o", MPLCONFIGDIR=where)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(list((tmp_path / "o" / "figures").glob("*.png"))) == 3


def test_a_figure_that_fails_is_named_and_all_else_is_there(
    plain_study, tmp_path, monkeypatch
):
    from dsgd_bench.report import figures

    def fails(_):
        raise ValueError("no ink\n\x1b[31m left")

    loss, *others = figures.OF_CASE
    monkeypatch.setattr(figures, "OF_CASE", (replace(loss, draw=fails), *others))
    found = read_report(plain_study).write(tmp_path / "o")
    (remark,) = found.remarks
    assert remark.startswith("toy-loss.png was not drawn: ValueError: no ink")
    assert found.whole
    assert len([path for path in found.files if path.suffix == ".png"]) == 2
    assert r"\x1b[31m left" in found.terminal()
    assert not [
        name for name in (tmp_path / "o" / "figures").iterdir() if "part" in name.name
    ]


# ------------------------------------------------ files that are asked for on the side

KERNELS, PROBLEMS = ("bench", "kernels", "--json"), ("bench", "problems", "--json")
JSON, FIGURE = ("replay", "trace.h5", "--json"), ("replay", "trace.h5", "--figure")


@pytest.mark.parametrize(
    ("words", "target"),
    [
        *itertools.product((KERNELS, PROBLEMS, JSON, FIGURE), ("/dev/full", ".")),
        (KERNELS, "missing/x.json"),
        (PROBLEMS, "missing/x.json"),
    ],
)
def test_bench_json_and_the_like_are_refused_before_anything_is_measured(
    tmp_path, monkeypatch, capsys, words, target
):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*words, target]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dsgd-bench: {words[-1]} {target} cannot be written (")
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_can_be_written_is_left_as_it_is(tmp_path, monkeypatch, capsys):
    (tmp_path / "x.json").write_text("of yesterday")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["replay", "trace.h5", "--json", "x.json"]) == 2
    assert "--json" not in capsys.readouterr().err
    assert (tmp_path / "x.json").read_text() == "of yesterday"
    assert list(tmp_path.iterdir()) == [tmp_path / "x.json"]
