import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest
import synthetic

from dsgd_bench import report
from dsgd_bench.analysis.statistics import Estimate
from dsgd_bench.config.identity import trial_id
from dsgd_bench.errors import TraceError
from dsgd_bench.report import numbers, provenance_warnings
from dsgd_bench.report.numbers import DASH, TIMES
from dsgd_bench.report.warnings import CHECKS

KINDS, FACTORS, REPEATS = ("allreduce", "adpsgd"), (1.0, 10.0), 2


def fill(folder, *, repeats=REPEATS, kinds=KINDS, **settings):
    """Write a study; each repeat is one percent slower than the one before."""
    for kind in kinds:
        for factor in FACTORS:
            for repeat in range(repeats):
                of = synthetic.trial(kind, factor=factor, repeat=repeat, **settings)
                toy = synthetic.run(of, noise=0.01 * repeat, moments=60)
                synthetic.save(toy, folder)
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = fill(tmp_path_factory.mktemp("results") / "smoke")
    return folder, report.write_report(folder)


@pytest.fixture
def study(tmp_path):
    """Return a small study that a test may damage."""
    return fill(tmp_path / "results" / "smoke", repeats=1)


def one_of(study, **settings):
    """Return the folder of one trial of the study."""
    return study / trial_id(synthetic.trial(**settings))


def kinds_of(found):
    return {caution.kind for each in found.studies for caution in each.cautions}


def said(found):
    return " ".join(c.text for each in found.studies for c in each.cautions)


def test_every_file_of_the_report_is_written(written):
    folder, found = written
    names = {path.relative_to(folder).as_posix() for path in found.files}
    assert names == {
        "report.md",
        "summary.csv",
        "summary.json",
        "report.html",
        "figures/smoke-loss.png",
        "figures/smoke-slowdown.png",
        "figures/smoke-time.png",
    }
    assert all(path.stat().st_size > 500 for path in found.files)


def test_figures_are_pictures_with_something_on_them(written):
    for path in written[1].files:
        if path.suffix == ".png":
            pixels = matplotlib.image.imread(path)[..., :3]
            assert min(pixels.shape[:2]) > 300
            assert (pixels < 0.9).any(axis=2).mean() > 0.01


def test_csv_and_json_give_back_the_medians(written):
    folder, found = written
    lines = found.studies[0].lines
    with (folder / "summary.csv").open() as file:
        records = list(csv.DictReader(file))
    content = json.loads((folder / "summary.json").read_text())
    points = content["studies"][0]["points"]
    assert len(records) == len(points) == len(lines) == 4
    for line, record, point in zip(lines, records, points, strict=True):
        epoch = line.group.time_per_epoch.value
        assert float(record["time_per_epoch [s]"]) == epoch
        assert point["time_per_epoch_s"]["value"] == epoch
        assert len(point["each"]) == REPEATS
        target = line.group.time_to_target
        assert point["time_to_target_s"] == (target and vars(target))
        assert record["time_to_target [s]"] == (str(target.value) if target else "")


def test_the_table_ends_with_the_command_that_made_it(written):
    folder, found = written
    command = f"dsgd-bench report {folder}"
    assert found.terminal().splitlines()[-1] == command
    assert (folder / "report.md").read_text().rstrip().endswith(command)


def test_there_is_one_table_with_a_unit_in_every_header(written):
    table = written[1].studies[0].results
    assert len(table.cells) == len(KINDS) * len(FACTORS)
    assert all(column.unit or column.left for column in table.columns)
    shown = written[1].terminal(columns=250).splitlines()
    first = next(line for line in shown if line.startswith("adpsgd "))
    assert first.split()[2] == "2/2"


@pytest.mark.parametrize("columns", [60, 80, 120, 250])
def test_a_narrow_terminal_folds_the_table_and_loses_nothing(written, columns):
    found = written[1]
    text = found.terminal(columns=columns)
    table = found.studies[0].results
    body = text.split("\nstaleness")[0].splitlines()[1:]
    assert max(map(len, body)) <= columns
    assert all(column.name in text for column in table.columns)


def test_runs_that_did_not_reach_the_target_are_counted_not_dropped(tmp_path):
    folder = fill(tmp_path / "far", kinds=("adpsgd",), target=1e-9)
    found = report.read_report(folder)
    table = found.terminal(columns=250)
    assert "0/2" in table
    assert "not reached" in table
    assert "unreached" in kinds_of(found)


