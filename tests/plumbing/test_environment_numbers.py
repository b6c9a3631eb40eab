"""Numbers that launchers and batch systems leave in the environment, odd ones too."""

import ast
import time
from pathlib import Path

import pytest

from dsgd_bench import cli
from dsgd_bench.cli import verb_parts
from dsgd_bench.config import read_machine
from dsgd_bench.errors import ConfigError
from dsgd_bench.host import environment
from dsgd_bench.spec.machine import Machine
from dsgd_bench.study import launch, stale_segments, stopping

PACKAGE = Path(environment.__file__).parent

ODD = ("2(x1)", "-1", "1.5", "1e3", "x", " 4", "4\n", "²", "٤", "9" * 19, "9" * 5000)
"""What is no whole number for a launcher, some of which Python would take for one."""

STUDY = """
[study]
ranks = 2
budget = { steps = 3 }
[problem]
kind = "quadratic"
[algorithm]
kind = "allreduce"
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """Leave no variable of a launcher, and a small study in the working folder."""
    for name in (*environment.COUNTED, stopping.END, stopping.FILE, "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    Path("study.toml").write_text(STUDY)


def test_an_empty_variable_counts_as_not_set():
    for name in environment.COUNTED:
        assert environment.number(name, {name: ""}) is None
        assert environment.number(name, {}) is None


def test_a_number_is_a_number():
    assert environment.number("PMI_SIZE", {"PMI_SIZE": "12"}) == 12
    assert environment.number("PMI_RANK", {"PMI_RANK": "0"}) == 0
    with pytest.raises(ConfigError, match=r"PMI_SIZE is '0' .* at least 1"):
        environment.number("PMI_SIZE", {"PMI_SIZE": "0"})


@pytest.mark.parametrize("name", environment.COUNTED)
@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_odd_environment_numbers_are_refused_by_name_before_anything_is_made(
    name, text, monkeypatch, capsys
):
    monkeypatch.setenv(name, text)
    assert cli.main(["run", "study.toml"]) == cli.REFUSED
    said = capsys.readouterr().err
    assert said.startswith(f"dsgd-bench: the environment variable {name} is '")
    assert said.count("\n") == 1
    assert len(said) < 300
    assert not Path("results").exists()


@pytest.mark.parametrize("text", [text for text in ODD if text.strip() == text])
def test_an_odd_number_of_threads_is_refused_and_a_list_is_openmps(text, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    with pytest.raises(ConfigError, match="OMP_NUM_THREADS"):
        environment.threads()
    for value, threads in (("4,2", 4), ("", 1), (" 3 ", 3)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert environment.threads() == threads


def test_whatever_starts_ranks_minds_empty_and_odd_numbers():
    machine = Machine(launcher=("srun", "--mpi=pmi2", "-n", "{ranks}"))
    empty = dict.fromkeys(("SLURM_RESTART_COUNT", "SLURM_JOB_NUM_NODES"), "")
    assert stale_segments.words(machine, empty) == []
    assert "--nodes=1" in stale_segments.words(
        machine, empty | {"SLURM_RESTART_COUNT": "1"}
    )
    with pytest.raises(ConfigError, match="SLURM_RESTART_COUNT"):
        stale_segments.words(machine, {"SLURM_RESTART_COUNT": "one"})
    assert not launch.shares_cores(1, Machine(), empty)
    with pytest.raises(ConfigError, match="SLURM_JOB_NUM_NODES"):
        launch.shares_cores(1, Machine(), {"SLURM_JOB_NUM_NODES": "2(x1)"})


# --- the end of the job ---


@pytest.mark.parametrize("ends", ["1700000000", "0", "9" * 3])
def test_an_end_in_the_past_is_named_and_promises_nothing(ends, monkeypatch, capsys):
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setenv(stopping.END, ends)
    assert cli.main(["run", "study.toml"]) == cli.REFUSED
    said = capsys.readouterr().err
    assert f"{stopping.END} is {ends} (" in said
    assert "in the past" in said
    assert "goes on" not in said
    assert not Path("results").exists()


def test_an_end_that_is_near_still_stops_the_study(monkeypatch, capsys):
    monkeypatch.setenv(stopping.END, str(int(time.time()) + 30))
    assert cli.main(["run", "study.toml"]) == verb_parts.STOPPED
    assert "the same command goes on" in capsys.readouterr().out


@pytest.mark.parametrize("ends", ["", "Unknown", "NONE", "N/A"])
def test_a_job_without_an_end_does_not_end(ends, monkeypatch):
    monkeypatch.setenv(stopping.END, ends)
    assert not stopping.expected()
    assert not stopping.due(60.0)
    stopping.refuse_past()


@pytest.mark.parametrize("ends", ["tomorrow", "1.7e9", "-5", "2030-01-01T00:00:00"])
def test_an_end_that_is_no_time_is_refused(ends, monkeypatch, capsys):
    monkeypatch.setenv(stopping.END, ends)
    assert cli.main(["run", "study.toml"]) == cli.REFUSED
    assert f"{stopping.END} is {ends!r}" in capsys.readouterr().err


# --- what a machine file gives to ranks ---


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[env]\n"A=B" = "1"', "env has the name 'A=B'"),
        ('[env]\n"" = "1"', "env has the name ''"),
        ('[env]\n"A\\u0000" = "1"', "env has a NUL character"),
        ('[env]\nA = "x\\u0000y"', "env.A has a NUL character"),
        ('launcher = ["mpiexec\\u0000", "{ranks}"]', "launcher has a NUL character"),
    ],
)
def test_odd_environment_names_in_a_machine_file_are_refused(text, said, tmp_path):
    path = tmp_path / "machine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_machine(path)
    assert str(caught.value).startswith(f"{path}: {said}")
    assert "\n" not in str(caught.value)


# --- one function reads them all ---

READS = {"environ", "getenv", "variables", "inherited"}
"""Names under which the environment is known in this package."""

TURNS = {"int", "float", "isdigit", "isdecimal", "isnumeric"}
"""What makes numbers of texts, and what would ask whether that can be done."""

MAY = {"environment.py:number"}


def names(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            yield getattr(function, "id", None) or getattr(function, "attr", "")


def functions(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            yield node


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name
)
def test_only_one_function_makes_a_number_of_the_environment(path):
    """Found by form: who reads the environment does not turn texts into numbers."""
    found = {
        f"{path.relative_to(PACKAGE)}:{function.name}"
        for function in functions(path)
        if READS & set(names(function)) and TURNS & set(calls(function))
    }
    assert found <= MAY, "read it with environment.number"
