"""A disk without any room: the reason is printed, and so are numbers that there are.

Each command runs in a mount namespace of its own with a small tmpfs, so that the disk
is full for everything: traces, the log, the file ERROR, the report.
"""

import os
import shlex
import shutil
import subprocess
import sys

import pytest


def may_mount() -> bool:
    if os.geteuid() or shutil.which("unshare") is None:
        return False
    words = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=1m", "none", "/mnt"]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(
    not may_mount(), reason="a tmpfs of a test's own cannot be mounted here"
)

SMALL = """
[study]
ranks = 2
budget = { seconds = 0.3 }

[problem]
kind = "softmax"

[[algorithm]]
kind = "allreduce"

[compute]
mode = "emulated"
seconds = 0.01
"""

FILLING = ("study.budget={seconds=600}", "compute.seconds=1e-5")
"""Changes by which a trial records far more than the disks below have room for, on a
busy machine too. A full disk ends it, or the command runs into its time limit."""


@pytest.fixture
def on_disk(dsgd_bench):
    """Return a function that runs a command beside a small disk named ``disk``."""
    (dsgd_bench.folder / "disk").mkdir()

    def run(size, *words, before="true", after="true"):
        command = shlex.join(map(str, words))
        script = (
            f"mount -t tmpfs -o size={size} none disk && {before} && {command}; "
            f"status=$?; {after}; exit $status"
        )
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script],
            cwd=dsgd_bench.folder,
            env=dsgd_bench.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert "Traceback" not in done.stderr + done.stdout
        return done

    return run


def words(dsgd_bench, verb, study, *changes):
    more = [word for change in changes for word in ("--set", change)]
    return [*dsgd_bench.words(verb, study, *more), "--results", "disk"]


def leftovers(text):
    """Return the files of a listing that were to be renamed, or to be removed."""
    return [name for name in text.split() if ".part" in name or ".probe" in name]


def test_a_run_whose_disk_is_full_prints_the_reason(dsgd_bench, on_disk):
    study = dsgd_bench.study(text=SMALL)
    command = words(dsgd_bench, "run", study, *FILLING)
    done = on_disk("250k", *command, after="find disk; wc -c disk/*/*/log.txt")
    assert done.returncode == 1
    assert "cannot write its trace" in done.stderr
    assert "No space left on device" in done.stderr
    assert "free some space" in done.stderr
    assert "DSGD_BENCH_RESULT FAIL" in done.stdout
    assert not leftovers(done.stdout)


def test_a_simulation_whose_trace_does_not_fit_is_a_failed_trial(dsgd_bench, on_disk):
    """It was taken for a success: its file ERROR had no room and was empty."""
    study = dsgd_bench.study(text=SMALL)
    changes = ("study.ranks=4", "study.budget={steps=300}")
    command = words(dsgd_bench, "simulate", study, *changes)
    done = on_disk("24k", *command, after="find disk")
    assert done.returncode == 1, done.stderr
    assert "No space left on device" in done.stderr
    assert "DSGD_BENCH_RESULT FAIL" in done.stdout
    assert "READY" not in done.stdout
    assert not leftovers(done.stdout)


def test_numbers_are_printed_where_no_report_can_be_written(dsgd_bench, on_disk):
    study = dsgd_bench.study(text=SMALL)
    dsgd_bench("simulate", study)
    results = dsgd_bench.folder / "results" / "tiny"
    for report in results.glob("*.*"):
        report.unlink()
    fill = f"cp -r {results} disk/ && dd if=/dev/zero of=disk/ballast status=none; true"
    report = dsgd_bench.words("report", "disk/tiny")
    done = on_disk("300k", *report, before=f"({fill})", after="find disk")
    assert done.returncode == 1
    assert "FOM time_per_epoch[allreduce" in done.stdout
    said = " ".join(done.stdout.split())
    assert "cannot be written to disk/tiny (No space left on device)" in said
    assert "DSGD_BENCH_RESULT OK" in said
    assert not leftovers(done.stdout)


def test_trials_before_the_disk_was_full_are_still_reported(dsgd_bench, on_disk):
    kinds = SMALL + '\n[[algorithm]]\nkind = "localsgd"\n'
    study = dsgd_bench.study(text=kinds)
    # whichever trial is the first: the disk is filled when it is finished
    filler = (
        "(until ls disk/tiny/*/READY; do sleep 0.02; done; "
        "dd if=/dev/zero of=disk/ballast) >/dev/null 2>&1 & true"
    )
    command = words(dsgd_bench, "run", study)
    done = on_disk("2m", *command, before=f"{{ {filler}; }}")
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("FOM time_per_epoch[") == 1
    assert "failed: cannot write" in done.stderr or "cannot be written" in done.stderr


FULL = "dd if=/dev/zero of=disk/ballast status=none 2>/dev/null; true"

WRITERS = {
    "checkpoint": """
import numpy as np
from pathlib import Path
from dsgd_bench.fabric import ledger
from dsgd_bench.errors import TraceError
from dsgd_bench.trace import checkpoint
rows = np.zeros((0, len(ledger.COLUMNS)))
kept = {"x": np.random.default_rng(0).random(100_000)}
try:
    saved = checkpoint.Checkpoint(1, 0.1, kept, {}, rows)
    checkpoint.write(Path("disk"), 3, saved, trial="x")
except TraceError as error:
    print("said:", error)
""",
    "profile": """
from pathlib import Path
from dsgd_bench.errors import ConfigError
from dsgd_bench.spec.machine_profile import Profile
measured = Profile(**{name: None for name in Profile.__struct_fields__})
try:
    measured.write(Path("disk/profile.json"))
except ConfigError as error:
    print("said:", error)
""",
}


@pytest.mark.parametrize("what", WRITERS)
def test_what_does_not_fit_is_said_and_leaves_nothing(dsgd_bench, on_disk, what):
    command = [sys.executable, "-c", WRITERS[what]]
    before = f"({FULL})" if what == "profile" else "true"
    done = on_disk("100k", *command, before=before, after="find disk -type f")
    assert done.returncode == 0, done.stderr
    assert "said: " in done.stdout
    assert "(No space left on device)" in done.stdout
    files = [line for line in done.stdout.splitlines() if line.startswith("disk/")]
    assert [name for name in files if "ballast" not in name] == []


def test_a_target_on_a_full_disk_is_refused_before_anything_is_measured(
    dsgd_bench, on_disk
):
    command = dsgd_bench.words("bench", "kernels", "-m", "64K", "--json", "disk/x.json")
    done = on_disk("100k", *command, before=f"({FULL})", after="find disk")
    assert done.returncode == 2
    assert "--json disk/x.json cannot be written (No space left" in done.stderr
    assert "x.json" not in done.stdout
