"""What a batch system does to a running study: arrays, dependencies, failures."""

import pytest
from virtual_cluster import LAUNCHERS, ROOT, STUDY, until

from dsgd_bench.config import read_study
from dsgd_bench.config.identity import trial_id
from dsgd_bench.io.trial_folder import ERROR

LAUNCHER = next(iter(LAUNCHERS.values()), [])
SABOTAGE = ROOT / "tests" / "cli" / "sabotage"

RUN = "$PYTHON -m dsgd_bench run {study} --machine {machine}"


@pytest.mark.library
def test_a_rank_that_raises_ends_its_job_and_those_that_depend_on_it(slurm):
    study = slurm.write("tiny.toml", STUDY.replace("0.5", "60"))
    machine = slurm.machine(LAUNCHER)
    (trial,) = read_study(study).trials
    folder = slurm.folder / "results" / "tiny" / trial_id(trial)
    broken = f"raise:1:{folder / 'rank-0001.h5'}"
    job = slurm.submit(
        f"export PYTHONPATH={SABOTAGE}:$PYTHONPATH DSGD_TEST_SABOTAGE={broken}\n"
        + RUN.format(study=study, machine=machine),
    )
    after = slurm.submit(
        "echo never", f"--dependency=afterok:{job}", "--kill-on-invalid-dep=yes"
    )
    ended = slurm.wait(job)
    assert ended["JobState"] == "FAILED"
    assert ended["ExitCode"] == "1:0"
    assert "rank 1 raised ArithmeticError" in (folder / ERROR).read_text()
    assert slurm.wait(after, seconds=30)["JobState"] == "CANCELLED"
    assert slurm.output(after) == ""


SPOIL = """srun --mpi=none --nodes=2 --ntasks=2 --ntasks-per-node=1 sh -c '
for left in /dev/shm/mpich_shm_*; do
    test ! -f "$left" || head -c $(stat -c %s "$left") /dev/urandom >"$left"
done'
"""
"""On both nodes, memory that killed ranks of MPICH have left gets another content."""


def test_a_requeued_job_runs_only_what_is_not_finished(slurm):
    """What was killed does not stand in the way of what has the same name.

    Steps of this job: one that spoils, the first trial, the second, which is killed;
    put back, one that spoils, one that removes, the second trial.
    """
    text = STUDY.replace("ranks = 4", "ranks = 4\nrepeats = 2").replace("0.5", "6")
    study = slurm.write("tiny.toml", text)
    machine = slurm.machine(LAUNCHER)
    results = slurm.folder / "results" / "tiny"
    job = slurm.submit(SPOIL + RUN.format(study=study, machine=machine))
    until(lambda: len([*results.glob("*/READY")]) == 1, 60, slurm.report(job))
    # ranks of the second have met once they write
    until(lambda: len([*results.glob("*/rank-0000.h5")]) == 2, 60, slurm.report(job))
    (first,) = results.glob("*/READY")
    finished = first.stat().st_mtime_ns
    slurm.ask("scontrol", "requeue", job)
    slurm.start_now(job)
    ended = slurm.wait(job)
    assert ended["JobState"] == "COMPLETED", slurm.output(job)
    assert ended["Restarts"] == "1"
    assert len([*results.glob("*/READY")]) == 2
    assert first.stat().st_mtime_ns == finished, "what was finished was not run again"
    assert "could not be removed" not in slurm.output(job)
