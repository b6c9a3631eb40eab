"""What a batch system does to a running study: arrays, dependencies, failures."""

from virtual_cluster import LAUNCHERS, ROOT, STUDY, until

from dsgd_bench.config import read_study
from dsgd_bench.rank import ERROR

LAUNCHER = next(iter(LAUNCHERS.values()), [])
SABOTAGE = ROOT / "tests" / "cli" / "sabotage"

RUN = "$PYTHON -m dsgd_bench run {study} --machine {machine}"


def test_a_rank_that_raises_ends_its_job_and_those_that_depend_on_it(slurm):
    study = slurm.write("tiny.toml", STUDY.replace("0.5", "60"))
    machine = slurm.machine(LAUNCHER)
    (trial,) = read_study(study).trials
    folder = slurm.folder / "results" / "tiny" / trial.id
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


def test_a_requeued_job_runs_only_what_is_not_finished(slurm):
    text = STUDY.replace("ranks = 4", "ranks = 2\nrepeats = 2").replace("0.5", "6")
    study = slurm.write("tiny.toml", text)
    machine = slurm.machine(LAUNCHER)
    results = slurm.folder / "results" / "tiny"
    job = slurm.submit(RUN.format(study=study, machine=machine), nodes=1)
    until(lambda: len([*results.glob("*/READY")]) == 1, 60, slurm.report(job))
    (first,) = results.glob("*/READY")
    finished = first.stat().st_mtime_ns
    slurm.ask("scontrol", "requeue", job)
    slurm.start_now(job)
    ended = slurm.wait(job)
    assert ended["JobState"] == "COMPLETED", slurm.output(job)
    assert ended["Restarts"] == "1"
    assert len([*results.glob("*/READY")]) == 2
    assert first.stat().st_mtime_ns == finished, "what was finished was not run again"


SPOIL = """
for left in /dev/shm/mpich_shm_*; do
    test ! -f "$left" || head -c $(stat -c %s "$left") /dev/urandom >"$left"
done
"""
"""Memory that killed ranks of MPICH have left on this node gets another content."""


def test_what_killed_ranks_left_in_shared_memory_is_not_taken_up_again(slurm):
    """Under PMI2 the step of a job that was put back has the name of the one before."""
    text = STUDY.replace("ranks = 4", "ranks = 2").replace("0.5", "8")
    study = slurm.write("tiny.toml", text)
    machine = slurm.machine(LAUNCHER)
    results = slurm.folder / "results" / "tiny"
    run = RUN.format(study=study, machine=machine)
    job = slurm.submit(SPOIL + run, nodes=1)
    until(lambda: [*results.glob("*/rank-0000.h5")] != [], 60, slurm.report(job))
    slurm.ask("scontrol", "requeue", job)
    slurm.start_now(job)
    ended = slurm.wait(job)
    assert ended["JobState"] == "COMPLETED", slurm.output(job)
    assert ended["Restarts"] == "1"
    assert len([*results.glob("*/READY")]) == 1
