"""Budgets: runs end when they should, without a collective."""

import math
from functools import partial
from typing import Any

import pytest
from conftest import Ranks

from dsgd_bench.exchanges.termination import NEVER, Board
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual.fabric import VirtualFabric, World
from dsgd_bench.spec.trial import BudgetSpec
from dsgd_bench.trial.budget import Budget

BATCH, EPOCH = 8, 240


def run_until(
    fabric: Fabric, spec: BudgetSpec, *, synchronous: bool, seconds: float
) -> tuple[int, float]:
    """Take steps of so many `seconds` while the budget lasts; return steps, epochs."""
    with Board(fabric) as board:
        budget = Budget(
            spec,
            board,
            batch=BATCH,
            epoch=EPOCH,
            workers=board.size,
            synchronous=synchronous,
        )
        steps, started = 0, fabric.now()
        while budget.lasts(steps, fabric.now() - started):
            fabric.pause(seconds)
            if synchronous:
                fabric.barrier()
            steps += 1
        return steps, budget.epochs


IN_STEP = [
    # spec, steps of every one of n ranks
    (BudgetSpec(steps=7), lambda n: 7),
    (BudgetSpec(samples=100), lambda n: math.ceil(math.ceil(100 / BATCH) / n)),
    (BudgetSpec(epochs=0.5), lambda n: math.ceil(15 / n)),
    (BudgetSpec(steps=7, samples=8), lambda n: 1),
    (BudgetSpec(steps=7, epochs=100.0), lambda n: 7),
]


@pytest.mark.parametrize(("spec", "expected"), IN_STEP)
def test_synchronous_runs_end_after_the_steps_asked_for(
    world: Ranks, size: int, spec: BudgetSpec, expected: Any
) -> None:
    results = world.together(
        size, lambda fabric: run_until(fabric, spec, synchronous=True, seconds=0.0)
    )
    steps = expected(size)
    assert results == [(steps, steps * size * BATCH / EPOCH)] * size


def test_synchronous_runs_end_together_though_one_clock_decides(
    world: Ranks, size: int
) -> None:
    spec = BudgetSpec(seconds=0.03)

    def work(fabric: Fabric) -> int:
        seconds = 0.002 * (1 + fabric.rank)
        return run_until(fabric, spec, synchronous=True, seconds=seconds)[0]

    results = world.together(size, work)
    assert len(set(results)) == 1
    # every step takes as long as the slowest rank sleeps; one more is announced
    assert 2 <= results[0] <= 0.03 / (0.002 * size) + 2


def test_whatever_is_used_up_first_ends_a_synchronous_run() -> None:
    spec = BudgetSpec(seconds=1.05, steps=5)
    for seconds, steps in ((0.1, 5), (0.5, 4)):
        ended = World(3).run(
            partial(run_until, spec=spec, synchronous=True, seconds=seconds)
        )
        results = [end[0] for end in ended]
        # after 1.5 s rank 0 sees that the time is over, and one more step is taken
        assert results == [steps] * 3


def test_asynchronous_runs_end_by_each_ranks_own_clock() -> None:
    spec = BudgetSpec(seconds=1.0)

    def work(fabric: VirtualFabric) -> int:
        seconds = 0.03 * (1 + 9 * (fabric.rank == 2))
        return run_until(fabric, spec, synchronous=False, seconds=seconds)[0]

    # 34 steps of 0.03 s are the first to take a second, and 4 of 0.3 s
    assert World(3).run(work) == [34, 34, 4]


OVERSHOOT = [
    # budget in gradients of all ranks, seconds of a gradient
    (BudgetSpec(steps=50), 50, 0.02),
    (BudgetSpec(samples=8 * 333), 333 / 3, 0.02),
    (BudgetSpec(epochs=100.0), 1000, 1e-4),
    (BudgetSpec(steps=1000), 1000, 1e-4),
]


@pytest.mark.parametrize(("spec", "per_rank", "seconds"), OVERSHOOT)
def test_asynchronous_runs_overshoot_by_a_report_of_every_rank_at_most(
    spec: BudgetSpec, per_rank: float, seconds: float
) -> None:
    """A rank reports after a hundredth of its share of the budget at the latest."""
    size = 3

    def work(fabric: VirtualFabric) -> int:
        own = seconds * (1 + fabric.rank)  # so one rank takes fewer steps
        return run_until(fabric, spec, synchronous=False, seconds=own)[0]

    steps = World(size).run(work)
    report = math.ceil(max(1.0, 0.01 * per_rank))
    assert size * per_rank <= sum(steps) < size * (per_rank + report)
    assert steps[0] > 1.5 * steps[1] > 1.5 * steps[2]


def test_an_asynchronous_run_ends_on_mpi_too(world: Ranks, size: int) -> None:
    spec = BudgetSpec(steps=20)
    results = world.together(
        size, lambda fabric: run_until(fabric, spec, synchronous=False, seconds=1e-3)
    )
    # one gradient of every rank may be under way when the last one is counted
    assert size * 20 <= sum(steps for steps, _ in results) < size * 21
    # what the rank that counted last knows is what all have done by then
    last = max(epochs for _, epochs in results)
    assert last >= size * 20 * BATCH / EPOCH


def test_a_board_counts_for_all_and_announces_to_all(world: Ranks, size: int) -> None:
    def work(fabric: Fabric) -> tuple[list[int], bool, int]:
        with Board(fabric) as board:
            counts = [board.count(2) for _ in range(5)]
            silent = board.last_step() == NEVER
            fabric.barrier()
            if fabric.rank == size - 1:
                board.announce(12)
            fabric.barrier()
            return counts, silent, board.last_step()

    results = world.together(size, work)
    counts = sorted(count for counted, _, _ in results for count in counted)
    assert counts == list(range(2, 10 * size + 1, 2))  # nothing twice, nothing lost
    assert all(silent for _, silent, _ in results)
    assert [last for _, _, last in results] == [12] * size


def test_nobody_asks_rank_0_for_a_count_that_nothing_needs() -> None:
    """Else every rank would wait for a slow rank 0, through our own bookkeeping."""

    class Refusing:
        rank, size, counted = 1, 4, 0

        def count(self, gradients: int) -> int:
            raise RuntimeError(f"{gradients} gradients were counted")

    def budget(*, counted: bool = True) -> Budget:
        return Budget(
            BudgetSpec(seconds=1.0),
            Refusing(),  # type: ignore[arg-type]
            batch=1,
            epoch=1,
            workers=2,
            synchronous=False,
            counted=counted,
        )

    alone = budget(counted=False)
    assert all(alone.lasts(step, 0.1 * step) for step in range(10))
    assert not alone.lasts(10, 1.0)
    with pytest.raises(RuntimeError, match="1 gradients"):
        budget(counted=True).lasts(1, 0.1)
