"""The rooms of the house: who may import whom, and what every file keeps to."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "dsgd_bench"
FILES = sorted(PACKAGE.rglob("*.py"))

DIRECTION = """
errors rng < io < arrays host spec < graphs problems slowdowns fabric
graphs problems slowdowns fabric < exchanges < algorithms
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
    "greenlet": {"fabric/virtual/mailbox.py", "fabric/virtual/scheduler.py"},
    "h5py": {"trace"},
    "cupy": {"arrays/cuda.py", "arrays/memory.py"},
    "cupyx": {"arrays/cuda.py", "arrays/memory.py"},
    "jinja2": {"batch/slurm/script.py", "report/renderers.py"},
    "markupsafe": {"batch/slurm/script.py", "report/renderers.py"},
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

MAX_LINES = 400
MAX_BODY = 40


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=name_of(path))


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Return the dotted name of everything a file imports, functions included."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ["dsgd_bench", *path.relative_to(PACKAGE).parent.parts]
            base = package[: len(package) + 1 - node.level] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def module_of(path: Path) -> str:
    words = ("dsgd_bench", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(words).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def files_imported(path: Path) -> set[str]:
    """Return the modules of ours that a file imports, for types only included."""
    found = set()
    for imported in imports(path):
        words = imported.split(".")
        while words and ".".join(words) not in MODULES:
            words.pop()
        found.add(".".join(words))
    return found - {"", module_of(path)}


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Return the sets of nodes that reach each other: Tarjan's algorithm."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for other in sorted(arrows[node]):
            if other not in order:
                visit(other)
            if other in stack:
                lowest[node] = min(lowest[node], lowest[other])
        if lowest[node] == order[node]:
            start = stack.index(node)
            found.append(sorted(stack[start:]))
            del stack[start:]

    for node in arrows:
        if node not in order:
            visit(node)
    return [group for group in found if len(group) > 1]


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


def test_every_file_has_its_place_in_the_direction():
    assert {room_of(path) for path in FILES} - PUBLIC == ROOMS


def may_import(room: str) -> set[str]:
    allowed = ROOMS if room == "__main__" else BEFORE.get(room, set())
    return allowed - APART.get(room, set())


def test_no_files_import_each_other_in_a_circle():
    assert not circles({module_of(path): files_imported(path) for path in FILES})


def test_a_circle_is_found_however_long_it_is():
    arrows = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": set()}
    assert circles(arrows) == [["a", "b", "c"]]


def test_imports_run_one_way():
    against = {
        name_of(path): sorted(rooms_imported(path) - may_import(room_of(path)))
        for path in FILES
    }
    assert {name: rooms for name, rooms in against.items() if rooms} == {}


@pytest.mark.parametrize("file", ["updates.py", "layers.py"])
def test_every_operation_on_vectors_is_used_by_more_than_benchmarks(file):
    """A kernel that only its test and its benchmark call has no use."""
    offered = {
        node.name
        for node in tree_of(PACKAGE / "arrays" / file).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }
    used = {
        getattr(node, "attr", getattr(node, "id", ""))
        for path in FILES
        if room_of(path) not in {"arrays", "bench"}
        for node in ast.walk(tree_of(path))
    }
    assert not offered - used


def test_a_foreign_library_has_one_door():
    past = []
    for path in FILES:
        user = name_of(path)
        libraries = {name.split(".")[0] for name in imports(path)} & DOORS.keys()
        past += [
            (user, library)
            for library in sorted(libraries)
            if not DOORS[library] & {user, *parents(user)}
        ]
    assert past == []


def parents(name: str) -> set[str]:
    return {parent.as_posix() for parent in Path(name).parents}


def test_no_file_is_too_long_to_read():
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def body_of(function: ast.FunctionDef) -> int:
    """Return the lines of a function after its docstring."""
    own = function.body[1:] if ast.get_docstring(function) else function.body
    return (own[-1].end_lineno or 0) - own[0].lineno + 1 if own else 0


def test_no_body_is_too_long_to_read():
    bodies = {
        f"{name_of(path)}: {node.name}": body_of(node)
        for path in FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef)
    }
    assert {name: lines for name, lines in bodies.items() if lines > MAX_BODY} == {}


def test_the_package_never_asserts():
    """An assert vanishes under -O; errors are those of dsgd_bench.errors."""
    assert [
        f"{name_of(path)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Assert)
    ] == []


def is_one_sentence(node: ast.expr) -> bool:
    """Tell whether a text has one line, and no full stop at its end."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    texts = [
        str(part.value) if isinstance(part, ast.Constant) else "" for part in parts
    ]
    return not any("\n" in text for text in texts) and not texts[-1].endswith(".")


def test_errors_are_one_line_without_a_full_stop():
    assert [
        f"{name_of(path)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
        if not all(map(is_one_sentence, node.exc.args[:1]))
    ] == []


def test_two_lines_and_a_full_stop_are_no_error_of_ours():
    texts = "'one'", "f'{x}. two'", "'a\\nb'", "f'{x} is wrong.'"
    found = [is_one_sentence(ast.parse(text, mode="eval").body) for text in texts]
    assert found == [True, True, False, False]


WALKS = {"glob", "rglob", "scandir", "walk"}


def stops_early(call: ast.Call) -> bool:
    """Tell whether a call asks a walk through folders for less than all of it."""
    inside = {
        node.func.attr
        for argument in call.args[:1]
        for node in ast.walk(argument)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    return ast.unparse(call.func) in {"any", "all", "next"} and bool(WALKS & inside)


def test_walks_through_folders_go_to_their_ends():
    """One that stops early keeps its folder open until memory is tidied up."""
    assert [
        f"{name_of(path)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and stops_early(node)
    ] == []


def test_a_walk_that_stops_early_is_found():
    texts = "any(x.glob('*'))", "next(one for one in os.scandir(x))", "list(x.glob(y))"
    trees = [ast.walk(ast.parse(text)) for text in texts]
    calls = [next(n for n in tree if isinstance(n, ast.Call)) for tree in trees]
    assert [stops_early(call) for call in calls] == [True, True, False]


SKIPS = {"skip", "mark.skip", "mark.skipif", "mark.xfail", "importorskip"}


def test_a_skipped_test_gives_its_reason():
    silent = []
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func).removeprefix("pytest.")
            told = any(word.arg == "reason" for word in node.keywords)
            if name in SKIPS and not told and not (name == "skip" and node.args):
                silent.append(f"{path.name}:{node.lineno}")
    assert silent == []


NAMES = re.compile(r"trace\.h5|log\.txt|job\.json|rank-.*\.h5|\.claim$|\.lock$")
WHOLE_NAMES = {"READY", "ERROR", "STOPPED", "checkpoint"}
"""Marks and folders of a trial's folder; as parts of sentences they are words."""

