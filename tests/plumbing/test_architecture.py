"""The rooms of the house: who may import whom, and what every file keeps to."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "dsgd_bench"
FILES = sorted(PACKAGE.rglob("*.py"))

DIRECTION = """
errors rng < io < arrays host spec < graphs problems fabric < exchanges < algorithms
algorithms < config < trace < trial < study < batch
trace < analysis < report
batch report < bench < probe replay < cli
"""
"""Rooms import from those before them; rooms side by side do not know each other."""

PUBLIC = {"__init__", "__main__"}
"""Files above all rooms: what is imported, and what is started."""

APART = {
    "fabric": {"problems"},
    "algorithms": {"problems"},
}
"""Room -> rooms it must not know although the direction would allow it."""

DOORS = {
    "mpi4py": {"fabric/mpi"},
    "greenlet": {"fabric/virtual/scheduler.py"},
    "h5py": {"trace"},
    "cupy": {"arrays/cuda.py", "arrays/memory.py"},
    "cupyx": {"arrays/cuda.py", "arrays/memory.py"},
    "jinja2": {"batch/slurm/script.py"},
    "markupsafe": {"batch/slurm/script.py"},
    "pooch": {"problems/fetch.py"},
    "sklearn": {"problems/formats.py"},
    "torch": {
        "bench/torch_forms.py",
        "problems/torch_memory.py",
        "problems/torch_models.py",
        "problems/torch_problem.py",
        "problems/torch_source.py",
    },
}
"""Foreign library -> the only files or folders that import it."""

LIGHT = (
    "dsgd_bench",
    "dsgd_bench.algorithms",
    "dsgd_bench.cli",
    "dsgd_bench.config",
    "dsgd_bench.graphs",
    "dsgd_bench.study.launch",
    "dsgd_bench.problems",
)
"""Modules that must cost little to import."""

MAX_LINES = 450


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=name_of(path))


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted name of everything a file imports, functions included."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ["dsgd_bench", *path.relative_to(PACKAGE).parent.parts]
            base = package[: len(package) + 1 - node.level] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def rooms_imported(path: Path) -> set[str]:
    ours = (name.split(".") for name in imports(path))
    rooms = {words[1] for words in ours if words[0] == "dsgd_bench" and words[1:]}
    return rooms & ROOMS - {
        room_of(path)
    }  # `from dsgd_bench import __version__` is free


def before() -> dict[str, set[str]]:
    """Return for each room those that it may import from, as `DIRECTION` has them."""
    found: dict[str, set[str]] = {}
    for line in DIRECTION.strip().splitlines():
        earlier: set[str] = set()
        for group in line.split("<"):
            for room in group.split():
                found[room] = found.get(room, set()) | earlier
            earlier |= set(group.split())
            earlier |= set().union(*(found[room] for room in group.split()))
    return found


BEFORE = before()
ROOMS = set(BEFORE)

each_file = pytest.mark.parametrize("path", FILES, ids=name_of)


def test_every_file_has_its_place_in_the_direction():
    assert {room_of(path) for path in FILES} - PUBLIC == ROOMS


@each_file
def test_imports_run_one_way(path):
    room = room_of(path)
    allowed = ROOMS if room == "__main__" else BEFORE.get(room, set())
    assert rooms_imported(path) <= allowed - APART.get(room, set())


@pytest.mark.parametrize(("library", "doors"), DOORS.items())
def test_a_foreign_library_has_one_door(library, doors):
    users = {
        name_of(path)
        for path in FILES
        if library in {name.split(".")[0] for name in imports(path)}
    }
    assert not {user for user in users if not doors & {user, *parents(user)}}


def parents(name: str) -> set[str]:
    return {parent.as_posix() for parent in Path(name).parents}


@each_file
def test_no_file_is_too_long_to_read(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


@each_file
def test_the_package_never_asserts(path):
    lines = [n.lineno for n in ast.walk(tree_of(path)) if isinstance(n, ast.Assert)]
    assert not lines, "an assert vanishes under -O: raise one of dsgd_bench.errors"


def public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Yield public functions and classes; for methods there is the linter."""
    for node in tree.body:
        named = isinstance(node, ast.FunctionDef | ast.ClassDef)
        if named and not node.name.startswith("_"):
            yield node


@each_file
def test_everything_public_has_a_docstring(path):
    tree = tree_of(path)
    missing = [node.name for node in public(tree) if not ast.get_docstring(node)]
    if tree.body and not ast.get_docstring(tree):
        missing.append("the module")
    assert not missing


@pytest.mark.parametrize("module", LIGHT)
def test_importing_does_not_load_heavy_libraries(module):
    heavy = {"mpi4py", "h5py", "matplotlib", "scipy", "sklearn", "rich", "greenlet"}
    heavy |= {"pooch", "requests", "torch"}
    code = f"import sys, {module}; print(*({heavy} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert (done.stdout.split(), done.stderr) == ([], "")


def test_the_bare_package_needs_nothing_but_numpy():
    code = "import sys; sys.modules['msgspec'] = None; import dsgd_bench"
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert done.stderr == ""


ALGORITHM_FILES = [
    path for path in FILES if path.parent.name == "algorithms" and path.stem != "base"
]


@pytest.mark.parametrize("path", ALGORITHM_FILES, ids=name_of)
def test_an_algorithm_is_its_papers_rule_and_nothing_else(path):
    """No clock, no account, no library of messages: the fabric keeps all of that."""
    assert len(path.read_text().splitlines()) <= 150
    names = {node.id for node in ast.walk(tree_of(path)) if isinstance(node, ast.Name)}
    attributes = {
        node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)
    }
    kept_elsewhere = {"now", "ledger", "traffic", "time", "perf_counter", "sleep"}
    assert not (names | attributes) & kept_elsewhere
    foreign = {name.partition(".")[0] for name in imports(path)} - {"dsgd_bench"}
    assert foreign <= {
        "numpy",
        "msgspec",
        "typing",
        "collections",
        "functools",
        "itertools",
        "math",
    }
