"""Stopped before the end of a job: exit status 75, and the same command goes on."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dsgd_bench import trace
from dsgd_bench.host import processes
from dsgd_bench.io.trial_folder import READY, STOPPED
from dsgd_bench.study import stopping

TRIAL = """
[study]
ranks = 2
budget = { steps = 150 }

[problem]
kind = "softmax"

[algorithm]
kind = "KIND"

[compute]
mode = "emulated"
seconds = 0.02
"""


def wait_until(condition: Callable[[], bool], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def under_way(folder: Path) -> Callable[[], bool]:
    """Return whether some trial has recorded its first steps."""
    return lambda: any(path.stat().st_size > 12000 for path in folder.rglob("rank-*"))


def marked(pid: int) -> list[Path]:
    """Return the processes that a dsgd-bench with this number launched."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"{processes.MARK}={pid}-".encode() in (entry / "environ").read_bytes():
                found.append(entry)
        except OSError:
            continue  # ended meanwhile
    return found


@pytest.mark.slow
@pytest.mark.library
@pytest.mark.parametrize("kind", ["allreduce", "adpsgd-waitfree"])
def test_a_stopped_trial_goes_on_where_it_was(dsgd_bench, kind):
    study = dsgd_bench.study(text=TRIAL.replace("KIND", kind))
    stop = dsgd_bench.folder / "STOP"
    results = dsgd_bench.folder / "results" / "tiny"
    running = dsgd_bench.start("run", study, **{stopping.FILE: str(stop)})
    wait_until(under_way(results))
    stop.touch()
    output, errors = running.communicate(timeout=60)
    assert running.returncode == 75, errors
    assert "the same command goes on" in output
    (folder,) = results.iterdir()
    assert (folder / STOPPED).exists()
    assert not (folder / READY).exists()
    refused = dsgd_bench("run", study, **{stopping.FILE: str(stop)})
    assert refused.returncode == 75  # the sign is still there: nothing is started
    assert trace.checkpoint.find(folder) is not None
    stop.unlink()
    done = dsgd_bench("run", study, **{stopping.FILE: str(stop)})
    assert done.returncode == 0, done.stderr
    whole = trace.open_trace(folder / "trace.h5")
    assert len(whole.interruptions) == 1
    assert 300 <= whole["steps_done"].sum() <= 302
    if kind == "allreduce":
        once = dsgd_bench("run", study, "--results", "at-once")
        assert once.returncode == 0, once.stderr
        (other,) = (dsgd_bench.folder / "at-once" / "tiny").glob("*/trace.h5")
        np.testing.assert_array_equal(whole["loss"], trace.open_trace(other)["loss"])


@pytest.mark.slow
def test_ranks_stop_by_themselves_before_the_job_ends(dsgd_bench):
    text = TRIAL.replace("KIND", "adpsgd").replace("steps = 150", "seconds = 60.0")
    study = dsgd_bench.study(text=text)
    machine = dsgd_bench.machine("stop_margin = 30.0\n")
    end = str(int(time.time()) + 40)
    started = time.monotonic()
    done = dsgd_bench("run", study, "--machine", machine, **{stopping.END: end})
    assert done.returncode == 75, done.stderr
    assert time.monotonic() - started < 40


@pytest.mark.slow
@pytest.mark.library
def test_a_killed_launcher_leaves_no_orphan_and_no_trial_behind(dsgd_bench):
    """Two on one folder; one dies by SIGKILL in the middle of a trial."""
    study = dsgd_bench.study()
    change = ("--set", "study.repeats=4", "--set", "study.budget.seconds=1.0")
    victim = dsgd_bench.start("run", study, *change)
    results = dsgd_bench.folder / "results" / "tiny"
    wait_until(under_way(results))
    other = dsgd_bench.start("run", study, *change)
    wait_until(lambda: len(marked(other.pid)) > 2)
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate(timeout=90)
    wait_until(lambda: not marked(victim.pid))
    output, errors = other.communicate(timeout=90)
    assert other.returncode == 0, errors
    ready = [path.parent for path in results.glob(f"*/{READY}")]
    assert len(ready) == 4, output + errors
    for folder in ready:
        assert trace.open_trace(folder / "trace.h5").status in ("exhausted", "reached")
