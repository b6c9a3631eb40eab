"""A copy of an algorithm under another name fares alike on MPI, to its report.

Times differ from run to run, so what is compared is all that a name could decide: which
checks are made and pass, which expectations ask about it, its bound, which cells of
its line are filled. `tests/contracts/test_renamed.py` compares every figure in
virtual time.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from mpi4py import MPI

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.analysis.bounds import bound
from dsgd_bench.analysis.comparison import compare
from dsgd_bench.analysis.expectations import judge
from dsgd_bench.analysis.links import Links
from dsgd_bench.analysis.summary import combine, summarize
from dsgd_bench.analysis.verify import verify
from dsgd_bench.fabric import preflight
from dsgd_bench.fabric.mpi.fabric import MpiFabric
from dsgd_bench.report import tables
from dsgd_bench.report.numbers import NONE
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

pytestmark = [pytest.mark.mpi(min_size=4), pytest.mark.timeout(100)]

COPY = "under-another-name"
SLOWDOWN = SlowdownSpec("constant", (0,), 3.0)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield one folder of all ranks; rank 0 removes it, whatever the test did."""
    world = MPI.COMM_WORLD
    with TemporaryDirectory() if world.rank == 0 else nullcontext() as path:
        yield Path(world.bcast(path))


@pytest.fixture(scope="module", autouse=True)
def one_preflight() -> Iterator[None]:
    """Measure once how busy targets answer: all runs of this module are told the same.

    It takes half a second, and here are twice as many runs as algorithms.
    """
    fabric = MpiFabric(MPI.COMM_WORLD)
    verdict = preflight.preflight(fabric, "none")
    fabric.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preflight, "preflight", lambda *_: verdict)
        yield


def recorded(kind: str, warm_up: int | None, folder: Path) -> Trace | None:
    """Run a trial on all ranks, rank 0 slowed; return its trace on rank 0."""
    world = MPI.COMM_WORLD
    folder.mkdir(exist_ok=True)  # by all: no rank writes before it is there
    trial = Trial(
        ranks=world.size,
        algorithm=AlgorithmSpec(kind, {} if warm_up is None else {"warmup": warm_up}),
        problem=ProblemSpec("quadratic", settings={"dimension": 200}),
        compute=ComputeSpec("emulated", 0.004),
        slowdown=SLOWDOWN,
        budget=BudgetSpec(steps=8),
        measure=MeasureSpec(target_loss=1e-3, copies=4),
    )
    fabric = MpiFabric(world)
    Run(trial, folder, "renamed", "none", {})(fabric)
    fabric.close()
    return open_trace(folder / "trace.h5") if world.rank == 0 else None


def described(trace: Trace) -> dict[str, str]:
    """Return what is said of a run, without what a run is free to differ in."""
    lines = compare(combine([summarize(trace)]))
    hosts = tuple(map(str, range(trace.trial.ranks)))
    tabled = [tables.results(lines), tables.work(lines)]
    said = {
        "verification": [(check.name, check.passed) for check in verify(trace).checks],
        "expectations": [
            (answer.expectation.name, [f.subject for f in answer.findings])
            for answer in judge(lines)
        ],
        "bound": bound(trace.trial, 1000, Links(hosts, 1e6, {})),
        "workers": int((trace["serves"] == 0).sum()),
        "columns": [column.name for table in tabled for column in table.columns],
        "filled": [
            # what an asynchronous run met in a few steps is chance: nothing, perhaps
            [cell != NONE for cell in row]
            for table in tabled
            for row in table.cells
            if ALGORITHMS[trace.trial.algorithm.kind].synchronous
        ],
        "labels": [line.algorithm for line in lines],
    }
    return {name: repr(value) for name, value in said.items()}


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_the_same_is_said_of_an_algorithm_and_of_its_copy(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ALGORITHMS, COPY, replace(ALGORITHMS[kind], name=COPY))
    warm_up = 3 if "warmup" in ALGORITHMS[kind].settings else None
    traces = [recorded(name, warm_up, folder / name) for name in (kind, COPY)]
    if all(traces):  # on rank 0
        original, copy = map(described, traces)
        assert "False" not in copy["verification"]
        for name in original:
            assert copy[name].replace(COPY, kind) == original[name], name
