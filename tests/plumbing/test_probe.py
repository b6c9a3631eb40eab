"""The probe without MPI: lines through times, what is sampled, who is paired, verdicts.

The times are made from known lines, so what must come out is known.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsgd_bench.bench.flags import sizes
from dsgd_bench.errors import ConfigError
from dsgd_bench.probe import ProbeOptions, busy, fit, groups, pairs, tables
from dsgd_bench.probe.samples import FEWEST, LIMIT, TRIES, Series, sampled
from dsgd_bench.spec.machine_profile import Answer

SIZES = sizes("8:64M")
SECONDS, RATE = 5e-6, 1e10


def exact(seconds: float = SECONDS, rate: float = RATE) -> np.ndarray:
    return seconds + 8 * np.array(SIZES) / rate


def options(**changes) -> ProbeOptions:
    given: dict[str, Any] = {
        "sizes": (8, 1024),
        "iterations": 20,
        "warm_up": 3,
        "percentiles": (),
        "full": False,
        "output": Path("profile.json"),
    }
    return ProbeOptions(**given | changes)


@pytest.mark.parametrize("seconds", [1e-7, SECONDS, 1e-2])
@pytest.mark.parametrize("rate", [1e6, RATE, 1e12])
def test_a_line_is_found_again(seconds, rate):
    found = fit.line(SIZES, list(exact(seconds, rate)))
    assert found.seconds == pytest.approx(seconds, rel=1e-6)
    assert found.rate == pytest.approx(rate, rel=1e-6)
    assert found.residual_max < 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_averaged_out(seed):
    noise = np.random.default_rng(seed).normal(1.0, 0.05, len(SIZES))
    found = fit.line(SIZES, list(exact() * noise))
    assert found.seconds == pytest.approx(SECONDS, rel=0.06)
    assert found.rate == pytest.approx(RATE, rel=0.06)
    assert 0.005 < found.residual_median < 0.08


@pytest.mark.parametrize("place", [0, 5, 11, -1])
def test_a_single_size_that_is_far_off_does_not_move_the_line(place):
    times = exact() * np.random.default_rng(1).normal(1.0, 0.01, len(SIZES))
    times[place] *= 10
    found = fit.line(SIZES, list(times))
    assert found.seconds == pytest.approx(SECONDS, rel=0.03)
    assert found.rate == pytest.approx(RATE, rel=0.03)
    assert found.residual_max == pytest.approx(0.9, abs=0.01)


def test_residuals_are_relative_to_the_times():
    times = exact()
    times[3] *= 2
    found = fit.line(SIZES, list(times))
    line = found.seconds + 8 * np.array(SIZES) / found.rate
    off = np.abs(line - times) / times
    assert found.residual_max == pytest.approx(off.max()) == pytest.approx(0.5)
    assert found.residual_median == pytest.approx(np.median(off))


def test_neither_part_of_a_line_is_negative():
    falling = fit.line((8, 16, 32), (3e-6, 2e-6, 1e-6))
    assert falling.rate == 0.0
    assert 1e-6 <= falling.seconds <= 3e-6
    steep = fit.line((8, 16, 32), (1e-6, 3e-6, 7e-6))
    assert steep.seconds == 0.0
    assert steep.rate > 0


@pytest.mark.parametrize("seed", range(50))
def test_whatever_was_measured_there_is_a_line(seed):
    times = 10 ** np.random.default_rng(seed).uniform(-7, -1, len(SIZES))
    found = fit.line(SIZES, list(times))
    assert np.isfinite([found.seconds, found.rate, found.residual_max]).all()
    assert found.seconds >= 0
    assert found.rate >= 0
    line = found.seconds + (8 * np.array(SIZES) / found.rate if found.rate else 0)
    # as many ratios above 1 as below would be the best line of all; none is far from it
    assert 0.1 < np.mean(line > times) < 0.9


def test_half_as_long_is_as_bad_as_twice():
    pairs_of_times = np.repeat(exact(), 2) * np.tile((0.5, 2.0), len(SIZES))
    found = fit.line([*np.repeat(SIZES, 2)], pairs_of_times)
    assert found.seconds == pytest.approx(SECONDS, rel=0.01)
    assert found.rate == pytest.approx(RATE, rel=0.01)


def test_of_one_size_there_is_no_rate():
    assert fit.line((8,), (2e-6,)) == fit.Line(2e-6, 0.0, 0.0, 0.0)


def test_what_is_quick_is_sampled_as_often_as_asked():
    calls = []

    def once():
        calls.append(len(calls))
        return 0.0, LIMIT / 1000

    found = sampled(once, options(iterations=20, warm_up=3))
    assert found.shape == (20, 2)
    assert len(calls) == TRIES + 3 + 20


@pytest.mark.parametrize(("took", "count"), [(LIMIT / 12, 12), (LIMIT, FEWEST)])
def test_what_is_slow_is_sampled_less_often(took, count):
    assert len(sampled(lambda: (0.0, took), options())) == count


def test_ranks_agree_on_the_number_of_samples():
    assert len(sampled(lambda: (0.0, LIMIT / 12), options(), lambda _: 7)) == 7


def test_a_series_keeps_medians_percentiles_and_the_overhead_of_small_sizes():
    starts = {8: 1e-6, 1024: 3e-6, 4096: 9e-6}
    series = Series(
        tuple(starts),
        [
            np.array([[start, size * 1e-9 * k] for k in range(1, 12)])
            for size, start in starts.items()
        ],
    )
    found = series.measured()
    assert found.medians == pytest.approx([size * 6e-9 for size in starts])
    assert found.p10 == pytest.approx([size * 2e-9 for size in starts])
    assert found.p90 == pytest.approx([size * 10e-9 for size in starts])
    assert found.samples == (11, 11, 11)
    assert found.overhead == pytest.approx(2e-6)


def test_one_size_gives_no_line():
    with pytest.raises(ConfigError, match="two at least, as MIN:MAX"):
        options(sizes=(4096,))
    with pytest.raises(ConfigError, match="two at least"):
        options(sizes=(1, 2, 4))


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        ("aa", {"near": (0, 1)}),
        ("ab", {"far": (0, 1)}),
        ("aab", {"near": (0, 1), "far": (0, 2)}),
        ("abab", {"near": (0, 2), "far": (0, 1)}),
        ("abb", {"far": (0, 1)}),
    ],
)
def test_pairs_are_of_one_node_and_of_two(nodes, found):
    assert pairs(nodes) == found
    assert list(pairs(nodes)) == sorted(found, reverse=True)


@pytest.mark.parametrize(
    ("size", "found"),
    [(2, [2]), (3, [2, 3]), (4, [2, 4]), (5, [2, 4, 5]), (32, [2, 4, 8, 16, 32])],
)
def test_groups_double_up_to_all(size, found):
    assert groups(size) == found


def found_busy(**verdicts: tuple[float, float]) -> dict[str, dict[str, Answer]]:
    """Return answers of ``put`` and ``get`` of each kind of window."""
    alone = {flavor: {"put": 1e-5, "get": t[0]} for flavor, t in verdicts.items()}
    after = {flavor: {"put": 1e-5, "get": t[1]} for flavor, t in verdicts.items()}
    return busy.answers(alone, after)


QUICK, WAITED = 1e-5, 0.06


@pytest.mark.parametrize(
    ("times", "verdict"),
    [
        ((QUICK, QUICK), "passive"),
        ((QUICK, WAITED), "passive"),
        ((WAITED, QUICK), "needs-progress"),
        ((WAITED, WAITED), "none"),
    ],
)
def test_verdicts(times, verdict):
    answers = found_busy(allocate=times, create=(QUICK, QUICK))["allocate"]
    alone, with_thread = times
    assert answers["get"] == Answer(alone, with_thread, verdict)
    assert answers["put"].verdict == "passive"


def test_where_nobody_waits_nothing_needs_mending():
    found = found_busy(allocate=(QUICK, QUICK), create=(QUICK, QUICK))
    assert busy.remedies({"near": found}, "mpich") == ()


def test_windows_of_memory_of_ones_own_are_warned_of():
    found = found_busy(allocate=(QUICK, QUICK), create=(WAITED, QUICK))
    (said,) = busy.remedies({"near": found}, "mpich")
    assert said.startswith("near: get wait in windows of MPI_Win_create only")


@pytest.mark.parametrize(
    ("family", "setting"),
    [("mpich", "MPIR_CVAR_ASYNC_PROGRESS=1"), ("cray", "MPICH_ASYNC_PROGRESS=1")],
)
def test_what_needs_progress_is_told_the_setting_of_its_library(family, setting):
    found = found_busy(allocate=(WAITED, QUICK), create=(WAITED, QUICK))
    (said,) = busy.remedies({"far": found}, family)
    assert said.startswith("far: get of this suite's windows need a progress thread")
    assert f" {setting}," in said


def test_what_nothing_mends_is_said_to_be_so():
    found = found_busy(allocate=(WAITED, WAITED), create=(WAITED, WAITED))
    (said,) = busy.remedies({"far": found}, "openmpi")
    assert "even with a progress thread" in said


def test_a_table_has_a_line_per_size_and_a_dash_where_there_is_none():
    word = Series((8,), [np.full((5, 2), 2e-6)])
    vector = Series((8, 16), [np.full((5, 2), 1e-6), np.full((5, 2), 3e-6)])
    lines = tables.latencies("some", {"put": vector, "word": word})
    assert [line.split() for line in lines] == [
        ["#", "some,", "median", "(us)"],
        ["#", "Size", "put", "word"],
        ["8", "1", "2"],
        ["16", "3", "-"],
    ]


def test_details_have_bandwidth_percentiles_and_extremes():
    series = Series((1000,), [np.array([[1e-6, k * 1e-6] for k in range(1, 12)])])
    asked = options(percentiles=(90.0,), full=True)
    head, values = tables.details("some", series, asked)[1:]
    assert head.startswith("# Size  Latency(us)  Overhead(us)  Bandwidth(MB/s)  ")
    assert head.endswith("Latency P90  Latency Min  Latency Max  Latency Samples")
    assert values.split() == ["1000", "6", "1", "166.7", "10", "1", "11", "11"]
