"""Files for containers, packagers and experiment managers: short, parsed, and right.

The frameworks themselves are not installed: stand-ins take the names that the files
use, and the regular expressions are run against what the suite really prints.
"""

import ast
import configparser
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import synthetic
import yaml

from dsgd_bench import cli
from dsgd_bench.config import read_study

pytestmark = pytest.mark.usefixtures("any_trace_is_valid")

ROOT = Path(__file__).resolve().parents[2]
CONTRIB = ROOT / "contrib"
FILES = sorted(path for path in CONTRIB.glob("*/*") if path.is_file())
NUMBER = r"([+-]?\d*\.?\d+(?:[eE][-+]?\d+)?)"
"""What JUBE puts for its variable ``jube_pat_fp``."""


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Return what the suite prints for two trials, one of which reached its target."""
    folder = tmp_path_factory.mktemp("results")
    for trial in (
        synthetic.trial("adpsgd", factor=10.0),
        synthetic.trial("adpsgd", factor=20.0, target=0.49),
    ):
        synthetic.save(synthetic.run(trial), folder / "toy")
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("builtins.print", lambda *words, **_: printed.extend(words))
        assert cli.main(["report", str(folder / "toy")]) == 0
    return "\n".join(map(str, printed)) + "\n"


@pytest.fixture
def load(monkeypatch):
    """Return a function that imports a file beside stand-ins for other modules."""

    def imported(path, **modules):
        for name, content in modules.items():
            module = ModuleType(name.replace("__", "."))
            vars(module).update(content)
            monkeypatch.setitem(sys.modules, module.__name__, module)
        spec = importlib.util.spec_from_file_location(f"contrib_{path.stem}", path)
        found = importlib.util.module_from_spec(spec)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        spec.loader.exec_module(found)
        return found

    return imported


def required(extra=""):
    """Return the requirements that setup.cfg states, name -> least version."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    text = setup["options"]["install_requires"]
    if extra:
        text = setup["options.extras_require"][extra]
    return dict(re.findall(r"^([\w-]+)>=([\d.]+)$", text, re.MULTILINE))


def same_version(one, other):
    """Compare "2" with "2.0"."""
    return one.removesuffix(".0") == other.removesuffix(".0")


def test_every_file_is_short_and_the_page_has_its_command():
    page = (CONTRIB / "README.md").read_text()
    assert len(FILES) == 6
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 60
        assert f"({path.relative_to(CONTRIB).as_posix()})" in page


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.suffix == ".py"],
    ids=lambda p: p.parent.name,
)
def test_python_files_can_be_parsed_and_have_one_class(path):
    tree = ast.parse(path.read_text())
    assert len([n for n in tree.body if isinstance(n, ast.ClassDef)]) == 1


def decorator(*_):
    return lambda function: function


def test_the_reframe_test_runs_the_suite_and_reads_its_figures(load, output):
    sanity: dict[str, Callable[..., Any]] = {
        "assert_found": lambda pattern, text: bool(re.search(pattern, text)),
        "extractall": lambda pattern, text, group, kind: [
            kind(match[group]) for match in re.finditer(pattern, text)
        ],
        "evaluate": lambda value: value,
        "make_performance_function": lambda value, unit: (value, unit),
    }
    base = type("RunOnlyRegressionTest", (), {})
    builtins = {
        "deferrable": lambda function: function,
        "parameter": lambda values: values[0],
        "run_before": decorator,
        "sanity_function": lambda function: function,
        "variable": lambda _type, value: value,
    }
    found = load(
        CONTRIB / "reframe" / "dsgd_bench.py",
        reframe={"RunOnlyRegressionTest": base, "simple_test": lambda kind: kind},
        reframe__utility={},
        reframe__utility__sanity=sanity,
        reframe__core={},
        reframe__core__builtins=builtins,
    )
    test = found.DsgdBench()
    test.stdout, test.perf_variables = output, {}
    test.set_command()
    words = [*test.executable.split(), *test.executable_opts]
    assert words[:5] == ["python3", "-P", "-m", "mpi4py", "-m"]
    changes = [words[k + 1].strip("'") for k, w in enumerate(words) if w == "--set"]
    (first, *_) = read_study(Path(test.study), changes).trials
    assert (first.ranks, first.algorithm.kind) == (4, "allreduce")
    assert test.results_are_valid()
    assert not sanity["assert_found"](r"(?m)^DSGD_BENCH_RESULT OK", "no OK here")
    test.set_figures_of_merit()
    assert test.perf_variables.keys() == found.METRICS.keys()
    for value, unit in test.perf_variables.values():
        assert value > -1e-9  # rounding of a share of nothing
        assert unit in ("s", "1")


