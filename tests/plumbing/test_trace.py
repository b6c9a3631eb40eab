"""From shards to a trace: whole runs, crashed runs, missing and broken shards."""

import json
import time
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from dsgd_bench import trace
from dsgd_bench.errors import TraceError
from dsgd_bench.fabric.ledger import SPANS, Ledger
from dsgd_bench.fabric.preflight import Verdict
from dsgd_bench.fabric.virtual.fabric import World
from dsgd_bench.io import trial_folder
from dsgd_bench.problems import make
from dsgd_bench.spec.trial import (
    AlgorithmSpec,
    BudgetSpec,
    ComputeSpec,
    ProblemSpec,
    SlowdownSpec,
    Trial,
)
from dsgd_bench.trial.run import Run, Together

STEP = 0.01


@pytest.fixture
def folder(tmp_path):
    """Return the folder of a finished trial: rank 1 was three times slower."""
    trial = Trial(
        ranks=2,
        algorithm=AlgorithmSpec("allreduce"),
        problem=ProblemSpec("quadratic"),
        compute=ComputeSpec("emulated", STEP),
        slowdown=SlowdownSpec("constant", (1,), 3.0),
        budget=BudgetSpec(steps=5),
    )
    World(2).run(Run(trial, tmp_path, "toy", "auto", {"host": "here"}))
    return tmp_path


def test_time_in_a_collective_is_split_at_the_last_arrival(folder):
    found = trace.open_trace(folder / "trace.h5")
    assert found.status == "exhausted"
    assert found.provenance == {"host": "here"}
    # rank 0 is done after one step's time and waits for the other two
    np.testing.assert_allclose(found["waiting"][0], 2 * STEP, rtol=1e-3)
    np.testing.assert_allclose(found["waiting"][1], 0.0, atol=1e-9)
    assert (found["waited_for"][0] == 1).all()
    assert np.isnan(found["waited_for"][1]).all()
    np.testing.assert_allclose(found["injected"][1], 2 * STEP)
    np.testing.assert_allclose(found["injected_asked"][1], 2 * STEP)


HALF = {"environment": {"LD_LIBRARY_PATH": "/caf\udce9"}}
"""A variable with a byte that is not UTF-8, as Python gives it."""


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_trace_can_be_read_whatever_bytes_the_variables_have(tmp_path, in_memory):
    trial = Trial(
        ranks=2,
        algorithm=AlgorithmSpec("allreduce"),
        problem=ProblemSpec("quadratic"),
        budget=BudgetSpec(steps=2),
    )
    together = Together(make(trial.problem, trial.seed)) if in_memory else None
    World(2).run(Run(trial, tmp_path, "toy", "auto", HALF, together=together))
    if together is not None:
        trace.write_trace(tmp_path, together.shards)
    found = trace.open_trace(tmp_path / "trace.h5")
    assert found.provenance["environment"] == {"LD_LIBRARY_PATH": "/caf?"}


def test_a_trace_of_an_earlier_version_that_has_such_bytes_is_read(folder):
    with h5py.File(folder / "trace.h5", "r+") as file:
        file.attrs["dsgd_provenance"] = json.dumps(HALF)
    assert trace.open_trace(folder / "trace.h5").provenance == HALF


def test_spans_add_up_to_the_step(folder):
    found = trace.open_trace(folder / "trace.h5")
    total = sum(found[name] for name in (*SPANS, "other"))
    np.testing.assert_allclose(total, found["duration"], rtol=1e-12)
    assert (found["other"] >= -1e-12).all()


def test_a_missing_shard_is_named_and_the_trial_is_not_finished(folder):
    trial_folder.shard_of(folder, 1).unlink()
    with pytest.raises(TraceError, match="no readable shard of rank 1"):
        trace.merge(folder)


def test_a_crashed_run_keeps_what_was_flushed(folder):
    trial_folder.shard_of(folder, 1).write_bytes(b"cut off")
    trace.merge(folder, crashed="rank 1 was killed")
    found = trace.open_trace(folder / "trace.h5")
    assert (found.status, found.reason) == ("crashed", "rank 1 was killed")
    assert found["steps_done"][0] == 5
    assert np.isnan(found["duration"][1]).all()
    assert len(found["moment_time"]) == 0


def test_shards_that_were_exchanged_count_for_no_rank(folder):
    first, second = (trial_folder.shard_of(folder, rank) for rank in (0, 1))
    mine, theirs = first.read_bytes(), second.read_bytes()
    first.write_bytes(theirs)
    second.write_bytes(mine)
    with pytest.raises(TraceError, match="it is of rank 1"):
        trace.Shard.read(first)
    with pytest.raises(TraceError, match="no readable shard"):
        trace.merge(folder)


def test_a_truncated_trace_is_refused_in_a_sentence(folder):
    whole = (folder / "trace.h5").read_bytes()
    (folder / "trace.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TraceError, match="cannot be read"):
        trace.open_trace(folder / "trace.h5")


def test_rows_of_the_warm_up_are_not_recorded_however_long_windows_take(
    tmp_path, monkeypatch
):
    """Seen on a crowded machine: the first flush came before the clock was started."""
    monkeypatch.setattr("dsgd_bench.trace.shard.FLUSH_PERIOD", 0.001)
    trial = Trial(
        ranks=1,
        algorithm=AlgorithmSpec("allreduce"),
        problem=ProblemSpec("quadratic"),
        budget=BudgetSpec(steps=1),
    )
    ledger = Ledger(time.perf_counter)
    ledger.open()
    ledger.close_step(loss=1.0, samples=32)  # the warm-up's
    rank = SimpleNamespace(rank=0, kind="mpi", ledger=ledger)
    facts = trace.Facts(
        trial, "toy", {}, Verdict(thread=False, pairs={}), 1, "mpi", 0, "none", 8
    )
    with trace.ShardWriter(tmp_path, rank, facts) as shard, shard.recording():
        time.sleep(0.1)  # a hundred flushes
        ledger.open()
        ledger.close_step(loss=2.0, samples=32)
    (row,) = trace.Shard.read(trial_folder.shard_of(tmp_path, 0)).columns["loss"]
    assert row == 2.0
