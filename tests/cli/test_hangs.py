"""Whatever stops answering, and whenever: it is noticed, ended, and said."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dsgd_bench.config import read_study
from dsgd_bench.config.identity import trial_id
from dsgd_bench.host import processes
from dsgd_bench.io.trial_folder import ERROR, READY
from dsgd_bench.spec.machine import Machine
from dsgd_bench.study import launch

MACHINE = "watchdog = 4.0\n"
LONG = "study.budget={seconds=60}"
SOON = 240.0
"""Seconds: far more than the watchdog and its margins on a busy machine, and less than
two of the default one."""


def wait_until(condition: Callable[[], object], seconds: float = SOON) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"nothing happened within {seconds} s")
        time.sleep(0.05)


def launched_by(pid: int) -> Iterator[tuple[int, str]]:
    """Yield every process that a run has started, with its words."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes().decode(errors="replace")
            words = (entry / "cmdline").read_bytes().decode().replace("\0", " ")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue  # ended meanwhile, or somebody else's
        if f"{processes.MARK}={pid}-" in environment and state != "Z":
            yield int(entry.name), words


def parent(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


def folder_of(dsgd_bench, study: Path, *changes: str) -> Path:
    (trial,) = read_study(study, changes).trials
    return dsgd_bench.folder / "results" / study.stem / trial_id(trial)


@pytest.mark.slow
@pytest.mark.library
def test_a_rank_that_hangs_after_all_was_done_does_not_spoil_the_trial(dsgd_bench):
    study, machine = dsgd_bench.study(), dsgd_bench.machine(MACHINE)
    folder = folder_of(dsgd_bench, study)
    broken = dsgd_bench.sabotage("stop-leaving", 1, folder / "rank-0001.h5")
    running = dsgd_bench.start("run", study, "--machine", machine, **broken)
    wait_until((folder / READY).exists)
    _, errors = running.communicate(timeout=SOON)
    assert running.returncode == 0, errors
    assert "is done and its results are kept, but" in errors
    assert not (folder / ERROR).exists()
    assert list(launched_by(running.pid)) == []


@pytest.mark.slow
@pytest.mark.library
def test_a_launcher_that_was_stopped_does_not_hold_up_the_study(dsgd_bench):
    study, machine = dsgd_bench.study(), dsgd_bench.machine(MACHINE)
    folder = folder_of(dsgd_bench, study)
    running = dsgd_bench.start("run", study, "--machine", machine)
    wait_until((folder / "rank-0001.h5").exists)
    (launcher,) = [
        pid for pid, _ in launched_by(running.pid) if parent(pid) == running.pid
    ]
    os.kill(launcher, signal.SIGSTOP)
    _, errors = running.communicate(timeout=SOON)
    assert running.returncode == 0, errors
    assert "is done and its results are kept, but" in errors
    assert "gave no sign of life" in errors
    assert list(launched_by(running.pid)) == []


@pytest.mark.slow
@pytest.mark.library
def test_ranks_that_all_stop_are_ended_with_their_launcher(dsgd_bench):
    study, machine = dsgd_bench.study(), dsgd_bench.machine(MACHINE)
    folder = folder_of(dsgd_bench, study, LONG)
    running = dsgd_bench.start("run", study, "--machine", machine, "--set", LONG)
    wait_until((folder / "rank-0001.h5").exists)
    ranks = [pid for pid, words in launched_by(running.pid) if " worker " in words]
    for rank in ranks:
        os.kill(rank, signal.SIGSTOP)
    _, errors = running.communicate(timeout=SOON)
    assert running.returncode == 1
    assert "gave no sign of life" in (folder / ERROR).read_text()
    assert "gave no sign of life" in errors
    assert "Traceback" not in errors
    assert list(launched_by(running.pid)) == []


@pytest.mark.library
def test_ctrl_c_to_a_single_rank_ends_the_trial_without_a_traceback(dsgd_bench):
    study, machine = dsgd_bench.study(), dsgd_bench.machine(MACHINE)
    folder = folder_of(dsgd_bench, study, LONG)
    running = dsgd_bench.start("run", study, "--machine", machine, "--set", LONG)
    wait_until((folder / "rank-0001.h5").exists)
    ranks = [
        pid
        for pid, words in launched_by(running.pid)
        if " worker " in words and Path(words.split()[0]).name.startswith("python")
    ]
    os.kill(max(ranks), signal.SIGINT)
    _, errors = running.communicate(timeout=SOON)
    assert running.returncode == 1, errors
    assert "the launcher ended with status" in (folder / ERROR).read_text()
    assert "Traceback" not in (folder / "log.txt").read_text() + errors
    assert list(launched_by(running.pid)) == []


@pytest.mark.slow
@pytest.mark.library
def test_a_rank_that_stops_between_the_trials_of_one_job_ends_it(dsgd_bench):
    study, machine = dsgd_bench.study(), dsgd_bench.machine(MACHINE)
    broken = dsgd_bench.sabotage("stop-between", 1, study)
    words = launch.starter(2, Machine(), sys.executable)
    words += launch.program(sys.executable, "run", str(study))
    environment = launch.variables(2, Machine(), sys.executable)
    done = subprocess.run(
        [*words, "--machine", str(machine)],
        cwd=dsgd_bench.folder,
        env=environment | dsgd_bench.environment(**broken),
        capture_output=True,
        text=True,
        timeout=SOON,
        check=False,
    )
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "rank 0 has not moved for 10 s" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_job_that_stood_still_as_a_whole_goes_on(dsgd_bench):
    """As `scontrol suspend` does it: no process has been silent longer than another."""
    study, machine = dsgd_bench.study(), dsgd_bench.machine("watchdog = 8.0\n")
    change = "study.budget={seconds=2}"
    folder = folder_of(dsgd_bench, study, change)
    running = dsgd_bench.start("run", study, "--machine", machine, "--set", change)
    wait_until((folder / "rank-0001.h5").exists)
    everybody = [running.pid, *(pid for pid, _ in launched_by(running.pid))]
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(20.0)  # longer than the watchdog, its last resort, and the listener
    for pid in everybody:
        os.kill(pid, signal.SIGCONT)
    _, errors = running.communicate(timeout=SOON)
    assert running.returncode == 0, errors


@pytest.mark.parametrize(
    "name", ["ERROR", "READY", "STOPPED", "job.json", "log.txt", "rank-0000.h5"]
)
def test_a_fifo_where_a_file_of_ours_belongs_holds_up_nothing(dsgd_bench, name):
    study = dsgd_bench.study()
    folder = folder_of(dsgd_bench, study)
    folder.mkdir(parents=True)
    os.mkfifo(folder / name)
    done = dsgd_bench("run", study)
    assert (folder / name).is_fifo()  # neither read nor removed: it is not ours
    assert "Traceback" not in done.stderr
    if name == "READY":  # finished, it says, and there is no trace
        assert done.returncode == 3, done.stderr
        assert "FOM trials_unreadable 1" in done.stdout
    else:
        assert done.returncode == 1, done.stderr
        assert f"{name} is in the way (it is a FIFO, not a file)" in done.stderr
