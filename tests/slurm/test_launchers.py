"""Every launcher of every MPI library starts one world over two nodes."""

import pytest
from virtual_cluster import STUDY

from dsgd_bench.config import read_study
from dsgd_bench.config.identity import trial_id
from dsgd_bench.io.trial_folder import ERROR, READY
from dsgd_bench.trace import open_trace


@pytest.mark.library
def test_doctor_finds_one_world_on_two_nodes(slurm, launcher):
    machine = slurm.machine(launcher)
    job = slurm.submit(f"$PYTHON -m dsgd_bench doctor -n 4 --machine {machine}")
    slurm.wait(job)
    said = slurm.output(job)
    assert "4 started, 4 in one job" in said, said
    assert launcher[0] in said, said


@pytest.mark.library
def test_a_tiny_study_runs_over_two_nodes(slurm, launcher):
    machine = slurm.machine(launcher)
    study = slurm.write("tiny.toml", STUDY)
    job = slurm.submit(f"$PYTHON -m dsgd_bench run {study} --machine {machine}")
    ended = slurm.wait(job)
    assert ended["JobState"] == "COMPLETED", slurm.output(job)
    (trial,) = read_study(study).trials
    folder = slurm.folder / "results" / "tiny" / trial_id(trial)
    assert (folder / READY).exists()
    trace = open_trace(folder / "trace.h5")
    assert (trace["steps_done"] > 0).all()
    assert list(trace["node"]) == [0, 0, 1, 1]


@pytest.mark.library
@pytest.mark.parametrize("option", [[], ["--mpi=none"]], ids=["no-mpi", "mpi-none"])
def test_srun_that_starts_worlds_of_one_is_refused_in_a_sentence(slurm, option):
    machine = slurm.machine(["srun", *option, "-n", "{ranks}"])
    study = slurm.write("tiny.toml", STUDY)
    job = slurm.submit(f"$PYTHON -m dsgd_bench run {study} --machine {machine}")
    ended = slurm.wait(job)
    assert ended["JobState"] == "FAILED"
    said = slurm.output(job)
    assert "Traceback" not in said
    (trial,) = read_study(study).trials
    folder = slurm.folder / "results" / "tiny" / trial_id(trial)
    reason = (folder / ERROR).read_text()
    assert "4 ranks were asked for, but this MPI job has size 1" in reason
    assert "--mpi" in reason
    assert not (folder / READY).exists()
