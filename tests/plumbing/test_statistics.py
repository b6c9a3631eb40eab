from math import comb

import numpy as np
import pytest

from dsgd_bench.analysis import statistics

# Exact binomial ranks, as tabulated by J.-Y. Le Boudec (2010), appendix A.
TABLE = {
    **dict.fromkeys((6, 7, 8), 1),
    **dict.fromkeys((9, 10, 11), 2),
    **dict.fromkeys((12, 13, 14), 3),
    **dict.fromkeys((15, 16), 4),
    **dict.fromkeys((17, 18, 19), 5),
    **dict.fromkeys((20, 21, 22), 6),
    25: 8,
    30: 10,
    40: 14,
    50: 18,
    100: 40,
}


@pytest.mark.parametrize(("count", "j"), TABLE.items())
def test_the_ranks_around_the_median_are_those_of_the_published_table(count, j):
    assert statistics.median_ranks(count) == (j, count + 1 - j)


@pytest.mark.parametrize(("count", "j"), {8: 1, 11: 1, 15: 3, 20: 4, 30: 8}.items())
def test_the_ranks_at_99_percent_are_those_of_the_published_table(count, j):
    assert statistics.median_ranks(count, confidence=0.99) == (j, count + 1 - j)


@pytest.mark.parametrize("count", range(6))
def test_there_is_no_interval_from_fewer_than_six_values(count):
    assert statistics.median_ranks(count) is None
    assert statistics.median_interval([1.0] * count) is None


@pytest.mark.parametrize("count", range(6, 60))
def test_the_interval_is_the_narrowest_that_covers_95_percent(count):
    def coverage(j):
        return 1 - 2 * sum(comb(count, i) for i in range(j)) / 2**count

    j, _ = statistics.median_ranks(count)
    assert coverage(j) >= 0.95 > coverage(j + 1)


def test_the_interval_of_ten_values_runs_from_the_second_to_the_ninth():
    values = [10, 3, 7, 1, 9, 4, 8, 2, 6, 5]
    assert statistics.median_interval(values) == (2.0, 9.0)


def test_the_interval_covers_the_true_median_as_often_as_it_says():
    stream = np.random.default_rng(1)
    samples = stream.exponential(size=(2000, 10))
    bounds = [statistics.median_interval(sample) for sample in samples.tolist()]
    covered = np.mean([low <= np.log(2.0) <= high for low, high in bounds])
    # 97.9 % in theory; three standard errors of 2000 samples are 1 %.
    assert covered == pytest.approx(0.979, abs=0.01)


def test_an_estimate_of_few_runs_shows_their_range_and_claims_no_confidence():
    found = statistics.estimate([3.0, 1.0, 2.0])
    assert (found.value, found.low, found.high) == (2.0, 1.0, 3.0)
    assert found.confidence is None
    assert statistics.estimate([]) is None
    assert statistics.estimate([1.0] * 6).confidence == 0.95


def test_a_ratio_of_medians_takes_the_medians_first():
    ratio = statistics.ratio_of_medians([2.0, 4.0, 100.0], [1.0, 2.0, 3.0])
    assert ratio.value == 2.0
    assert ratio.confidence is None
    assert (ratio.low, ratio.high) == (2.0 / 3.0, 100.0)


def test_a_bootstrap_is_the_same_each_time_and_encloses_the_true_ratio():
    stream = np.random.default_rng(2)
    slow = (3.0 + 0.1 * stream.standard_normal(20)).tolist()
    fast = (2.0 + 0.1 * stream.standard_normal(20)).tolist()
    ratio = statistics.ratio_of_medians(slow, fast)
    assert ratio == statistics.ratio_of_medians(slow, fast)
    assert ratio.low < 1.5 < ratio.high
    # The standard error of a median of 20 normals is 1.25 sigma / sqrt(20) = 0.028.
    assert ratio.high - ratio.low < 8 * 0.028 * 1.5
    assert ratio.confidence == 0.95


def test_a_ratio_without_runs_on_one_side_is_unknown():
    assert statistics.ratio_of_medians([], [1.0]) is None
    assert statistics.ratio_of_medians([1.0], []) is None


def test_a_quantile_of_nothing_is_refused():
    assert statistics.quantile([1.0, 2.0, 3.0, 4.0, 5.0], 0.75) == 4.0
    with pytest.raises(ValueError, match="at least one value"):
        statistics.median([])
