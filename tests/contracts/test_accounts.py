"""One account per kind of work: every algorithm books its arithmetic as `update`."""

from typing import Any

import pytest
from conftest import Ranks
from driving import walk

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.columns import SPANS
from dsgd_bench.trial import worker
from dsgd_bench.trial.optimizer import Optimizer

ARITHMETIC = 1e-3
"""Seconds that every update takes in these tests: in virtual time it takes none."""

every = pytest.mark.parametrize("kind", ALGORITHMS)


def booked(fabric: Fabric, kind: str) -> tuple[int, float, float, float]:
    """Run one rank; return its updates, the seconds booked for them, how steps fit.

    The last two numbers are seconds booked too much in a step, and left in `other`.
    """
    calls = 0

    class Slow(Optimizer):
        def update(self, *arguments: Any) -> None:
            nonlocal calls
            super().update(*arguments)
            calls += 1
            fabric.pause(ARITHMETIC)

        def descend(self, *arguments: Any) -> None:
            nonlocal calls
            super().descend(*arguments)
            calls += 1
            fabric.pause(ARITHMETIC)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "Optimizer", Slow)
        settings = {"warmup": 2} if kind == "odsgd" else {}
        walked = walk(fabric, kind, steps=6, settings=settings)
    ledger = fabric.ledger
    spent = sum(walked.column(name) for name in SPANS)
    other = walked.column("duration") - spent
    seconds = ledger.front.update + ledger.beside.update
    return calls, seconds, -other.min(), other.max()


@every
def test_every_algorithm_books_its_updates_once(
    world: Ranks, size: int, kind: str
) -> None:
    found = world.together(size, lambda fabric: booked(fabric, kind))
    assert any(calls for calls, *_ in found)
    for calls, seconds, overbooked, other in found:
        assert seconds >= calls * ARITHMETIC * (1 - 1e-9)
        assert overbooked <= 1e-9
        if world.kind == "virtual":  # nothing else takes virtual time
            assert other < ARITHMETIC / 2, "an update is left in the rest of a step"
