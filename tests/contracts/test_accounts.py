"""One account per kind of work: every algorithm books its arithmetic as `update`."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import driving
import pytest
from conftest import Ranks
from driving import walk

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.columns import SPANS
from dsgd_bench.trial.worker import Worker

ARITHMETIC = 1e-3
"""Seconds that every update takes in these tests: in virtual time it takes none."""

every = pytest.mark.parametrize("kind", ALGORITHMS)


def slowed(arithmetic: Callable[..., None], fabric: Fabric, calls: Counter[int]) -> Any:
    """Return arithmetic that takes `ARITHMETIC` seconds; its calls count by rank."""

    def slow(*arguments: Any) -> None:
        arithmetic(*arguments)
        calls[fabric.rank] += 1
        fabric.pause(ARITHMETIC)

    return slow


def slow_workers(calls: Counter[int]) -> type[Worker]:
    """Return workers whose optimizers take their time.

    They are put in place before any rank runs: ranks of the virtual fabric share a
    process, and would undo each other's patches in the wrong order.
    """

    class SlowWorker(Worker):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            for name in ("update", "descend"):
                quick = getattr(self.optimizer, name)
                setattr(self.optimizer, name, slowed(quick, self.fabric, calls))

    return SlowWorker


def booked(
    fabric: Fabric, kind: str, calls: Counter[int]
) -> tuple[int, float, float, float]:
    """Run one rank; return its updates, the seconds booked for them, how steps fit.

    The last two numbers are seconds booked too much in a step, and left in `other`.
    """
    settings = {"warmup": 2} if kind == "odsgd" else {}
    walked = walk(fabric, kind, steps=6, settings=settings)
    ledger = fabric.ledger
    spent = sum(walked.column(name) for name in SPANS)
    other = walked.column("duration") - spent
    seconds = ledger.training.update + ledger.overlapped.update
    return calls[fabric.rank], seconds, -other.min(), other.max()


@every
def test_every_algorithm_books_its_updates_once(
    world: Ranks, size: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Counter[int]()
    monkeypatch.setattr(driving, "Worker", slow_workers(calls))
    found = world.together(size, lambda fabric: booked(fabric, kind, calls))
    assert any(count for count, *_ in found)
    for count, seconds, overbooked, other in found:
        assert seconds >= count * ARITHMETIC * (1 - 1e-9)
        assert overbooked <= 1e-9
        if world.kind == "virtual":  # nothing else takes virtual time
            assert other < ARITHMETIC / 2, "an update is left in the rest of a step"
