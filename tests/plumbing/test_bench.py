"""The benchmarks' flags, sizes, tables and figures of merit; no MPI, no timing."""

import argparse
import json

import numpy as np
import pytest

from dsgd_bench.bench.averaging import AverageOptions, Comparison, StepTimes, report
from dsgd_bench.bench.flags import MIB, short, size, sizes
from dsgd_bench.bench.kernel_cases import Case
from dsgd_bench.bench.kernel_floor import Found, KernelOptions
from dsgd_bench.bench.kernel_floor import kernels as time_kernels
from dsgd_bench.bench.output import table
from dsgd_bench.bench.record import (
    RecordingOptions,
    Witness,
    recording,
    span_gaps,
)
from dsgd_bench.bench.simulator import SimulatorOptions, simulator
from dsgd_bench.fabric.columns import SPANS
from dsgd_bench.fabric.virtual.fabric import World


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("1000", 1000), ("4M", 4 * MIB), ("256KiB", 262_144), ("1g", 1024 * MIB)],
)
def test_a_size_is_read_with_its_unit(text, nbytes):
    assert size(text) == nbytes


@pytest.mark.parametrize("text", ["", "0", "-4", "4X", "M", "8M:4M", "1:2:3"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        sizes(text)


def test_a_range_of_sizes_doubles_and_ends_with_the_largest():
    assert sizes("1K:5K") == (1024, 2048, 4096, 5120)
    assert sizes("1K:4K") == (1024, 2048, 4096)
    assert sizes("4M") == (4 * MIB,)


@pytest.mark.parametrize("nbytes", [1, 1000, 1024, 4 * MIB, 3 * 1024 * MIB])
def test_a_size_that_is_written_can_be_read_again(nbytes):
    assert size(short(nbytes)) == nbytes


def test_options_are_read_as_those_of_the_osu_benchmarks():
    words = ["-i", "7", "-x", "2", "-m", "4K:8K", "-z", "99,50", "-f"]
    options = AverageOptions.from_argv(words)
    assert (options.iterations, options.warm_up) == (7, 2)
    assert options.sizes == (4096, 8192)
    assert options.percentiles == (99.0, 50.0)
    assert options.full
    assert options.words == tuple(words)


def test_without_words_the_options_are_the_defaults():
    assert AverageOptions.from_argv([]) == AverageOptions()
    assert RecordingOptions.from_argv([]) == RecordingOptions()


@pytest.mark.parametrize(
    "words", [["-i", "0"], ["-x", "-1"], ["-m", "x"], ["-z", "101"]]
)
def test_wrong_options_end_the_program_with_status_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        AverageOptions.from_argv(words)
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_a_table_has_as_many_columns_in_every_line():
    lines = table([{"Size": "4", "Ratio": "1.2"}, {"Size": "400000", "Ratio": "1"}])
    assert lines[0].startswith("# Size")
    assert [line.split() for line in lines[1:]] == [["4", "1.2"], ["400000", "1"]]
    assert len({len(line) for line in lines}) == 1


COMPARED = Comparison(
    nbytes=4 * MIB,
    situation="alone",
    block=262_144,
    framework=[0.0011, 0.0012, 0.0013] * 5,
    bare=[0.0010] * 15,
    memcpy=0.0005,
    barrier=2e-6,
)
STEPPED = StepTimes(framework=[60e-6, 80e-6, 70e-6], bare=[40e-6, 50e-6, 45e-6])


def figures(lines):
    words = [line.split() for line in lines if line.startswith("FOM ")]
    return {name: (float(value), unit) for _, name, value, unit in words}


def test_figures_of_merit_are_medians_and_their_ratio():
    found = figures(report([COMPARED], STEPPED, AverageOptions()))
    assert found["average_framework_4MiB_alone"] == (pytest.approx(1.2), "ms")
    assert found["average_bare_4MiB_alone"] == (pytest.approx(1.0), "ms")
    assert found["average_ratio_4MiB_alone"] == (pytest.approx(1.2), "1")
    # the differences are 20, 30 and 25 us
    assert found["step_beyond_bare"] == (pytest.approx(25.0), "us")


def test_the_last_line_is_the_command():
    options = AverageOptions.from_argv(["-i", "3", "-m", "4M"])
    lines = report([COMPARED], STEPPED, options)
    assert lines[-1] == "dsgd-bench bench average -i 3 -m 4M"


def test_percentiles_and_extremes_are_columns_when_asked_for():
    plain, *_ = report([COMPARED], STEPPED, AverageOptions())
    options = AverageOptions(percentiles=(99.0,), full=True)
    heading, *_ = report([COMPARED], STEPPED, options)
    for words in ("Framework P99", "Bare P99", "Framework Min", "Bare Samples"):
        assert words in heading
        assert words not in plain


def witnessed(spans, duration):
    """Return columns of three equal steps, and stamps that fit 1 s per step."""
    columns = {name: np.zeros(3) for name in SPANS}
    columns["compute"] += spans
    columns["duration"] = np.full(3, duration)
    ends = np.arange(4.0)
    return columns, np.stack([ends - 1e-3, ends + 1e-3], axis=1)


def test_spans_that_fit_the_step_leave_no_gap():
    assert span_gaps(*witnessed(0.9, 1.0)).max() == 0.0


def test_spans_booked_twice_show_as_a_gap():
    np.testing.assert_allclose(span_gaps(*witnessed(1.1, 1.0)), 0.1)


@pytest.mark.parametrize(
    ("duration", "gap"), [(0.898, 0.1 / 0.898), (1.102, 0.1 / 1.102)]
)
def test_a_duration_that_the_stamps_deny_shows_as_a_gap(duration, gap):
    np.testing.assert_allclose(span_gaps(*witnessed(0.5, duration)), gap)


def test_an_unrecorded_step_is_counted_but_leaves_no_row():
    clock = iter(np.arange(100.0))
    ledger = Witness(lambda: next(clock), recorded=False)
    ledger.open()
    ledger.close_step(loss=0.0, samples=1)
    assert (ledger.steps, ledger.rows, len(ledger.stamps)) == (1, [], 2)


@pytest.mark.parametrize("ranks", [1, 2])
def test_recording_runs_in_virtual_time_and_costs_nothing_there(
    ranks, tmp_path, capsys
):
    options = RecordingOptions(
        iterations=2, warm_up=0, steps=10, folder=tmp_path, words=("-i", "2")
    )
    World(ranks).run(lambda fabric: recording(fabric, options))
    lines = capsys.readouterr().out.splitlines()
    found = figures(lines)
    assert abs(found["recording_share"][0]) < 0.01
    assert found["span_gap"][0] < 1e-6
    assert lines[0].startswith("# dsgd-bench recording")
    assert lines[-1] == "dsgd-bench bench recording -i 2"
    assert not list(tmp_path.iterdir()), "the shards are temporary"


def test_kernels_are_timed_beside_their_naive_forms(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dsgd_bench.bench.kernel_floor.SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr("dsgd_bench.bench.kernel_floor.SIDES", {"cpu": 16})
    words = ["-m", "1M", "-i", "2", "-x", "0", "--json", str(tmp_path / "out.json")]
    options = KernelOptions.from_argv(words)
    World(1).run(lambda fabric: time_kernels(fabric, options))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("# dsgd-bench kernels")
    assert lines[-1] == " ".join(["dsgd-bench bench kernels", *words])
    found = figures(lines)
    assert found["kernel_share_update_1MiB"][1] == "%"
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["provenance"]["host"]
    rows = {row["kernel"]: row for row in written["rows"]}
    assert len(rows["update"]["seconds"]) == 2
    # the blocks of `Scratch` were made before; views and iterators are small
    for name, row in rows.items():
        if row["size"] and name != "cross-entropy, both ways":  # allocates per sample
            assert row["temporary_bytes"] < 0.1 * 1024**2, name
            assert row["naive_temporary_bytes"] > 0.2 * 1024**2, name


def test_a_share_of_the_floor_is_the_bound_over_the_time():
    case = Case("update", lambda: None, lambda: None, nbytes=500)
    found = Found(case, "100", [4.0], [9.0], [1.0], 200, 0, 0)
    # a copy moves 200 bytes per second: 500 take 2.5 seconds, and took 4
    assert found.share == 2.5 / 4.0


def test_the_simulator_is_timed_with_models_and_without(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["-n", "2,5", "--steps", "3", "--dimension", "10", "-i", "2"]
    options = SimulatorOptions.from_argv(words)
    World(1).run(lambda fabric: simulator(fabric, options))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# dsgd-bench simulator: speed of virtual time"
    rows = [line.split() for line in lines if line[0].isdigit()]
    assert [row[0] for row in rows] == ["2", "5"]
    assert all(float(cell) > 0 for row in rows for cell in row)
    figures = dict(line.split()[1:3] for line in lines if line.startswith("FOM "))
    assert float(figures["worker_steps_5"]) == pytest.approx(
        float(rows[1][1]), rel=0.01
    )
    assert float(figures["peak_memory_5"]) >= float(figures["peak_memory_2"]) > 0
    assert lines[-1] == "dsgd-bench bench simulator " + " ".join(words)
