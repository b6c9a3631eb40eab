"""The benchmark's two forms compute the same; its output has the documented lines."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

from dsgd_bench.bench.averaging import SITUATIONS, AverageOptions, average
from dsgd_bench.bench.record import RecordingOptions, recording
from dsgd_bench.errors import ConfigError
from dsgd_bench.exchanges.replicas import Replicas
from dsgd_bench.fabric.mpi.bare import BarePair
from dsgd_bench.fabric.mpi.fabric import MpiFabric

pytestmark = pytest.mark.mpi(min_size=2)

LENGTH = 100_003  # blocks of the framework, the last one smaller


@pytest.fixture
def pair():
    """Yield a fabric of the first two ranks, None on the others."""
    world = MPI.COMM_WORLD
    comm: Any = world.Split(0 if world.rank < 2 else MPI.UNDEFINED)
    fabric = None if comm == MPI.COMM_NULL else MpiFabric(comm)
    yield fabric
    if fabric is not None:
        fabric.close()
        comm.Free()


def moved(x, g):
    x -= 0.1 * g


@pytest.mark.parametrize("situation", ["alone", "both"])
def test_both_forms_end_with_the_same_average(pair, situation):
    if pair is None:
        return
    mine = np.random.default_rng(pair.rank).random(LENGTH, np.float32)
    first, second = (
        np.random.default_rng(rank).random(LENGTH, np.float32) for rank in range(2)
    )
    with Replicas(pair, mine.copy(), moved) as replicas:
        bare = BarePair(pair.comm, mine)
        for nbytes in (1000, mine.nbytes):
            bare.memory[:] = mine
            pair.barrier()
            forms = (
                partial(replicas.average_with, 1 - pair.rank),
                partial(bare.average, bare.blocks(nbytes)),
            )
            times = SITUATIONS[situation](pair, forms, 3, 1)
            assert [len(series) for series in times] == [3, 3]
            out = np.empty_like(mine)
            replicas.read(out)
            np.testing.assert_array_equal(out, (first + second) * np.float32(0.5))
            np.testing.assert_array_equal(out, bare.memory)
            pair.barrier()
        bare.close()


def test_a_bare_step_averages_then_updates_then_copies(pair):
    if pair is None:
        return
    x = np.full(5, 2.0 * pair.rank, np.float32)
    out, g = np.zeros(5, np.float32), np.ones(5, np.float32)
    bare = BarePair(pair.comm, x)
    if pair.rank == 0:
        bare.step(bare.blocks(x.nbytes), g, out, 0.25)
    pair.barrier()
    np.testing.assert_array_equal(bare.memory, 0.75 if pair.rank == 0 else 1.0)
    if pair.rank == 0:
        np.testing.assert_array_equal(out, 0.75)
    pair.barrier()
    bare.close()


def test_average_prints_the_documented_lines(pair, capsys):
    if pair is None:
        return
    words = ["-i", "6", "-x", "1", "-m", "1K:2K"]
    average(pair, AverageOptions.from_argv(words))
    lines = capsys.readouterr().out.splitlines()
    if pair.rank != 0:
        assert not lines
        return
    assert lines[0].startswith("# dsgd-bench average")
    assert any(line.startswith("# MPI library: ") for line in lines)
    assert "# Iterations: 6, warm-up 1" in lines
    rows = [line.split() for line in lines if line.split()[0] in ("1024", "2048")]
    assert [row[:2] for row in rows] == [
        [size, situation] for size in ("1024", "2048") for situation in SITUATIONS
    ]
    figures = [line.split() for line in lines if line.startswith("FOM ")]
    names = {name for _, name, _, _ in figures}
    assert {"average_ratio_1KiB_alone", "average_ratio_2KiB_both"} <= names
    assert all(float(value) > 0 for _, name, value, _ in figures if "ratio" in name)
    assert figures[-1][1] == "step_beyond_bare"
    assert lines[-1] == "dsgd-bench bench average " + " ".join(words)


def test_average_refuses_any_number_of_ranks_but_two():
    alone = MpiFabric(MPI.COMM_SELF)
    with pytest.raises(ConfigError, match="runs on 2 ranks, not 1"):
        average(alone, AverageOptions())
    alone.close()


def test_recording_prints_the_documented_lines(pair, capsys, tmp_path):
    if pair is None:
        return
    options = RecordingOptions(
        ranks=2, iterations=1, warm_up=0, steps=120, folder=tmp_path
    )
    recording(pair, options)
    lines = capsys.readouterr().out.splitlines()
    if pair.rank != 0:
        assert not lines
        return
    figures = {
        words[1]: float(words[2])
        for words in map(str.split, lines)
        if words[0] == "FOM"
    }
    assert figures.keys() >= {"recording_share", "recording_share_direct", "close_step"}
    assert figures["flush"] > 0, "the run is longer than the time between two flushes"
    assert figures["span_gap"] < 1
