"""What the exit status and the last line say about a study that was run."""

import re
import subprocess
from pathlib import Path

import h5py
import pytest

MISSED = "measure.target={loss=1e-9}"
REACHED = "measure.target={loss=100.0}"
LAST = re.compile(r"DSGD_BENCH_RESULT (OK|FAIL) id=[0-9a-f]{12}")


def last_word(done: subprocess.CompletedProcess[str]) -> str:
    found = LAST.fullmatch(done.stdout.splitlines()[-1])
    assert found, done.stdout + done.stderr
    return found[1]


def traces(results: Path) -> list[Path]:
    return sorted(results.glob("*/trace.h5"))


def test_a_target_that_is_reached_is_status_0_and_one_that_is_not_4(dsgd_bench):
    study = dsgd_bench.study()
    reached = dsgd_bench("run", study, "--set", REACHED)
    assert (reached.returncode, last_word(reached)) == (0, "OK")
    assert "all pass" in reached.stdout
    assert re.search(r"^FOM time_to_target\[adpsgd,\S+\] 0 s$", reached.stdout, re.M)

    missed = dsgd_bench("run", study, "--set", MISSED)
    assert (missed.returncode, last_word(missed)) == (4, "OK"), missed.stderr
    assert re.search(r"^FOM time_to_target\[adpsgd,\S+\] inf s$", missed.stdout, re.M)
    # the other trial lies in the same folder, but is none of this study's
    assert "FOM trials 1 count" in missed.stdout


@pytest.mark.slow
def test_a_trace_that_fails_verification_is_status_3_whatever_the_target(dsgd_bench):
    study = dsgd_bench.study()
    assert dsgd_bench("run", study, "--set", MISSED).returncode == 4
    (path,) = traces(dsgd_bench.folder / "results" / "tiny")
    with h5py.File(path, "r+") as file:
        file["samples_done"][0] += 1.0
    again = dsgd_bench("run", study, "--set", MISSED)
    assert (again.returncode, last_word(again)) == (3, "FAIL")
    assert "every gradient counted" in again.stdout
    report = dsgd_bench("report", path.parents[1], "--mllog")
    assert (report.returncode, last_word(report)) == (0, "FAIL")
    assert "MLLOG" not in report.stdout, "only valid trials have a log"


@pytest.mark.library
def test_inside_an_mpi_job_the_status_is_the_same(dsgd_bench):
    done = dsgd_bench.in_job(2, "run", dsgd_bench.study(), "--set", MISSED)
    assert done.returncode == 4, done.stderr
    assert len(LAST.findall(done.stdout)) == 1, "one rank speaks for all"


@pytest.mark.slow
@pytest.mark.parametrize("words", [("list",), ("report", "results")])
def test_output_that_nobody_reads_any_more_ends_the_command_quietly(dsgd_bench, words):
    assert dsgd_bench("run", dsgd_bench.study()).returncode == 0
    done = subprocess.run(
        ["bash", "-c", '"$@" | true; exit ${PIPESTATUS[0]}', "-"]
        + dsgd_bench.words(*words),
        cwd=dsgd_bench.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
