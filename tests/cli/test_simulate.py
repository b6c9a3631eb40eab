"""Studies in virtual time by the command: simulated, skipped, reported, refused."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from dsgd_bench.trace import Trace, open_trace

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.toml"
SHORT = ("--set", "study.budget={ seconds = 0.1 }")


def folders(results: Path) -> list[Path]:
    return sorted(path.parent for path in results.glob("*/READY"))


def only_trace(results: Path) -> Trace:
    (folder,) = folders(results)
    return open_trace(folder / "trace.h5")


def test_a_study_is_simulated_skipped_next_time_and_reported(dsgd_bench):
    words = ("simulate", SMOKE, "--ranks", "8", *SHORT)
    first = dsgd_bench(*words)
    assert first.returncode in (0, 4), first.stderr
    assert "every trial is simulated over ethernet-10" in first.stdout
    assert "smoke, simulated" in first.stdout
    assert "virtual s" in first.stderr
    results = dsgd_bench.folder / "results" / "smoke"
    found = folders(results)
    assert len(found) == 8
    for folder in found:
        trace = open_trace(folder / "trace.h5")
        assert trace.fabric == "virtual"
        assert (trace["steps_done"] > 0).all()
        assert len(trace["steps_done"]) == trace.trial.ranks == 8
        assert not list(folder.glob("rank-*"))
    written = {f: (f / "trace.h5").stat().st_mtime_ns for f in found}
    again = dsgd_bench(*words)
    assert again.returncode == first.returncode, again.stderr
    assert {f: (f / "trace.h5").stat().st_mtime_ns for f in found} == written
    report = dsgd_bench("report", results)
    assert report.returncode == 0, report.stderr
    assert "smoke, simulated" in report.stdout
    assert "all pass" in report.stdout


def test_measured_and_simulated_trials_of_one_study_have_tables_of_their_own(
    dsgd_bench,
):
    study = dsgd_bench.study()
    assert dsgd_bench("run", study).returncode == 0
    assert dsgd_bench("simulate", study, "--ranks", "2,3").returncode == 0
    shown = dsgd_bench("report", dsgd_bench.folder / "results")
    heads = [line for line in shown.stdout.splitlines() if line.startswith("tiny")]
    assert len(heads) == 2
    assert "virtual" not in heads[0]
    assert heads[1].startswith("tiny, simulated: ")
    assert heads[1].endswith("in virtual time")
    summary = dsgd_bench.folder / "results" / "summary.json"
    studies = json.loads(summary.read_text())["studies"]
    kinds = [
        {run["fabric"] for point in each["points"] for run in point["each"]}
        for each in studies
    ]
    assert kinds == [{"mpi"}, {"virtual"}]
    assert [len(each["points"]) for each in studies] == [1, 2]


NETWORK = '[network]\npreset = "ethernet-100"\nfar = { latency = 1e-3 }\n'


def test_a_study_with_a_network_is_simulated_over_it_and_never_run(dsgd_bench):
    study = dsgd_bench.study()
    study.write_text(study.read_text() + NETWORK)
    refused = dsgd_bench("run", study)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "use dsgd-bench simulate" in refused.stderr
    assert not (dsgd_bench.folder / "results").exists()
    done = dsgd_bench("simulate", study)
    assert done.returncode == 0, done.stderr
    network = only_trace(dsgd_bench.folder / "results" / "tiny").trial.network
    assert network is not None
    assert network.name == "ethernet-100"
    assert (network.far.latency, network.far.rate) == (1e-3, 100e9)


def test_presets_are_swept_and_told_apart_by_their_names(dsgd_bench):
    study = dsgd_bench.study()
    preset = '[network]\npreset = ["ethernet-10", "infiniband-200"]\n'
    study.write_text(study.read_text() + preset)
    done = dsgd_bench("simulate", study)
    assert done.returncode == 0, done.stderr
    for name in ("ethernet-10", "infiniband-200"):
        assert sum(name in line for line in done.stdout.splitlines()) >= 1
    assert "latency=" not in done.stdout


def contents(trace: Path) -> dict[str, bytes]:
    """Return all arrays and attributes but the provenance."""
    with h5py.File(trace) as file:
        found = {name: file[name][()].tobytes() for name in file}
        for name in set(file.attrs) - {"dsgd_provenance"}:
            found[f"@{name}"] = str(file.attrs[name]).encode()
    return found


@pytest.mark.slow
def test_a_seed_gives_a_trace_bit_by_bit_and_another_one_another_interleaving(
    dsgd_bench,
):
    study = dsgd_bench.study()
    for place, seed in (("a", 1), ("b", 1), ("c", 2)):
        words = ("--ranks", "6", "--seed", seed, "--results", place)
        done = dsgd_bench("simulate", study, *words)
        assert done.returncode == 0, done.stderr
    a, b, c = (
        folders(dsgd_bench.folder / place / "tiny")[0] / "trace.h5" for place in "abc"
    )
    assert contents(a) == contents(b)
    assert contents(a)["loss"] != contents(c)["loss"]
    assert open_trace(c).trial.network.seed == 2  # so that it can be repeated
    same = open_trace(a)["samples_done"] / open_trace(a)["steps_done"]
    other = open_trace(c)["samples_done"] / open_trace(c)["steps_done"]
    assert np.array_equal(same, other)


def test_gradient_times_are_drawn_from_a_real_run(dsgd_bench):
    study = dsgd_bench.study()
    assert dsgd_bench("run", study).returncode == 0
    real = folders(dsgd_bench.folder / "results" / "tiny")[0] / "trace.h5"
    words = ("--ranks", "5", "--compute-from", real, "--results", "virtual")
    done = dsgd_bench("simulate", study, *words)
    assert done.returncode == 0, done.stderr
    measured = open_trace(real)["compute"]
    simulated = only_trace(dsgd_bench.folder / "virtual" / "tiny")
    for rank in range(5):
        own = measured[rank % len(measured)]
        own = own[np.isfinite(own)]
        times = simulated["compute"][rank]
        times = times[np.isfinite(times)]
        assert times.size > 10
        nearest = np.abs(times[:, None] - own[None, :]).min(axis=1)
        # the model is updated within the time of the next gradient
        assert np.median(nearest) < 1e-4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "compute.mode=measured", "--set", "compute.seconds=0.0"), "no time"),
        (("--profile", "ethernet-11"), "did you mean 'ethernet-10'?"),
        (("--profile", "nowhere.json"), "nowhere.json"),
        (("--compute-from", "nowhere.h5"), "nowhere.h5 does not exist"),
        (("--ranks", "2000", "--set", "problem.kind=message"), "GiB left"),
        (("--seed", "-1"), "--seed"),
        (("--set", "network.far.latencie=1.0"), "did you mean"),
        (("--set", "network.preset=ethernet-11"), "did you mean 'ethernet-10'?"),
        (("--set", "network.preset=ethernet-10", "--profile", "x"), "--profile"),
        (("--set", "compute.device=cuda"), "compute.device"),
        (("--set", "compute.variation=0.5"), "compute.distribution"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence_and_nothing_written(
    dsgd_bench, words, said
):
    done = dsgd_bench("simulate", dsgd_bench.study(), *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert not (dsgd_bench.folder / "results").exists()


def test_a_trial_that_failed_is_simulated_again(dsgd_bench):
    study = dsgd_bench.study()
    first = dsgd_bench("simulate", study, "--ranks", "2,3")
    assert first.returncode == 0, first.stderr
    results = dsgd_bench.folder / "results" / "tiny"
    spoiled = folders(results)[0]
    (spoiled / "READY").unlink()
    (spoiled / "trace.h5").unlink()
    log = spoiled / "ERROR"
    log.write_text("as if it had failed\n")
    again = dsgd_bench("simulate", study, "--ranks", "2,3")
    assert again.returncode == 0, again.stderr
    assert not log.exists()
    assert len(folders(results)) == 2


def test_a_dry_run_announces_the_memory_of_the_one_process(dsgd_bench):
    words = ("--ranks", "1000", "--set", "problem.batch=1", "--dry-run")
    done = dsgd_bench("simulate", dsgd_bench.study(), *words)
    assert done.returncode == 0, done.stderr
    assert "simulated in one process: " in done.stdout
    assert not (dsgd_bench.folder / "results").exists()