def test_a_median_over_the_lucky_runs_only_says_that_it_flatters(tmp_path):
    folder = tmp_path / "some"
    for repeat, target in enumerate((0.5, 0.5, 0.5)):
        of = synthetic.trial(repeat=repeat, target=target)
        toy = synthetic.run(of)
        if repeat == 2:
            toy.arrays["loss_of_mean"] += 1.0
            toy.status = "exhausted"
        synthetic.save(toy, folder)
    found = report.read_report(folder)
    assert "2/3" in found.terminal()
    assert "The median is over 2 and flatters it" in said(found)


def test_a_crashed_trial_is_shown_as_crashed(study):
    folder = one_of(study, kind="adpsgd", factor=10.0)
    (folder / "READY").unlink()
    (folder / "trace.h5").unlink()
    (folder / "ERROR").write_text("rank 3 was killed by signal 9.")
    found = report.read_report(study)
    assert "0/1, 1 crashed" in found.terminal(columns=250)
    assert "rank 3 was killed by signal 9" in said(found)


def test_a_crashed_trial_with_a_trace_is_shown_as_crashed_too(study):
    folder = one_of(study, kind="adpsgd", factor=10.0)
    (folder / "READY").rename(folder / "ERROR")
    assert "0/1, 1 crashed" in report.read_report(study).terminal(columns=250)


@pytest.mark.parametrize("length", [0, 100, 5000])
def test_a_truncated_trace_is_named_and_counted_as_failed(study, length):
    path = one_of(study, kind="adpsgd", factor=10.0) / "trace.h5"
    path.write_bytes(path.read_bytes()[:length])
    found = report.read_report(study)
    assert str(path) in said(found)
    assert "0/1, 1 unreadable" in found.terminal(columns=250)


def test_a_missing_trace_is_named(study):
    path = one_of(study, kind="adpsgd", factor=10.0) / "trace.h5"
    path.unlink()
    assert str(path) in said(report.read_report(study))


def test_a_trial_that_is_still_running_is_counted_aside(study):
    (one_of(study, kind="adpsgd", factor=10.0) / "READY").unlink()
    found = report.read_report(study)
    assert "1 trial is neither finished nor failed" in said(found)
    assert len(found.studies[0].lines) == 3


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None])
def test_a_folder_without_trials_is_refused_in_one_sentence(tmp_path, make):
    folder = tmp_path / "empty"
    make(folder)
    with pytest.raises(TraceError, match=str(folder)) as refused:
        report.write_report(folder)
    assert "\n" not in str(refused.value)


def test_a_folder_of_many_studies_gives_one_table_each(tmp_path):
    fill(tmp_path / "b", repeats=1)
    fill(tmp_path / "a", repeats=1)
    assert [each.name for each in report.read_report(tmp_path).studies] == ["a", "b"]


def test_a_report_that_cannot_be_written_says_where(study, tmp_path):
    blocked = tmp_path / "a file"
    blocked.write_text("")
    with pytest.raises(TraceError, match="a file"):
        report.write_report(study, out=blocked)


def test_the_report_can_be_written_elsewhere(study, tmp_path):
    out = tmp_path / "elsewhere"
    found = report.write_report(study, out=out)
    assert all(path.is_relative_to(out) for path in found.files)
    assert not (study / "report.md").exists()


def test_the_page_needs_no_other_file_and_hides_no_warning(written):
    folder, found = written
    text = (folder / "report.html").read_text()
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "src=" in text
    assert text.count("data:image/svg+xml;base64,") == 6
    for caution in found.studies[0].cautions:
        assert caution.text.split("'")[0][:60] in text


def test_results_of_two_libraries_in_one_table_are_called_out(study):
    folder = one_of(study, kind="adpsgd", factor=10.0)
    shutil.rmtree(folder)
    toy = synthetic.run(synthetic.trial("adpsgd", factor=10.0))
    toy.provenance = {**synthetic.PROVENANCE, "mpi": {"library": "Open MPI 5.0.11"}}
    synthetic.save(toy, study)
    found = report.read_report(study)
    assert "mpi.library: MPICH 5.0.2 and Open MPI 5.0.11" in said(found)


