"""What a study would cost, said before it is run."""

import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from dsgd_bench import problems
from dsgd_bench.config import read_study
from dsgd_bench.config.identity import trial_id
from dsgd_bench.errors import ConfigError
from dsgd_bench.graphs import EXAMPLES
from dsgd_bench.spec.machine import Machine
from dsgd_bench.spec.network import NetworkSpec
from dsgd_bench.spec.trial import (
    AlgorithmSpec,
    BudgetSpec,
    ComputeSpec,
    MeasureSpec,
    OptimizerSpec,
    ProblemSpec,
    SlowdownSpec,
    SlowLinksSpec,
    Study,
    Trial,
)
from dsgd_bench.study import plan


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


@pytest.mark.parametrize("kind", ["mlp", "lenet", "resnet20"])
def test_memory_counts_what_lies_between_the_layers_of_a_network(kind):
    settings = {"data": "generated", "samples": 800}

    def memory(batch):
        problem = ProblemSpec(kind, batch=batch, settings=settings)
        return plan.cost(trial(problem=problem)).memory_per_rank

    planned = memory(48) - memory(16)
    problem = problems.make(ProblemSpec(kind, settings=settings), 0)
    x = problem.initial()
    held = {}
    problem.gradient(x, np.arange(1), np.empty_like(x))
    for batch in (16, 48):
        tracemalloc.start()
        problem.gradient(x, np.arange(batch), np.empty_like(x))
        held[batch], _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert planned == pytest.approx(held[48] - held[16], rel=0.1)
    assert planned > 0


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


def test_a_graph_is_named_with_its_gap_and_messages():
    cost = plan.cost(
        trial(ranks=8, algorithm=AlgorithmSpec("dpsgd", {"graph": "hypercube"}))
    )
    assert (cost.graph, cost.messages_per_step) == ("hypercube", 3)
    assert cost.bytes_per_step == 3 * 4000
    assert cost.spectral_gap == pytest.approx(1 / 2)
    everywhere = plan.cost(trial("allreduce"))
    assert (everywhere.graph, everywhere.messages_per_step) == ("", None)
    assert everywhere.spectral_gap is None


def test_one_exchange_per_gradient_is_one_message_on_any_graph():
    cost = plan.cost(trial(algorithm=AlgorithmSpec("adpsgd", {"graph": "ring"})))
    assert (cost.graph, cost.messages_per_step) == ("ring", 1)
    assert plan.cost(trial("adpsgd-waitfree")).messages_per_step is None


def test_servers_compute_nothing_and_get_no_samples():
    """Ten samples are one round of ten workers; twelve could not share them."""
    problem = ProblemSpec("message", batch=1, settings={"samples": 10})
    served = AlgorithmSpec("ssgd", {"servers": 2})
    changes = {"problem": problem, "budget": BudgetSpec(epochs=4.0)}
    cost = plan.cost(
        trial(
            ranks=12,
            algorithm=served,
            compute=ComputeSpec("emulated", 0.1),
            **changes,
        )
    )
    assert cost.seconds == pytest.approx(4 * 0.1 + plan.START_SECONDS)


@pytest.mark.parametrize("graph", EXAMPLES)
def test_a_thousand_ranks_are_planned_within_a_second(graph):
    ranks = 1024 if graph == "hypercube" else 1000
    many = trial(ranks=ranks, algorithm=AlgorithmSpec("sgp", {"graph": graph}))
    began = time.process_time()
    assert 0 <= plan.cost(many).spectral_gap <= 1
    assert time.process_time() - began < 4  # 0.1 to 0.9 s on a quiet machine


def test_ten_thousand_repeats_are_planned_within_seconds(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(
        """
        [study]
        ranks = 4
        repeats = 10_000
        budget = { steps = 10 }
        [problem]
        kind = "softmax"
        [algorithm]
        kind = "allreduce"
        """
    )
    began = time.process_time()
    study = read_study(path)
    costs = plan.costs(study)
    assert [cost.trial for cost in costs] == list(study.trials)
    assert len({trial_id(trial) for trial in study.trials}) == 10_000
    assert time.process_time() - began < 5  # 0.4 s on a quiet machine


def test_a_problem_larger_than_the_memory_is_refused_with_its_settings():
    spec = ProblemSpec("mlp", settings={"hidden": (10**6, 10**6, 10**6)})
    with pytest.raises(ConfigError, match=r"mlp with .*hidden.*memory of this"):
        plan.cost(trial(problem=spec))


EMULATED = ComputeSpec(mode="emulated", seconds=2.0)
QUICK = ComputeSpec(mode="emulated", seconds=0.1)


@pytest.mark.parametrize(
    ("compute", "slow"),
    [
        (EMULATED, SlowdownSpec()),
        (
            ComputeSpec(mode="emulated", seconds=0.1),
            SlowdownSpec("constant", factor=20),
        ),
        (
            ComputeSpec(mode="emulated", seconds=0.1),
            SlowdownSpec("transient", factor=20, probability=0.5),
        ),
        (
            ComputeSpec(mode="emulated", seconds=0.1),
            SlowdownSpec("heavy-tailed", factor=20),
        ),
        (
            ComputeSpec(
                mode="emulated", seconds=1.0, distribution="lognormal", variation=1.0
            ),
            SlowdownSpec(),
        ),
        (ComputeSpec(), SlowdownSpec(links=SlowLinksSpec(seconds=2.0))),
    ],
    ids=["emulated", "constant", "transient", "heavy-tailed", "drawn", "late links"],
)
def test_a_watchdog_shorter_than_a_step_that_is_asked_for_is_refused(compute, slow):
    asked = Study("s", Path("s.toml"), (trial(compute=compute, slowdown=slow),))
    with pytest.raises(ConfigError, match=r"s\.toml: a step of adpsgd.* watchdog"):
        plan.check_patience(asked, Machine(watchdog=1.9))
    plan.check_patience(asked, Machine(watchdog=100.0))


def test_a_watchdog_means_nothing_in_virtual_time():
    asked = trial(compute=EMULATED, network=NetworkSpec())
    plan.check_patience(Study("s", Path("s.toml"), (asked,)), Machine(watchdog=1.0))
