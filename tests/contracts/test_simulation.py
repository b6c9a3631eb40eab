"""Thousands of ranks in one process: what a simulated trial leaves, and what it needs.

The traces are read by all that reads measured ones.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from dsgd_bench.analysis.verify import verify
from dsgd_bench.cli.display import Silent
from dsgd_bench.config.identity import trial_id
from dsgd_bench.errors import ConfigError
from dsgd_bench.problems import PROBLEMS
from dsgd_bench.spec.network import preset
from dsgd_bench.spec.trial import (
    AlgorithmSpec,
    BudgetSpec,
    ComputeSpec,
    MeasureSpec,
    ProblemSpec,
    SlowdownSpec,
    Study,
    Trial,
)
from dsgd_bench.study import plan, simulation
from dsgd_bench.trace import Trace, open_trace

LOGNORMAL = ComputeSpec("emulated", 0.01, "lognormal", 0.3)


def trial(kind: str = "adpsgd", **changes: Any) -> Trial:
    """Return a trial over a preset network."""
    fields: dict[str, Any] = {
        "ranks": 8,
        "algorithm": AlgorithmSpec(kind),
        "problem": ProblemSpec(
            "quadratic", batch=1, settings={"dimension": 20, "samples": 2048}
        ),
        "compute": LOGNORMAL,
        "budget": BudgetSpec(seconds=0.2),
        "measure": MeasureSpec(copies=8),
        "network": preset("ethernet-10"),
        **changes,
    }
    return Trial(**fields)


def simulate(folder: Path, *trials: Trial) -> list[Trace]:
    """Simulate trials; return their traces."""
    study = Study("virtual", folder, trials)
    outcome = simulation.simulate_study(study, folder, Silent())
    assert not outcome.failed
    return [
        open_trace(folder / "virtual" / trial_id(each) / "trace.h5") for each in trials
    ]


def test_a_model_that_stands_for_a_larger_one_is_accounted_as_that(
    tmp_path: Path,
) -> None:
    large = structs.replace(preset("ethernet-10"), wire_bytes=10_000_000)
    (trace,) = simulate(tmp_path, trial("sgp", network=large))
    assert trace.model_bytes == 10_000_000
    # the push-sum weight travels with the model
    assert np.nanmax(trace["bytes_out"]) == pytest.approx(10_000_000 * 21 / 20)


@pytest.mark.parametrize(
    "kind",
    ["allreduce", "allreduce-bucketed", "dpsgd", "adpsgd", "sgp", "asgd", "dasgd"],
)
def test_a_simulated_trial_is_valid_as_a_measured_one_is(
    kind: str, tmp_path: Path
) -> None:
    (trace,) = simulate(tmp_path, trial(kind))
    assert trace.fabric == "virtual"
    assert [check.name for check in verify(trace).failed] == []
    losses = trace["loss_of_mean"]
    assert losses[-1] < losses[0]


def test_one_problem_for_all_ranks_computes_what_one_each_would(tmp_path: Path) -> None:
    """A network of layers has workspaces, which ranks that take turns must not mix.

    In synchronous steps one rank with all samples learns the same.
    """
    problem = ProblemSpec(
        "mlp",
        batch=8,
        dtype="float64",
        settings={"data": "generated", "samples": 512, "features": 6, "classes": 3},
    )
    assert "mlp" in PROBLEMS
    changes = {"problem": problem, "budget": BudgetSpec(steps=10)}
    whole = ProblemSpec("mlp", 32, "float64", settings=problem.settings)
    bucketed, plain, one = simulate(
        tmp_path,
        trial("allreduce-bucketed", ranks=4, **changes),
        trial("allreduce", ranks=4, **changes),
        trial("allreduce", ranks=1, **changes | {"problem": whole}),
    )
    for trace in (bucketed, plain):
        np.testing.assert_allclose(
            trace["loss_of_mean"], one["loss_of_mean"], rtol=1e-9
        )


def test_a_trial_is_the_same_bit_by_bit_whatever_ran_before(tmp_path: Path) -> None:
    once, _, other = simulate(tmp_path / "a", trial(), trial("dpsgd"), trial(seed=1))
    (again,) = simulate(tmp_path / "b", trial())
    for name in ("start", "compute", "loss", "staleness", "local_loss", "exchanges"):
        np.testing.assert_array_equal(once[name], again[name])
    assert not np.array_equal(once["compute"], other["compute"])


def test_gradients_last_as_the_distribution_says(tmp_path: Path) -> None:
    (trace,) = simulate(tmp_path, trial("adpsgd", budget=BudgetSpec(seconds=2.0)))
    times = trace["compute"][np.isfinite(trace["compute"])]
    assert times.mean() == pytest.approx(LOGNORMAL.seconds, rel=0.05)
    assert times.std() / times.mean() == pytest.approx(LOGNORMAL.variation, rel=0.1)


def test_slowdowns_come_on_top_of_drawn_times(tmp_path: Path) -> None:
    slow = SlowdownSpec("constant", ranks=(1,), factor=4.0)
    (trace,) = simulate(tmp_path, trial(slowdown=slow))
    assert np.nansum(trace["injected"][0]) == 0.0
    ratio = np.nansum(trace["injected"][1]) / np.nansum(trace["compute"][1])
    assert ratio == pytest.approx(3.0, rel=1e-3)


def test_of_many_ranks_a_sample_is_evaluated_itself(tmp_path: Path) -> None:
    (trace,) = simulate(tmp_path, trial(ranks=200, budget=BudgetSpec(steps=3)))
    evaluated = np.isfinite(trace["local_loss"]).all(axis=1)
    assert np.flatnonzero(evaluated).tolist() == list(range(0, 200, 3))
    assert np.isfinite(trace["consensus_distance"]).all()
    assert np.isfinite(trace["loss_of_mean"]).all()


@pytest.mark.timeout(60)
def test_a_thousand_ranks_are_simulated_in_no_time(tmp_path: Path) -> None:
    (trace,) = simulate(tmp_path, trial(ranks=1024, budget=BudgetSpec(steps=3)))
    assert trace["steps_done"].sum() >= 3 * 1024
    assert trace["exchanges"].sum() > 1024
    assert [check.name for check in verify(trace).failed] == []


def test_what_needs_more_memory_than_there_is_is_refused_with_the_figure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (cost,) = plan.costs(Study("virtual", Path(), (trial(ranks=1000),)))
    assert cost.memory is not None
    assert cost.memory > 1000 * plan.SIMULATED_RANK_BYTES
    there = cost.memory + 1
    monkeypatch.setattr(plan.environment, "available_memory", lambda: there)
    plan.check_memory([cost])
    there = cost.memory - 1
    with pytest.raises(ConfigError, match=r"0\.\d GiB in one process.*take fewer"):
        plan.check_memory([cost])


def test_the_announced_memory_grows_with_ranks_models_and_records() -> None:
    def memory(**changes: Any) -> int:
        return plan.cost(trial(**changes)).memory or 0

    large = ProblemSpec(
        "quadratic", batch=1, settings={"dimension": 2000, "samples": 2048}
    )
    one = memory(ranks=1000)
    assert memory(ranks=2000) > 1.7 * one
    assert memory(ranks=1000, problem=large) > one + 1000 * 8 * 1980 * 4
    assert memory(ranks=1000, budget=BudgetSpec(seconds=20.0)) > 2 * one
    assert plan.cost(trial(network=None)).memory is None


def test_a_trial_that_cannot_be_run_is_marked_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    bad = trial(problem=ProblemSpec("quadratic", batch=4096))
    study = Study("virtual", tmp_path, (bad, trial()))
    outcome = simulation.simulate_study(study, tmp_path, Silent())
    assert [trial_id(each) for each, _ in outcome.failed] == [trial_id(bad)]
    assert outcome.finished == 1
    assert "samples" in (tmp_path / "virtual" / trial_id(bad) / "ERROR").read_text()
