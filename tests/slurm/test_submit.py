"""Studies as jobs, from the template to the finished trace, on a real Slurm."""

import re
import shutil
from pathlib import Path

import pytest
from virtual_cluster import FAMILY, GOOD, LAUNCHERS, ROOT, STUDY, Slurm, until

from dsgd_bench.config import read_study
from dsgd_bench.config.identity import trial_id
from dsgd_bench.io.trial_folder import ERROR, READY
from dsgd_bench.trace import open_trace

LAUNCHER = next(iter(LAUNCHERS.values()), [])

SLURM = """
stop_margin = {margin}

[slurm]
template = "{family}.sbatch.j2"
time = "{time}"
ranks_per_node = 2
restarts = {restarts}
array = {array}
"""

STEPS = 600  # 9 s at least: time to be stopped in


def machine(
    slurm: Slurm, launcher: list[str], *, margin=20, time="5", restarts=0, array=1
) -> Path:
    """Write a machine file with [slurm] beside copies of the project's templates."""
    for template in (ROOT / "jobs").glob("*.sbatch.j2"):
        shutil.copy(template, slurm.folder)
    path = slurm.machine(launcher)
    more = SLURM.format(
        margin=margin, time=time, restarts=restarts, array=array, family=FAMILY
    )
    # keys of the file itself come before its tables
    margin_line, _, table = more.partition("\n\n")
    path.write_text(margin_line + "\n" + path.read_text() + "\n" + table)
    return path


