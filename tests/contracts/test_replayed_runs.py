"""A replay takes as long as the run; without a slow rank, as a run without it.

Runs are simulated, so the truth is known.
"""

from pathlib import Path

import h5py
import numpy as np
import pytest
from msgspec import structs

from dsgd_bench.cli.display import Silent
from dsgd_bench.config.identity import trial_id
from dsgd_bench.errors import ConfigError, TraceError
from dsgd_bench.replay.record import NEEDED, Change, Record, seconds_per_epoch
from dsgd_bench.replay.scenes import faster, fitted, replay
from dsgd_bench.replay.whatif import ask
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
from dsgd_bench.study import simulation
from dsgd_bench.trial.gradient_time import Replayed

KINDS = [
    *("allreduce", "adpsgd", "asgd"),
    *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("dpsgd", "sgp")),
]
SLOW = SlowdownSpec("constant", (1,), 4.0, mode="added")


def trial(kind: str, slowdown: SlowdownSpec = SLOW) -> Trial:
    return Trial(
        ranks=6,
        algorithm=AlgorithmSpec(kind),
        problem=ProblemSpec(
            "quadratic", batch=1, settings={"dimension": 1000, "samples": 600}
        ),
        compute=ComputeSpec("emulated", 0.002, "lognormal", 0.1),
        slowdown=slowdown,
        budget=BudgetSpec(samples=600),
        measure=MeasureSpec(copies=3),
        network=preset("ethernet-10"),
    )


def simulated(folder: Path, which: Trial) -> Path:
    """Simulate a trial; return where its trace lies."""
    study = Study("virtual", folder, (which,))
    assert not simulation.simulate_study(study, folder, Silent()).failed
    return folder / "virtual" / trial_id(which) / "trace.h5"


@pytest.mark.parametrize("kind", KINDS)
def test_a_replay_with_nothing_changed_takes_as_long_as_the_run(
    kind: str, tmp_path: Path
) -> None:
    record = Record(simulated(tmp_path, trial(kind)))
    again = seconds_per_epoch(replay(record, fitted(record), Change()))
    assert again == pytest.approx(record.epoch, rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_a_replay_without_the_slow_rank_takes_as_long_as_a_run_without_it(
    kind: str, tmp_path: Path
) -> None:
    record = Record(simulated(tmp_path, trial(kind)))
    even = Record(simulated(tmp_path, trial(kind, SlowdownSpec())))
    assert record.epoch > 1.1 * even.epoch
    mended = seconds_per_epoch(replay(record, fitted(record), Change(frozenset({1}))))
    assert mended == pytest.approx(even.epoch, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_a_replay_over_a_faster_network_takes_as_long_as_a_run_over_it(
    kind: str, tmp_path: Path
) -> None:
    slow = faster(preset("ethernet-10"), 0.1)
    record = Record(simulated(tmp_path, structs.replace(trial(kind), network=slow)))
    quick = Record(simulated(tmp_path, trial(kind)))
    found = seconds_per_epoch(replay(record, slow, Change(network=10.0)))
    assert found == pytest.approx(quick.epoch, rel=0.02)


def test_a_rank_that_is_slow_by_itself_is_found_and_mended(tmp_path: Path) -> None:
    path = simulated(tmp_path, trial("allreduce"))
    with h5py.File(path, "r+") as file:
        file["compute"][1] += file["injected"][1]
        file["injected"][1] = 0.0
    record = Record(path)
    assert record.slowness[1] == pytest.approx(4.0, rel=0.05)
    assert max(np.delete(record.slowness, 1)) < 1.05
    even = Record(simulated(tmp_path, trial("allreduce", SlowdownSpec())))
    mended = seconds_per_epoch(replay(record, fitted(record), Change(frozenset({1}))))
    assert mended == pytest.approx(even.epoch, rel=0.03)


def test_the_slow_rank_costs_most_and_is_the_one_that_is_waited_for(
    tmp_path: Path,
) -> None:
    answers = ask(simulated(tmp_path, trial("allreduce")), without_slow=(1,), times=2)
    assert answers.culprits[0].name.startswith("rank 1, ")
    assert answers.culprits[0].seconds > 0.6 * answers.replayed
    assert answers.waited.index(max(w or 0.0 for w in answers.waited)) == 1
    asked = answers.scenes["rank 1 not slow, network 2x faster"]
    assert asked < answers.scenes["no slowdown"] < answers.replayed


def test_a_network_is_fitted_to_what_moving_took(tmp_path: Path) -> None:
    """As for a measured run, which has no network in its trial."""
    path = simulated(tmp_path, trial("dpsgd"))
    record = Record(path)
    record.trace.trial = structs.replace(record.trace.trial, network=None)
    found = fitted(record)
    truth = preset("ethernet-10")
    assert found.far.latency == pytest.approx(truth.far.latency, rel=0.05)


def test_more_steps_than_were_measured_begin_again() -> None:
    times = Replayed(np.array([1.0, 2.0, 3.0]))
    assert [times.seconds(k) for k in range(5)] == [1.0, 2.0, 3.0, 1.0, 2.0]


@pytest.mark.parametrize("times", [0.0, -1.0, float("nan")])
def test_a_network_that_cannot_be_is_refused(times: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--faster-network is .* must be above 0"):
        ask(tmp_path / "trace.h5", times=times)


def test_a_server_is_no_worker(tmp_path: Path) -> None:
    path = simulated(tmp_path, trial("asgd"))
    with pytest.raises(ConfigError, match=r"rank 5, which is no worker .* 0 to 4"):
        ask(path, without_slow=(5,))


def test_a_trace_without_columns_is_refused_by_their_names(tmp_path: Path) -> None:
    path = simulated(tmp_path, trial("allreduce"))
    with h5py.File(path, "r+") as file:
        del file["injected"], file["update"]
    with pytest.raises(TraceError, match="lacks injected, update, which a replay"):
        ask(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e308, -1.0])
def test_an_impossible_number_is_refused_by_its_name(
    value: float, tmp_path: Path
) -> None:
    path = simulated(tmp_path, trial("allreduce"))
    undamaged = path.read_bytes()
    for name in {*NEEDED, "elapsed", "samples_done", "serves"} - {"waited_for"}:
        path.write_bytes(undamaged)
        with h5py.File(path, "r+") as file:
            file[name][(0,) * file[name].ndim] = value
        with pytest.raises(TraceError, match=f" in {name}, where there must be"):
            ask(path)


def test_the_trace_of_a_crash_is_refused(tmp_path: Path) -> None:
    path = simulated(tmp_path, trial("allreduce"))
    with h5py.File(path, "r+") as file:
        file.attrs["dsgd_status"] = "crashed"
    with pytest.raises(TraceError, match="a run that crashed"):
        ask(path)


def test_a_run_of_one_rank_is_replayed(tmp_path: Path) -> None:
    alone = structs.replace(trial("allreduce", SlowdownSpec()), ranks=1)
    answers = ask(simulated(tmp_path, alone))
    assert answers.error == pytest.approx(0.0, abs=0.01)
    assert answers.record.slowness == [1.0]
