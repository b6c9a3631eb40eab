"""Shared memory of killed ranks: when it is removed, and which of it."""

import mmap
import subprocess
from pathlib import Path

import pytest

from dsgd_bench.spec.machine import Machine
from dsgd_bench.study import stale_segments

BY_PMI2 = Machine(launcher=("srun", "--mpi=pmi2", "-n", "{ranks}"))
AGAIN = {"SLURM_RESTART_COUNT": "1", "SLURM_JOB_NUM_NODES": "3"}


def test_every_node_is_visited_once():
    said = stale_segments.words(BY_PMI2, AGAIN)
    assert said[0] == "srun"
    assert {"--nodes=3", "--ntasks=3", "--ntasks-per-node=1"} < set(said)


@pytest.mark.parametrize(
    ("machine", "variables"),
    [
        (BY_PMI2, {}),
        (BY_PMI2, AGAIN | {"SLURM_RESTART_COUNT": "0"}),
        (Machine(), AGAIN),
    ],
    ids=["no-job", "first-time", "mpiexec"],
)
def test_nothing_is_started_where_there_can_be_none(machine, variables):
    assert stale_segments.words(machine, variables) == []


def test_only_what_no_process_uses_is_removed():
    shared = Path("/dev/shm")
    used, left = (shared / f"mpich_shm_test_leftovers_{name}" for name in "ab")
    other = shared / "test_leftovers_of_somebody_else"
    try:
        for path in (used, left, other):
            path.write_bytes(bytes(mmap.PAGESIZE))
        with used.open("r+b") as file, mmap.mmap(file.fileno(), 0):
            subprocess.run(["sh", "-c", stale_segments.REMOVE], check=True, timeout=60)
        assert (used.exists(), left.exists(), other.exists()) == (True, False, True)
    finally:
        for path in (used, left, other):
            path.unlink(missing_ok=True)


def test_a_failure_is_said_and_does_not_stop_the_run(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # where there is no srun
    for name, value in AGAIN.items():
        monkeypatch.setenv(name, value)
    stale_segments.remove(BY_PMI2)
    assert "could not be removed" in capsys.readouterr().err
