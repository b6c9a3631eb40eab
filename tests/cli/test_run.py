"""Running studies for real: finished, skipped, reported, inside an MPI job."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.config import read_study
from dsgd_bench.config.identity import trial_id
from dsgd_bench.fabric.columns import SPANS
from dsgd_bench.graphs import GRAPHS
from dsgd_bench.problems import PROBLEMS
from dsgd_bench.slowdowns import KINDS
from dsgd_bench.trace import VARIABLES, open_trace


def trial_folders(results: Path) -> list[Path]:
    return sorted(path.parent for path in results.glob("*/job.json"))


@pytest.mark.library
def test_run_writes_a_trace_of_every_trial_and_skips_it_next_time(dsgd_bench):
    study = dsgd_bench.study(
        text=dsgd_bench.study().read_text() + '[[algorithm]]\nkind = "allreduce"\n'
    )
    first = dsgd_bench("run", study)
    assert first.returncode == 0, first.stderr
    results = dsgd_bench.folder / "results" / "tiny"
    folders = trial_folders(results)
    assert {f.name for f in folders} == {trial_id(t) for t in read_study(study).trials}
    written = {f: (f / "trace.h5").stat().st_mtime_ns for f in folders}
    for word in ("adpsgd", "allreduce", "report.html", "dsgd-bench report"):
        assert word in first.stdout
    for name in ("report.md", "summary.csv", "summary.json", "report.html"):
        assert (results / name).stat().st_size > 0

    second = dsgd_bench("run", study)
    assert second.returncode == 0, second.stderr
    assert {f: (f / "trace.h5").stat().st_mtime_ns for f in folders} == written


def test_a_trace_opens_in_xarray_with_units_and_adds_up(dsgd_bench):
    assert dsgd_bench("run", dsgd_bench.study()).returncode == 0
    (folder,) = trial_folders(dsgd_bench.folder / "results" / "tiny")
    with xarray.open_dataset(folder / "trace.h5", engine="h5netcdf") as data:
        assert dict(data.sizes)["rank"] == 2
        for name, (dims, units, _) in VARIABLES.items():
            assert data[name].dims == dims
            assert data[name].attrs["units"] == units
        total = sum(data[name] for name in (*SPANS, "other"))
        # 1 % is what the suite promises; what is booked twice makes 'other' negative
        assert np.nanmax(np.abs(total / data["duration"] - 1)) < 0.01
        assert float(data["other"].min()) > -1e-6
        assert json.loads(data.attrs["dsgd_progress"])["pairs"]["same_node"]


@pytest.mark.library
def test_a_run_inside_an_mpi_job_uses_the_ranks_it_finds(dsgd_bench):
    study = dsgd_bench.study()
    done = dsgd_bench.in_job(3, "run", study, "--set", "study.ranks=[2, 3]")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("dsgd-bench report") == 1, "one rank speaks for all"
    folders = trial_folders(dsgd_bench.folder / "results" / "tiny")
    ranks = [open_trace(f / "trace.h5")["steps_done"] for f in folders]
    assert sorted(len(steps) for steps in ranks) == [2, 3]
    assert all((steps > 0).all() for steps in ranks)


@pytest.mark.library
def test_a_study_larger_than_the_job_around_it_is_refused_in_one_sentence(dsgd_bench):
    done = dsgd_bench.in_job(2, "run", dsgd_bench.study(), "--set", "study.ranks=5")
    assert done.returncode != 0
    assert done.stderr.count("asks for 5 ranks but this MPI job has 2") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.library
def test_inside_an_mpi_job_a_folder_that_is_odd_fails_its_trial_alone(dsgd_bench):
    """As where each trial has ranks of its own."""
    study, repeats = dsgd_bench.study(), "study.repeats=3"
    held, cleared, whole = read_study(study, [repeats]).trials
    results = dsgd_bench.folder / "results" / "tiny"
    (results / trial_id(cleared) / "log.txt").mkdir(parents=True)
    (results / trial_id(held)).touch()
    done = dsgd_bench.in_job(2, "run", study, "--set", repeats)
    assert done.returncode == 1, done.stderr
    assert f"{trial_id(held)} cannot be written" in done.stderr
    assert "log.txt is in the way (it is a folder, not a file)" in done.stderr
    assert (
        "log.txt is in the way" in (results / trial_id(cleared) / "ERROR").read_text()
    )
    assert (results / trial_id(whole) / "READY").exists()


def test_plan_names_trials_memory_and_duration_and_runs_nothing(dsgd_bench):
    done = dsgd_bench("plan", dsgd_bench.study())
    assert done.returncode == 0, done.stderr
    for word in ("adpsgd", "2.54 KiB", "MiB", "1 trials", "nothing was run"):
        assert word in done.stdout
    assert not (dsgd_bench.folder / "results").exists()


def test_list_names_every_algorithm_problem_graph_and_slowdown(dsgd_bench):
    done = dsgd_bench("list")
    assert done.returncode == 0, done.stderr
    for name in (*ALGORITHMS, *PROBLEMS, *GRAPHS, *KINDS):
        assert f"\n  {name}" in done.stdout
    assert "arXiv:1710.06952" in done.stdout


@pytest.mark.library
def test_doctor_names_the_library_and_what_a_busy_target_does(dsgd_bench):
    done = dsgd_bench("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("libmpi", "thread level", "accumulate, same node", "HDF5"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("optimizer.lrr=0.1", "did you mean"),
        ('algorithm.graph="ringg"', "ring"),
        ("slowdown.ranks=[2]", "slowdown"),
    ],
)
def test_a_wrong_study_is_refused_before_anything_starts(dsgd_bench, change, sentence):
    done = dsgd_bench("run", dsgd_bench.study(), "--set", change)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1, "one sentence"
    assert not (dsgd_bench.folder / "results").exists()
