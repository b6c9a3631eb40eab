"""What a study would cost, said before it is run."""

import pytest

from dsgd_bench import plan
from dsgd_bench.config import (
    AlgorithmSpec,
    BudgetSpec,
    ComputeSpec,
    MeasureSpec,
    OptimizerSpec,
    ProblemSpec,
    SlowdownSpec,
    Trial,
)
from dsgd_bench.errors import ConfigError


def trial(kind="adpsgd", *, ranks=4, **changes):
    made = {
        "algorithm": AlgorithmSpec(kind),
        "problem": ProblemSpec("message", batch=1, settings={"dimension": 1000}),
        "budget": BudgetSpec(seconds=10.0),
    }
    return Trial(ranks=ranks, **(made | changes))


def test_memory_counts_models_copies_velocity_and_data():
    cost = plan.cost(
        trial(
            measure=MeasureSpec(copies=7),
            optimizer=OptimizerSpec(momentum=0.9),
            problem=ProblemSpec(
                "quadratic", batch=1, settings={"dimension": 1000, "samples": 50}
            ),
        )
    )
    assert cost.model_bytes == 4000
    # replica, the model that was read, gradient; velocity; copies; centers
    models = 3 + 1 + 7 + 50
    assert cost.memory_per_rank == models * 4000 + plan.INTERPRETER_BYTES


def test_traffic_is_a_model_per_gradient_a_result_or_nothing():
    assert plan.cost(trial()).bytes_per_step == 4000
    assert plan.cost(trial("adpsgd-waitfree")).bytes_per_step is None
    assert plan.cost(trial(ranks=1)).bytes_per_step == 0


@pytest.mark.parametrize(("kind", "rounds"), [("allreduce", 10), ("adpsgd", 16 / 15.1)])
def test_duration_follows_who_waits_for_whom(kind, rounds):
    """One of 16 ranks ten times slower: all wait, or n/((n - m) + m/s) of the time."""
    cost = plan.cost(
        trial(
            kind,
            ranks=16,
            compute=ComputeSpec("emulated", 0.1),
            slowdown=SlowdownSpec("constant", (0,), 10.0),
            budget=BudgetSpec(steps=20),
        )
    )
    assert cost.seconds == pytest.approx(20 * 0.1 * rounds + plan.START_SECONDS)


def test_duration_is_unknown_where_nothing_tells():
    assert plan.cost(trial(budget=BudgetSpec(steps=5))).seconds is None


def test_what_cannot_be_dealt_out_is_refused():
    problem = ProblemSpec("quadratic", batch=64, settings={"samples": 100})
    with pytest.raises(ConfigError):
        plan.cost(trial(problem=problem))
