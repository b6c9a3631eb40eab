"""Simulated beside measured: which points are compared, how far off, table and figure.

The simulated toy takes a tenth more time than the measured one, and every third of its
gradients is one staler.
"""

import csv

import msgspec
import numpy as np
import pytest
import synthetic

from dsgd_bench import report
from dsgd_bench.analysis import validation
from dsgd_bench.report import across, validation_figure, validation_table
from dsgd_bench.report.numbers import NONE
from dsgd_bench.spec.network import preset
from dsgd_bench.spec.trial import ComputeSpec

KINDS = ("allreduce", "adpsgd")
FACTORS = (1.0, 10.0)


def foretold(measured, network="ethernet-10", **changes):
    """Return the simulation of a toy's trial: a tenth slower, some gradients staler."""
    trial = msgspec.structs.replace(measured.trial, network=preset(network), **changes)
    toy = synthetic.run(trial)
    toy.fabric = "virtual"
    toy.arrays["elapsed"] *= 1.1
    toy.arrays["staleness"][:, ::3] += 1.0
    return toy


def ran(kind, factor=1.0, repeat=0):
    return synthetic.run(synthetic.trial(kind, factor=factor, repeat=repeat))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("results") / "toy"
    for kind in KINDS:
        for factor in FACTORS:
            for repeat in (0, 1):
                measured = ran(kind, factor, repeat)
                synthetic.save(measured, home)
            synthetic.save(foretold(measured), home)
    synthetic.save(ran("sgp"), home)  # was never simulated
    return home


def pairs_of(*folders):
    return validation_table.pairs(report.read_report(*folders).studies)


def test_points_are_compared_with_their_own_simulation(folder):
    found = pairs_of(folder)
    assert [
        (p.measured.algorithm, p.measured.group.first.trial.slow_factor) for p in found
    ] == [(kind, factor) for factor in FACTORS for kind in KINDS]
    for pair in found:
        assert pair.measured.algorithm == pair.simulated.algorithm
        assert pair.measured.group.first.fabric == "mpi"
        assert pair.simulated.group.first.fabric == "virtual"
        assert pair.error == pytest.approx(0.1)
        assert len(pair.measured.group.rows) == 2  # repeats of one point


def test_the_distance_of_staleness_is_the_share_that_moved(folder):
    same, stale = pairs_of(folder)[:2]
    assert same.distance is None  # AllReduce-SGD has none
    values, measured, simulated = validation.shares(
        stale.measured.group, stale.simulated.group
    )
    np.testing.assert_array_equal(values, [3, 4])  # n - 1 = 3 without slowdown
    np.testing.assert_allclose(measured, [1.0, 1.0])
    np.testing.assert_allclose(simulated, [2 / 3, 1.0], atol=0.01)
    assert stale.distance == pytest.approx(1 / 3, abs=0.01)


def test_studies_of_other_folders_are_not_compared(tmp_path):
    measured = ran("adpsgd")
    synthetic.save(measured, tmp_path / "one" / "toy")
    synthetic.save(foretold(measured), tmp_path / "other" / "toy")
    assert pairs_of(tmp_path / "one" / "toy", tmp_path / "other" / "toy") == []


def test_other_settings_are_not_compared(tmp_path):
    measured = ran("adpsgd")
    synthetic.save(measured, tmp_path / "toy")
    slower = ComputeSpec(mode="emulated", seconds=2 * synthetic.COMPUTE)
    synthetic.save(foretold(measured, compute=slower), tmp_path / "toy")
    assert pairs_of(tmp_path / "toy") == []


def test_gradient_times_of_a_real_run_make_a_pair_with_it(tmp_path):
    measured = ran("adpsgd")
    synthetic.save(measured, tmp_path / "toy")
    resampled = ComputeSpec(mode="resampled", trace="results/toy/1/trace.h5")
    synthetic.save(foretold(measured, compute=resampled), tmp_path / "toy")
    [pair] = pairs_of(tmp_path / "toy")
    assert pair.error == pytest.approx(0.1)


