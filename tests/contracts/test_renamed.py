"""Nothing is known of an algorithm by its name: a copy under another fares alike."""

import ast
import functools
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Ranks
from driving import walk

import dsgd_bench
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.analysis.bounds import bound
from dsgd_bench.analysis.comparison import compare
from dsgd_bench.analysis.expectations import judge
from dsgd_bench.analysis.links import Links
from dsgd_bench.analysis.speed import counted_bytes
from dsgd_bench.analysis.summary import combine, summarize
from dsgd_bench.analysis.verify import verify
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual.fabric import Network, World
from dsgd_bench.report import tables
from dsgd_bench.spec.trial import (
    AlgorithmSpec,
    BudgetSpec,
    ComputeSpec,
    MeasureSpec,
    ProblemSpec,
    SlowdownSpec,
    Trial,
)
from dsgd_bench.trace import Trace, open_trace
from dsgd_bench.trial.run import Run

COPY = "under-another-name"
RANKS, FACTORS = 4, (1.0, 5.0)
NETWORK = Network(latency=20e-6, bandwidth=1e8)
LINKS = Links(("a", "b", "c", "d"), 1e6, {})
EXCEPTIONS = {("probe", "allreduce")}
"""Room, word: the operation of MPI that is measured there has the same name."""


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that enters an algorithm under another name, too."""

    def enter(kind: str) -> None:
        monkeypatch.setitem(ALGORITHMS, COPY, replace(ALGORITHMS[kind], name=COPY))

    return enter


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Trace]:
    """Return a function that runs a trial in virtual time, rank 0 slowed; once each."""

    @functools.cache
    def once(kind: str, factor: float, warm_up: int | None) -> Trace:
        settings = {} if warm_up is None else {"warmup": warm_up}
        trial = Trial(
            ranks=RANKS,
            algorithm=AlgorithmSpec(kind, settings),
            problem=ProblemSpec("quadratic", settings={"dimension": 200}),
            compute=ComputeSpec("emulated", 0.01),
            slowdown=SlowdownSpec("constant", (0,), factor),
            budget=BudgetSpec(steps=12),
            measure=MeasureSpec(target_loss=1e-3, copies=8),
        )
        folder = tmp_path_factory.mktemp(kind)
        World(RANKS, NETWORK).run(Run(trial, folder, "toy", "none", {}))
        return open_trace(folder / "trace.h5")

    def run(kind: str, factor: float, warm_up: int | None) -> Trace:
        if kind == COPY:  # another algorithm each time
            return once.__wrapped__(kind, factor, warm_up)
        return once(kind, factor, warm_up)

    return run


def told(kind: str, recorded: Callable[..., Trace], *, copy: bool) -> dict[str, Any]:
    """Return all that is said of an algorithm, or its copy, and of its runs."""
    warm_up = 3 if "warmup" in ALGORITHMS[kind].settings else None
    own = [recorded(COPY if copy else kind, factor, warm_up) for factor in FACTORS]
    rows = [summarize(trace) for trace in own]
    lines = compare(combine(rows))
    return {
        "verification": [verify(trace).checks for trace in own],
        "expectations": judge(lines),
        "bounds": [bound(trace.trial, 1000, LINKS) for trace in own],
        "counted": [counted_bytes(trace) for trace in own],
        "lines": [tables.results(lines).cells, tables.work(lines).cells],
    }


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_the_same_is_said_of_an_algorithm_and_of_its_copy_under_another_name(
    kind: str, recorded: Callable[..., Trace], copied: Any
) -> None:
    copied(kind)
    original, copy = told(kind, recorded, copy=False), told(kind, recorded, copy=True)
    assert all(check.passed for checks in copy["verification"] for check in checks)
    for name in original:
        assert repr(copy[name]).replace(COPY, kind) == repr(original[name]), name


def test_a_copy_takes_the_same_steps_everywhere(
    world: Ranks, size: int, copied: Any
) -> None:
    copied("dpsgd")

    def work(kind: str) -> Any:
        def both(fabric: Fabric) -> Any:
            return walk(fabric, kind, steps=4)

        return world.together(size, both)

    for one, other in zip(work("dpsgd"), work(COPY), strict=True):
        np.testing.assert_array_equal(one.models, other.models)
        assert one.handed_over == other.handed_over


def test_no_algorithm_is_named_outside_its_room() -> None:
    """Not as a word of the program: sentences and documents may speak of any."""
    package = Path(dsgd_bench.__file__).parent
    found = []
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Constant):
                continue
            named = room != "algorithms" and node.value in ALGORITHMS
            if named and (room, node.value) not in EXCEPTIONS:
                place = f"{path.relative_to(package)}:{node.lineno}"
                found.append(f"{place}: {node.value!s}")
    assert found == []


def test_every_fact_is_one_that_somebody_asks_for() -> None:
    """Else it is a fact that may be wrong, and nobody sees it."""
    package = Path(dsgd_bench.__file__).parent
    asked = {
        node.attr
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert {field.name for field in fields(ALGORITHMS["allreduce"])} <= asked