def test_the_ramble_application_reads_every_trial_in_its_context(load, output):
    asked = {}

    def directive(name):
        return lambda *words, **more: asked.setdefault(name, []).append((words, more))

    names = ["executable", "figure_of_merit", "figure_of_merit_context", "tags"]
    names += ["success_criteria", "workload", "workload_variable"]
    appkit = {name: directive(name) for name in names}
    appkit["ExecutableApplication"] = object
    load(CONTRIB / "ramble" / "application.py", ramble={}, ramble__appkit=appkit)
    assert set(asked) == set(names)
    ((_, template), more) = asked["executable"][0]
    assert more == {"use_mpi": True}
    defined = {words[0] for words, _ in asked["workload_variable"]} | {"n_ranks"}
    assert set(re.findall(r"{(\w+)}", template)) == defined
    ((_, context),) = asked["figure_of_merit_context"]
    lines = output.splitlines()
    trials = {m[1] for m in map(re.compile(context["regex"]).match, lines) if m}
    assert len(trials) == 2
    for (name,), merit in asked["figure_of_merit"]:
        found = [re.match(merit["fom_regex"], line) for line in lines]
        values = [m[merit["group_name"]] for m in found if m]
        assert len(values) == 2, name
        assert all(float(value) > -1e-9 for value in values)
    (((_,), criterion),) = asked["success_criteria"]
    assert [line for line in lines if re.match(criterion["match"], line)] == lines[-1:]


def test_the_spack_package_needs_what_setup_needs(load):
    asked = []
    context = SimpleNamespace(
        __enter__=lambda *_: None,
        __exit__=lambda *_: None,
    )
    context = type("Block", (), vars(context))()
    package = {
        "default_args": lambda **_: context,
        "depends_on": lambda spec, **_: asked.append(spec),
        "license": lambda *_: None,
        "variant": lambda *_, **__: None,
        "version": lambda *_, **__: None,
        "when": lambda _: context,
    }
    load(
        CONTRIB / "spack" / "package.py",
        spack={},
        spack__package=package,
        spack_repo={},
        spack_repo__builtin={},
        spack_repo__builtin__build_systems={},
        spack_repo__builtin__build_systems__python={"PythonPackage": object},
    )
    found = dict(re.findall(r"^py-([\w-]+)@([\d.]+):$", "\n".join(asked), re.MULTILINE))
    found.pop("setuptools")
    wanted = required() | required("report")
    assert found.keys() == wanted.keys()
    assert all(same_version(found[name], wanted[name]) for name in found)
    assert "python@3.11:" in asked


def test_the_conda_environment_needs_what_setup_needs():
    content = yaml.safe_load((CONTRIB / "conda" / "environment.yml").read_text())
    assert content["channels"][0] == "conda-forge"
    *plain, pip = content["dependencies"]
    here = CONTRIB / "conda" / pip["pip"][0]
    assert (here.resolve() / "setup.cfg").exists()
    stated = dict(word.partition(">=")[::2] for word in plain)
    wanted = required() | required("report")
    wanted["matplotlib-base"] = wanted.pop("matplotlib")  # conda's without a GUI
    assert wanted.items() <= stated.items()
    assert "mpich" in stated


def test_the_apptainer_definition_copies_what_there_is_and_starts_the_command():
    text = (CONTRIB / "apptainer" / "dsgd_bench.def").read_text()
    head, *sections = re.split(r"^%", text, flags=re.MULTILINE)
    header = dict(re.findall(r"^(\w+): (\S+)$", head, re.MULTILINE))
    assert header.keys() == {"Bootstrap", "From"}
    bodies = {name: body for name, _, body in (s.partition("\n") for s in sections)}
    known = "files post environment runscript test labels help"
    assert bodies.keys() == set(known.split())
    copied = [line.split() for line in bodies["files"].splitlines() if line.strip()]
    assert all((ROOT / source).exists() for source, _ in copied)
    needed = {"dsgd_bench", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"}
    assert {source for source, target in copied if "/src/" in target} == needed
    assert 'exec dsgd-bench "$@"' in bodies["runscript"]


ELEMENTS = {
    "jube": {"benchmark"},
    "benchmark": {
        *("comment", "parameterset", "fileset", "patternset"),
        *("step", "analyser", "result"),
    },
    "parameterset": {"parameter"},
    "fileset": {"copy"},
    "patternset": {"pattern"},
    "step": {"use", "do"},
    "analyser": {"use", "analyse"},
    "analyse": {"file"},
    "result": {"use", "table"},
    "table": {"column"},
}
"""Elements and what they hold, as far as they are used, from JUBE's jube.dtd."""


def test_the_jube_benchmark_has_jubes_elements_and_patterns_that_match(output):
    tree = ElementTree.parse(CONTRIB / "jube" / "dsgd_bench.xml").getroot()
    for element in tree.iter():
        assert {child.tag for child in element} <= ELEMENTS.get(element.tag, set())
    defined = {e.get("name") for e in tree.iter() if e.get("name")}
    assert {e.text for e in tree.iter("use")} <= defined
    patterns = {e.get("name"): e.text for e in tree.iter("pattern")}
    for name, text in patterns.items():
        pattern = text.replace("$jube_pat_fp", NUMBER)
        assert len(re.findall(pattern, output)) == (1 if name == "result" else 2), name
    columns = {re.sub("_(avg|cnt)$", "", e.text) for e in tree.iter("column")}
    parameters = {e.get("name") for e in tree.iter("parameter")}
    assert columns <= patterns.keys() | parameters
    command = next(tree.iter("do")).text
    assert set(re.findall(r"\$(\w+)", command)) == parameters
    named = {e.get("name"): e.text for e in tree.iter("parameter")}
    changes = ["study.ranks=" + named["ranks"]]
    changes += re.findall(r"'(algorithm=.+?)'", command)
    changes[1] = changes[1].replace("$algorithm", named["algorithm"].split(",")[0])
    (first, *_) = read_study(ROOT / named["file"], changes).trials
    assert (first.ranks, first.algorithm.kind) == (4, "allreduce")
