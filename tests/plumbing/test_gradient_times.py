"""How long emulated gradients take: distributions, and times from real runs."""

import h5py
import numpy as np
import pytest
import synthetic

from dsgd_bench import trace
from dsgd_bench.errors import TraceError
from dsgd_bench.spec.trial import ComputeSpec
from dsgd_bench.trial import gradient_time

MEAN, MANY = 0.02, 20_000


def drawn(spec, *, seed=0, rank=0, count=MANY):
    times = gradient_time.of(spec, seed=seed, rank=rank)
    return np.array([times.seconds(step) for step in range(count)])


@pytest.mark.parametrize("distribution", ["lognormal", "gamma"])
@pytest.mark.parametrize("variation", [0.1, 0.5])
def test_a_distribution_has_the_mean_and_variation_asked_for(distribution, variation):
    spec = ComputeSpec("emulated", MEAN, distribution, variation)
    times = drawn(spec)
    assert (times > 0).all()
    # five standard errors of the mean; the variance of a long tail is less sure
    error = 5 * variation / np.sqrt(MANY)
    assert times.mean() == pytest.approx(MEAN, rel=error)
    assert times.std() / times.mean() == pytest.approx(variation, rel=0.05)


def test_the_distributions_differ_in_their_tails():
    def skew(name):
        times = drawn(ComputeSpec("emulated", MEAN, name, 0.5))
        return (((times - times.mean()) / times.std()) ** 3).mean()

    assert skew("gamma") == pytest.approx(2 * 0.5, rel=0.15)
    assert skew("lognormal") == pytest.approx(0.5**3 + 3 * 0.5, rel=0.25)


def test_times_are_a_function_of_seed_rank_and_step():
    spec = ComputeSpec("emulated", MEAN, "gamma", 0.3)
    again = gradient_time.of(spec, seed=1, rank=2)
    times = drawn(spec, seed=1, rank=2, count=3000)
    assert [again.seconds(s) for s in (2999, 0, 1500)] == list(times[[2999, 0, 1500]])
    assert not np.isin(times, drawn(spec, seed=1, rank=3, count=3000)).any()
    assert not np.isin(times, drawn(spec, seed=2, rank=2, count=3000)).any()


def test_a_constant_needs_no_draw():
    assert (drawn(ComputeSpec("emulated", MEAN), count=10) == MEAN).all()
    assert (drawn(ComputeSpec(), count=10) == 0.0).all()


@pytest.fixture
def measured(tmp_path):
    """Return a trace's path: rank r took (1 + step / 1000) (r + 1) seconds."""
    folder = synthetic.save(synthetic.run(synthetic.trial("allreduce")), tmp_path)
    path = folder / "trace.h5"
    with h5py.File(path, "r+") as file:
        compute = file["compute"]
        ranks, steps = compute.shape
        compute[...] = np.outer(np.arange(ranks) + 1, 1 + np.arange(steps) / 1000)
    return path


def test_a_rank_draws_from_the_times_of_its_measured_rank(measured):
    spec = ComputeSpec("resampled", trace=str(measured))
    found = trace.open_trace(measured)["compute"]
    for rank in (0, 3, 4, 10, 1023):
        times = drawn(spec, rank=rank, count=2000)
        own = found[rank % len(found)]
        assert np.isin(times, own).all()
        assert len(set(times)) > 0.5 * min(len(own), 2000)
    assert gradient_time.mean(spec) == pytest.approx(found.mean())


def test_ranks_of_one_measured_rank_draw_different_times(measured):
    spec = ComputeSpec("resampled", trace=str(measured))
    one, other = drawn(spec, rank=1, count=50), drawn(spec, rank=5, count=50)
    assert not (one == other).all()


def test_a_trace_without_the_column_is_refused(measured):
    with h5py.File(measured, "r+") as file:
        del file["compute"]
    with pytest.raises(TraceError, match=r"lacks the variable compute"):
        gradient_time.of(ComputeSpec("resampled", trace=str(measured)), seed=0, rank=0)


def test_a_trace_in_which_a_worker_took_no_time_is_refused(measured):
    with h5py.File(measured, "r+") as file:
        file["compute"][2] = 0.0
    with pytest.raises(TraceError, match="a worker without a gradient"):
        gradient_time.of(ComputeSpec("resampled", trace=str(measured)), seed=0, rank=0)


def test_a_trace_of_another_schema_is_refused(measured):
    with h5py.File(measured, "r+") as file:
        file.attrs["dsgd_schema_version"] = 99
    with pytest.raises(TraceError, match="schema 99"):
        gradient_time.of(ComputeSpec("resampled", trace=str(measured)), seed=0, rank=0)