def submit(slurm: Slurm, study: Path, path: Path, *words: object) -> list[str]:
    """Submit a study; return the numbers of the jobs that were sent."""
    done = slurm.dsgd_bench("submit", study, "--machine", path, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return re.findall(r"^job (\d+)", done.stdout, re.MULTILINE)


def folders(slurm: Slurm, study: Path, *changes: str) -> list[Path]:
    trials = read_study(study, changes).trials
    return [slurm.folder / "results" / study.stem / trial_id(trial) for trial in trials]


def long_study(slurm: Slurm, algorithm: str) -> tuple[Path, Path]:
    """Write a study of one long trial; return it and the trial's folder."""
    text = STUDY.replace("adpsgd", algorithm)
    text = text.replace("seconds = 0.5", f"steps = {STEPS}").replace("0.005", "0.015")
    study = slurm.write("long.toml", text)
    (folder,) = folders(slurm, study)
    return study, folder


@pytest.mark.library
@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_smoke_study_goes_from_template_to_ready(slurm, name):
    study = ROOT / "configs" / "smoke.toml"
    # as it is with Open MPI; with MPICH test_cluster_page.py does that
    short = ["study.budget={seconds=0.5}", "slowdown.factor=1"]
    changes = short if FAMILY == "mpich" else []
    words = [word for change in changes for word in ("--set", change)]
    path = machine(slurm, LAUNCHERS[name])
    (job,) = submit(slurm, study, path, *words)
    ended = slurm.wait(job, seconds=200)
    assert ended["ExitCode"] in GOOD, slurm.report(job)()
    finished = folders(slurm, study, *changes)
    assert len(finished) == (4 if changes else 8)
    assert all((folder / READY).exists() for folder in finished)
    trace = open_trace(finished[0] / "trace.h5")
    assert list(trace["node"]) == [0, 0, 1, 1]
    assert submit(slurm, study, path, *words) == [], "a second submit sends nothing"
    said = slurm.dsgd_bench("status", "results/smoke").stdout
    assert re.search(rf"{len(finished)} +finished", said)


def test_jobs_of_an_array_share_a_folder_and_run_every_trial_once(slurm):
    # two ranks each, so that three jobs at once do not crowd two cores
    text = STUDY.replace("ranks = 4", "ranks = 2\nrepeats = 6").replace("0.5", "0.2")
    study = slurm.write("tiny.toml", text)
    (job,) = submit(slurm, study, machine(slurm, LAUNCHER, array=3))
    assert submit(slurm, study, slurm.folder / "machine.toml") == [], "all are taken"
    for index in (1, 2, 3):
        ended = slurm.wait(f"{job}_{index}")
        assert ended["JobState"] == "COMPLETED", slurm.report(f"{job}_{index}")()
    assert all((folder / READY).exists() for folder in folders(slurm, study))
    run = re.findall(r"repeat (\d): finished", slurm.printed())
    assert sorted(run) == [*"012345"], "every trial was run, and none twice"


@pytest.mark.library
@pytest.mark.parametrize("algorithm", ["allreduce", "adpsgd"])
def test_a_job_that_is_told_to_stop_is_requeued_and_resumed(slurm, algorithm):
    study, folder = long_study(slurm, algorithm)
    (job,) = submit(slurm, study, machine(slurm, LAUNCHER, restarts=1))
    until(lambda: growing(folder), 60, slurm.report(job))
    slurm.ask("scancel", "--batch", "--signal=USR1", job)
    slurm.wait(job, "PENDING", seconds=60)
    assert not (folder / READY).exists()
    assert not (folder / ERROR).exists()
    assert submit(slurm, study, slurm.folder / "machine.toml") == []
    slurm.start_now(job)
    ended = slurm.wait(job)
    assert ended["JobState"] == "COMPLETED", slurm.report(job)()
    assert ended["Restarts"] == "1"
    assert (folder / READY).exists()
    assert_complete(folder, algorithm)


def growing(folder: Path) -> bool:
    """Say whether the trial is in the middle: its first shard has been flushed."""
    shard = folder / "rank-0000.h5"
    return shard.exists() and shard.stat().st_size > EMPTY


EMPTY = 20_000


def assert_complete(folder: Path, algorithm: str) -> None:
    """All steps are in the trace, those before the stop too, which it tells of."""
    trace = open_trace(folder / "trace.h5")
    assert len(trace.interruptions) == 1
    steps = trace["steps_done"]
    if algorithm == "allreduce":
        assert (steps == STEPS).all()
    else:  # the others finish the step that they are in when the last is given out
        assert 4 * STEPS <= steps.sum() < 4 * STEPS + 4


def test_a_job_stops_before_its_time_limit_and_what_is_left_is_sent_again(slurm):
    study, folder = long_study(slurm, "allreduce")
    # one minute, Slurm's shortest, less 48 seconds: stops in the middle of the trial
    path = machine(slurm, LAUNCHER, margin=48, time="1")
    (job,) = submit(slurm, study, path)
    ended = slurm.wait(job, seconds=55)
    assert ended["JobState"] == "FAILED", "by itself, before Slurm's TIMEOUT"
    assert ended["ExitCode"] == "75:0", slurm.report(job)()
    assert not (folder / READY).exists()
    assert re.search(r"1 +stopped", slurm.dsgd_bench("status", "results/long").stdout)
    path = machine(slurm, LAUNCHER)
    (again,) = submit(slurm, study, path)
    ended = slurm.wait(again)
    assert ended["JobState"] == "COMPLETED", slurm.report(again)()
    assert_complete(folder, "allreduce")


LOST = """#!/bin/bash
{sbatch} --hold "$@" >/dev/null
echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv" >&2
exit 1
"""


def test_a_job_whose_number_got_lost_is_found_by_its_name(slurm):
    study, _ = long_study(slurm, "allreduce")
    wrapper = slurm.write("sbatch", LOST.format(sbatch=shutil.which("sbatch")))
    wrapper.chmod(0o755)
    path = machine(slurm, LAUNCHER)
    first = {"PATH": f"{slurm.folder}:{slurm.env['PATH']}", "SBATCH_WAIT": "1"}
    done = slurm.dsgd_bench("submit", study, "--machine", path, **first)
    assert done.returncode == 0, done.stdout + done.stderr
    (job,) = slurm.jobs()
    assert f"job {job}: 1 trials" in done.stdout
    assert "SBATCH_WAIT is not passed on to sbatch" in done.stderr
    assert re.fullmatch(r"long-4-[0-9a-f]{12}", slurm.show(job)["JobName"])
    assert submit(slurm, study, path) == [], "it is in the hands of that job"
    slurm.ask("scancel", job)
    slurm.wait(job)
    (again,) = submit(slurm, study, path)
    slurm.ask("scancel", again)
