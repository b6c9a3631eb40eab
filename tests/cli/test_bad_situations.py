"""What goes wrong on real machines must cost little and be said plainly."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from dsgd_bench.config import read_study
from dsgd_bench.config.identity import trial_id
from dsgd_bench.host import processes
from dsgd_bench.io.trial_folder import ERROR, READY
from dsgd_bench.trace import open_trace

LONG = "study.budget={seconds=600}"  # ends only because something ends it


def wait_until(condition: Callable[[], bool], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"nothing happened within {seconds} s")
        time.sleep(0.05)


def folder_of(dsgd_bench, study: Path, *changes: str) -> Path:
    (trial,) = read_study(study, changes).trials
    return dsgd_bench.folder / "results" / study.stem / trial_id(trial)


@pytest.mark.library
def test_a_rank_that_raises_ends_the_job_and_shows_its_traceback(dsgd_bench):
    study = dsgd_bench.study()
    folder = folder_of(dsgd_bench, study, LONG)
    broken = dsgd_bench.sabotage("raise", 1, folder / "rank-0001.h5")
    done = dsgd_bench("run", study, "--set", LONG, **broken)
    assert done.returncode == 1
    log = (folder / "log.txt").read_text()
    assert "Traceback" in log
    assert "ArithmeticError" in log
    assert "rank 1 raised ArithmeticError" in (folder / ERROR).read_text()
    assert "rank 1 raised" in done.stderr


@pytest.mark.library
def test_a_killed_rank_leaves_every_shard_readable_and_is_run_again(dsgd_bench):
    study = dsgd_bench.study()
    folder = folder_of(dsgd_bench, study, LONG)
    broken = dsgd_bench.sabotage("kill", 1, folder / "rank-0001.h5")
    done = dsgd_bench("run", study, "--set", LONG, **broken)
    assert done.returncode == 1
    for rank in (0, 1):
        with h5py.File(folder / f"rank-000{rank}.h5", "r") as shard:
            assert len(shard["rows"]) > 0, "flushed before the kill"
    trace = open_trace(folder / "trace.h5")
    assert trace.status == "crashed"
    assert (trace["steps_done"] > 0).all()
    assert not (folder / READY).exists()

    # the same trial, by its id, once more and unharmed; Ctrl-C would take a minute
    resumed = dsgd_bench.start("run", study, "--set", LONG)
    wait_until(lambda: (folder / "rank-0001.h5").exists() and ran_again(folder))
    resumed.send_signal(signal.SIGINT)
    resumed.communicate(timeout=240)
    assert resumed.returncode == 130


def ran_again(folder: Path) -> bool:
    return not (folder / ERROR).exists() and not (folder / "trace.h5").exists()


@pytest.mark.slow
@pytest.mark.library
def test_a_rank_that_stops_answering_is_ended_by_the_watchdog(dsgd_bench):
    study = dsgd_bench.study()
    machine = dsgd_bench.machine("watchdog = 4.0\n")
    change = 'algorithm.kind="allreduce"'  # the others wait for it
    folder = folder_of(dsgd_bench, study, LONG, change)
    broken = dsgd_bench.sabotage("stop", 1, folder / "rank-0001.h5")
    words = ("run", study, "--machine", machine, "--set", LONG, "--set", change)
    done = dsgd_bench(*words, **broken)
    assert done.returncode == 1
    log = (folder / "log.txt").read_text()
    assert "watchdog: rank 0 has not moved for 4 s" in log
    assert "most recent call first" in log, "the stack of the waiting rank"
    assert "has not moved" in (folder / ERROR).read_text()


def test_a_launcher_of_another_library_gives_one_sentence(dsgd_bench):
    study = dsgd_bench.study(text=dsgd_bench.study().read_text())
    fake = dsgd_bench.folder / "fake_launcher.py"
    # starts n processes that know nothing of each other, as a wrong mpiexec does
    fake.write_text(
        "import subprocess, sys\n"
        "n, command = int(sys.argv[1]), sys.argv[2:]\n"
        "ranks = [subprocess.Popen(command) for _ in range(n)]\n"
        "sys.exit(max(rank.wait() for rank in ranks))\n"
    )
    machine = dsgd_bench.machine(
        f'launcher = ["python3", "{fake}", "{{ranks}}"]\nwatchdog = 20.0\n'
    )
    done = dsgd_bench("run", study, "--machine", machine)
    assert done.returncode == 1
    log = (folder_of(dsgd_bench, study) / "log.txt").read_text()
    assert log.count("2 ranks were asked for, but this MPI job has size 1") == 1
    assert "Traceback" not in log
    assert "libmpi" in log


def test_results_that_cannot_be_written_are_refused_at_once(dsgd_bench):
    (dsgd_bench.folder / "file").write_text("not a folder")
    done = dsgd_bench("run", dsgd_bench.study(), "--results", "file/results")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.library
def test_a_full_disk_is_said_in_a_sentence(dsgd_bench):
    study = dsgd_bench.study()
    changes = ("study.budget={seconds=4}", "compute.seconds=1e-5")  # many rows
    folder = folder_of(dsgd_bench, study, *changes)
    broken = dsgd_bench.sabotage("full", 1, folder / "rank-0001.h5")
    words = ("run", study, "--set", changes[0], "--set", changes[1])
    done = dsgd_bench(*words, **broken)
    assert done.returncode == 1
    assert "rank 1 cannot write its trace" in done.stderr
    assert "free some space" in done.stderr
    assert "Traceback" not in done.stderr


def test_divergence_is_a_result_and_not_a_crash(dsgd_bench):
    study = dsgd_bench.study()
    changes = ("optimizer.lr=1e30", 'algorithm.kind="allreduce"')
    done = dsgd_bench("run", study, "--set", changes[0], "--set", changes[1])
    assert done.returncode == 0, done.stderr
    trace = open_trace(folder_of(dsgd_bench, study, *changes) / "trace.h5")
    assert trace.status == "diverged"
    assert not np.isfinite(trace["loss_of_mean"][-1])


@pytest.mark.library
def test_ctrl_c_keeps_finished_trials_and_leaves_no_process(dsgd_bench):
    study = dsgd_bench.study()
    change = "study.repeats=20"
    running = dsgd_bench.start("run", study, "--set", change)
    results = dsgd_bench.folder / "results" / "tiny"
    wait_until(lambda: any(results.glob(f"*/{READY}")))
    time.sleep(0.5)  # into the middle of the next trial
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=240)
    assert running.returncode == 130
    assert "finished trials are kept" in errors
    assert "Traceback" not in errors
    for trial in results.glob(f"*/{READY}"):
        assert open_trace(trial.parent / "trace.h5").status in ("exhausted", "reached")
    left = [
        entry
        for entry in Path("/proc").glob("[0-9]*")
        if f"{processes.MARK}={running.pid}-" in environment_of(entry)
    ]
    assert left == []


def environment_of(process: Path) -> str:
    try:
        return (process / "environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""  # ended meanwhile, or somebody else's


@pytest.mark.slow
def test_two_runs_on_one_folder_share_the_work(dsgd_bench):
    study = dsgd_bench.study()
    change = "study.repeats=3"
    pair = [dsgd_bench.start("run", study, "--set", change) for _ in range(2)]
    outputs = [run.communicate(timeout=240) for run in pair]
    assert [run.returncode for run in pair] == [0, 0], outputs
    results = dsgd_bench.folder / "results" / "tiny"
    ids = {trial_id(trial) for trial in read_study(study, [change]).trials}
    assert {path.parent.name for path in results.glob(f"*/{READY}")} == ids
    finished = "".join(error for _, error in outputs).count(": finished")
    assert finished == len(ids), "every trial was run by exactly one of the two"


@pytest.mark.library
@pytest.mark.parametrize(
    "verb",
    [("run", "tiny.toml"), ("doctor-rank", "4", "auto"), ("bench-rank", "average")],
    ids=lambda words: words[0],
)
def test_ranks_of_a_slurm_step_that_do_not_see_each_other_are_refused(dsgd_bench, verb):
    """`srun -n 4` with ``MpiDefault=none``: four worlds of size one, and no warning."""
    dsgd_bench.study()
    step = {"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "4"}
    first = dsgd_bench(*verb, **step, SLURM_PROCID="0")
    assert first.returncode == 2
    assert "4 ranks were asked for, but this MPI job has size 1" in first.stderr
    assert "SLURM_STEP_NUM_TASKS=4" in first.stderr
    assert "libmpi" in first.stderr
    assert "start with" in first.stderr
    other = dsgd_bench(*verb, **step, SLURM_PROCID="2")
    assert (other.returncode, other.stderr) == (2, ""), "one of them speaks for all"
    assert not (dsgd_bench.folder / "results").exists()