def test_more_ranks_on_more_hosts_are_not_called_a_mixture(tmp_path):
    for ranks in (2, 4):
        toy = synthetic.run(synthetic.trial(ranks=ranks))
        hosts = [f"node{rank // 2}" for rank in range(ranks)]
        toy.provenance = {**synthetic.PROVENANCE, "hosts": hosts}
        synthetic.save(toy, tmp_path / "scaling")
    found = report.read_report(tmp_path / "scaling")
    assert "mixed-provenance" not in kinds_of(found)
    assert [line.case for line in found.studies[0].lines] == ["2 ranks", "4 ranks"]
    assert found.studies[0].provenance["hosts"] == "node0 | node0, node1"


@pytest.mark.parametrize("verdict", ["with-thread", "waits"])
def test_a_library_without_passive_progress_is_called_out(study, verdict):
    folder = one_of(study, kind="adpsgd", factor=10.0)
    shutil.rmtree(folder)
    toy = synthetic.run(synthetic.trial("adpsgd", factor=10.0))
    operations = {"put": {"verdict": "passive"}, "get": {"verdict": verdict}}
    toy.progress = {"thread": True, "pairs": {"same_node": {"operations": operations}}}
    synthetic.save(toy, study)
    found = report.read_report(study)
    assert "In 1 of 2 asynchronous runs" in said(found)
    assert f"verdict: {verdict}" in said(found)


def test_oversubscribed_cores_and_divergence_are_called_out(tmp_path):
    toy = synthetic.run(synthetic.trial())
    toy.status = "diverged"
    toy.provenance = {**synthetic.PROVENANCE, "oversubscribed": True}
    synthetic.save(toy, tmp_path / "hot")
    found = report.read_report(tmp_path / "hot")
    assert {"oversubscribed", "diverged", "few-repeats"} <= kinds_of(found)


def test_a_run_that_was_stopped_and_went_on_is_called_out(tmp_path):
    toy = synthetic.run(synthetic.trial())
    toy.interruptions = [{"seconds": 3.0, "host": "node1"}] * 2
    synthetic.save(toy, tmp_path / "resumed")
    found = report.read_report(tmp_path / "resumed")
    assert "interrupted" in kinds_of(found)
    assert "up to 2 times" in said(found)


def test_copies_that_are_far_apart_are_called_out(tmp_path):
    synthetic.save(synthetic.run(synthetic.trial(), moments=4), tmp_path / "coarse")
    assert "coarse-copies" in kinds_of(report.read_report(tmp_path / "coarse"))


def test_six_fine_runs_of_every_point_need_no_warning(tmp_path):
    folder = tmp_path / "fine"
    for repeat in range(6):
        toy = synthetic.run(synthetic.trial(repeat=repeat), moments=200)
        synthetic.save(toy, folder)
    found = report.read_report(folder)
    assert kinds_of(found) == set()
    assert "95 % confidence interval" in found.terminal()


def test_provenance_that_changes_with_every_run_is_not_compared():
    facts = provenance_warnings.facts(synthetic.PROVENANCE)
    assert facts["software.packages.numpy"] == "2.4.0"
    assert "time_utc" not in facts
    assert next(iter(CHECKS)) == "crashed"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, DASH),
        (0.0, "0"),
        (0.04123, "0.0412"),
        (4.2, "4.20"),
        (99.96, "100"),
        (1204.4, "1204"),
        (3.1e-5, "3.1e-05"),
    ],
)
def test_numbers_are_shown_with_three_digits(value, text):
    assert numbers.number(value) == text


def test_a_ratio_of_times_is_told_as_faster_or_slower_with_its_bounds():
    half = Estimate(0.5, 0.4, 0.625, 10, 0.95)
    assert numbers.faster(half) == f"2.00 {TIMES} faster [1.60, 2.50]"
    assert numbers.faster(Estimate(3.0, 2.5, 4.0, 3, None)) == (
        f"3.00 {TIMES} slower (2.50{DASH}4.00)"
    )
    assert numbers.faster(Estimate(2.0, 2.0, 2.0, 1, None)) == f"2.00 {TIMES} slower"
    assert numbers.faster(Estimate(1.0, 0.9, 1.1, 10, 0.95)) == "equal [0.900, 1.10]"


def test_the_analysis_loads_neither_hdf5_nor_mpi_nor_a_drawing_library():
    code = (
        "import sys; import dsgd_bench.analysis.comparison;"
        "print([m for m in ('h5py', 'mpi4py', 'matplotlib') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