def test_gradient_times_of_a_run_among_several_make_no_pair(tmp_path):
    for seconds in (synthetic.COMPUTE, 2 * synthetic.COMPUTE):
        measured = ran("adpsgd")
        compute = ComputeSpec(mode="emulated", seconds=seconds)
        measured.trial = msgspec.structs.replace(measured.trial, compute=compute)
        synthetic.save(measured, tmp_path / "toy")
    resampled = ComputeSpec(mode="resampled", trace="results/toy/1/trace.h5")
    synthetic.save(foretold(measured, compute=resampled), tmp_path / "toy")
    assert pairs_of(tmp_path / "toy") == []


def test_every_network_is_compared_and_named(tmp_path):
    measured = ran("adpsgd")
    synthetic.save(measured, tmp_path / "toy")
    for network in ("ethernet-10", "ethernet-100"):
        synthetic.save(foretold(measured, network), tmp_path / "toy")
    assert [pair.case for pair in pairs_of(tmp_path / "toy")] == [
        "ethernet-10",
        "ethernet-100",
    ]


def test_errors_are_those_of_all_points(folder):
    found = pairs_of(folder)
    off = validation.errors(found)
    assert (off.median, off.worst) == pytest.approx((0.1, 0.1))
    assert off.count == len(found)
    assert validation.errors([]) is None


def test_the_report_has_table_figure_and_csv(folder, tmp_path):
    written = report.write_report(folder, out=tmp_path)
    [section] = across.sections(written.studies)
    assert section.title == validation_table.TITLE
    assert "median 10.0 %, worst 10.0 %" in section.notes[0]
    heads = [column.name for column in section.table.columns]
    for row in section.table.cells:
        assert row[heads.index("error")] == "+10.0"
        assert (row[heads.index("distance")] == NONE) == (row[0] == "allreduce")
    for file in ("report.md", "report.html"):
        assert validation_table.TITLE in (tmp_path / file).read_text()
    assert validation_table.TITLE in written.terminal(columns=200)
    assert "validation.png" in {path.name for path in written.files}
    with (tmp_path / "validation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["error [1]"]) for row in rows] == pytest.approx([0.1] * 4)
    assert rows[0]["staleness_distance [1]"] == ""


def test_only_where_gradient_times_vary_is_staleness_taken_at_its_word(tmp_path):
    even = ComputeSpec("emulated", synthetic.COMPUTE)
    uneven = ComputeSpec("emulated", synthetic.COMPUTE, "lognormal", 0.2)
    for name, spec in (("steady", even), ("varied", uneven)):
        measured = ran("adpsgd")
        measured.trial = msgspec.structs.replace(measured.trial, compute=spec)
        synthetic.save(measured, tmp_path / name)
        synthetic.save(foretold(measured), tmp_path / name)
        notes = validation_table.notes(report.read_report(tmp_path / name).studies)
        assert (validation_table.STEADY in notes) == (spec == even)


def test_the_figure_has_every_error_and_both_sides_of_staleness(folder):
    found = pairs_of(folder)
    drawn = validation_figure.simulated_beside_measured(found)
    errors, stale = drawn.axes
    dots = [line for line in errors.lines if line.get_linestyle() == "None"]
    heights = [float(np.asarray(dot.get_ydata())[0]) for dot in dots]
    assert heights == pytest.approx([10.0] * len(found))
    assert "adpsgd, 4 ranks" in stale.get_title()
    assert len(stale.lines) == 2 * len(FACTORS)


def test_a_study_that_was_only_measured_or_only_simulated_has_no_such_table(tmp_path):
    measured = ran("adpsgd")
    synthetic.save(measured, tmp_path / "one" / "toy")
    synthetic.save(foretold(measured), tmp_path / "other" / "toy")
    for name in ("one", "other"):
        written = report.write_report(tmp_path / name / "toy")
        assert not list(across.sections(written.studies))
        assert "validation.csv" not in {path.name for path in written.files}