OTHER_WORDS = {
    ("batch/slurm/states.py", "STOPPED"),
    ("trace/__init__.py", "checkpoint"),
}
"""A state of Slurm, and a module."""


def texts(path: Path) -> Iterator[str]:
    """Yield the texts in a file's code: no docstrings, and no explanations of names."""
    tree = tree_of(path)
    nodes = list(ast.walk(tree))
    bare = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and id(node) not in bare:
            yield from [node.value] if isinstance(node.value, str) else []


def test_names_in_a_trials_folder_are_spelled_in_one_file():
    assert [
        f"{name_of(path)}: {text}"
        for path in FILES
        if name_of(path) != "io/trial_folder.py"
        for text in texts(path)
        if NAMES.search(text) or text in WHOLE_NAMES
        if (name_of(path), text) not in OTHER_WORDS
    ] == []
    declared = list(texts(PACKAGE / "io" / "trial_folder.py"))
    assert {"trace.h5", "job.json", "rank-*.h5", *WHOLE_NAMES} <= set(declared)


Definition = ast.FunctionDef | ast.ClassDef


def public(node: ast.Module | ast.ClassDef) -> list[Definition]:
    """Return public functions, classes or methods; who reads may write, too."""
    return [
        each
        for each in node.body
        if isinstance(each, Definition)
        and not each.name.startswith("_")
        and not any(ast.unparse(d).endswith(".setter") for d in each.decorator_list)
    ]


CLASSES = {
    node.name: node
    for path in FILES
    for node in tree_of(path).body
    if isinstance(node, ast.ClassDef)
}


def promised(node: ast.ClassDef) -> set[str]:
    """Return the methods that another class describes, for this one to have.

    Those of its bases, and of the protocol that its docstring begins with: that of
    `MpiWindow` begins with ```base.Window```.
    """
    bases = [ast.unparse(base).partition("[")[0] for base in node.bases]
    first = (ast.get_docstring(node) or "").split("`")
    if len(first) > 1 and not first[0]:
        bases.append(first[1])
    found: set[str] = set()
    for base in bases:
        known = CLASSES.get(base.rpartition(".")[2])
        if known is not None and known is not node:
            found |= promised(known)
            found |= {each.name for each in public(known) if ast.get_docstring(each)}
    return found


def bare(path: Path) -> Iterator[str]:
    """Yield what is public in a file, and has no docstring of its own or inherited."""
    tree = tree_of(path)
    if tree.body and not ast.get_docstring(tree):
        yield "the module"
    for node in public(tree):
        if not ast.get_docstring(node):
            yield node.name
        if isinstance(node, ast.ClassDef):
            inherited = promised(node)
            for method in public(node):
                if not ast.get_docstring(method) and method.name not in inherited:
                    yield f"{node.name}.{method.name}"


def test_everything_public_has_a_docstring():
    assert [f"{name_of(path)}: {name}" for path in FILES for name in bare(path)] == []


@pytest.mark.parametrize("module", LIGHT)
def test_importing_does_not_load_heavy_libraries(module):
    heavy = {"mpi4py", "h5py", "matplotlib", "scipy", "sklearn", "rich", "greenlet"}
    heavy |= {"pooch", "requests", "torch"}
    code = f"""if True:
        import sys
        before = {{*sys.modules}}  # a tool that measures may have loaded some
        import {module}
        print(*({heavy} & (sys.modules.keys() - before)))"""
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


SHARED = {"base", "facts", "bounds"}
"""What algorithms stand on: no rule of a paper is in there."""

ALGORITHM_FILES = [
    path
    for path in FILES
    if path.parent.name == "algorithms" and path.stem not in SHARED
]


KEPT_ELSEWHERE = {"now", "ledger", "traffic", "time", "perf_counter", "sleep"}
FOREIGN = {
    "numpy",
    "msgspec",
    "typing",
    "collections",
    "functools",
    "itertools",
    "math",
}


def test_an_algorithm_is_short():
    lengths = {
        name_of(path): len(path.read_text().splitlines()) for path in ALGORITHM_FILES
    }
    assert {name: lines for name, lines in lengths.items() if lines > 150} == {}


def test_an_algorithm_is_its_papers_rule_and_nothing_else():
    """No clock, no account, no library of messages: the fabric keeps all of that."""
    beyond = {}
    for path in ALGORITHM_FILES:
        nodes = list(ast.walk(tree_of(path)))
        used = {node.id for node in nodes if isinstance(node, ast.Name)}
        used |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        foreign = {name.partition(".")[0] for name in imports(path)} - {"dsgd_bench"}
        beyond[name_of(path)] = used & KEPT_ELSEWHERE | foreign - FOREIGN
    assert {name: words for name, words in beyond.items() if words} == {}
