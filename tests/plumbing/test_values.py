"""Whatever variable of a trace is impossible, it is refused, and by its name."""

from typing import Any

import h5py
import numpy as np
import pytest
import test_verify

from dsgd_bench import report, trace
from dsgd_bench.analysis import values
from dsgd_bench.analysis.values import RULES
from dsgd_bench.analysis.verify import verify
from dsgd_bench.errors import TraceError
from dsgd_bench.trace.variables import STEP, VARIABLES

each = pytest.mark.parametrize("name", VARIABLES)
NEEDED = [name for name, rule in RULES.items() if rule.needed]
BOUNDED = [name for name, rule in RULES.items() if rule.low > -np.inf]
FINITE = [name for name, rule in RULES.items() if not rule.infinite]
WHOLE = [name for name, rule in RULES.items() if rule.whole]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return test_verify.make(tmp_path_factory.mktemp("trials") / "adpsgd", "adpsgd").path


class Changed:
    """A trace with one variable replaced."""

    def __init__(self, path, name, value):
        self._trace, self._name, self._value = trace.open_trace(path), name, value

    def __getattr__(self, name):
        return getattr(self._trace, name)

    def __getitem__(self, name):
        if name != self._name:
            return self._trace[name]
        found = np.array(self._trace[name], float)
        found[(0,) * found.ndim] = self._value
        return found


def named(path, name, value):
    changed: Any = Changed(path, name, value)
    found = verify(changed)
    return {check.name for check in found.failed}


def test_every_variable_has_a_rule():
    assert RULES.keys() == VARIABLES.keys()


@pytest.mark.parametrize("name", BOUNDED)
def test_a_number_below_what_can_be_is_named(path, name):
    assert f"variable {name}" in named(path, name, -1.0)


@pytest.mark.parametrize("name", FINITE)
def test_an_infinite_number_is_named(path, name):
    assert f"variable {name}" in named(path, name, np.inf)


@pytest.mark.parametrize("name", NEEDED)
def test_nothing_where_a_number_must_be_is_named(path, name):
    assert f"variable {name}" in named(path, name, np.nan)


@pytest.mark.parametrize("name", WHOLE)
def test_half_a_count_is_named(path, name):
    assert f"variable {name}" in named(path, name, 0.5)


@each
def test_a_variable_of_another_shape_is_refused_when_the_trace_is_opened(
    tmp_path, path, name
):
    other = tmp_path / "trace.h5"
    other.write_bytes(path.read_bytes())
    with h5py.File(other, "r+") as file:
        shape = file[name].shape
        del file[name]
        file[name] = np.zeros((shape[0] + 1, *shape[1:]))
    with pytest.raises(TraceError, match=f"variable .*{name}|{name} has "):
        trace.open_trace(other)


@each
def test_a_variable_that_is_missing_is_named(tmp_path, path, name):
    other = tmp_path / "trace.h5"
    other.write_bytes(path.read_bytes())
    with h5py.File(other, "r+") as file:
        del file[name]
    found = [each[0] for each in values.impossible(trace.open_trace(other))]
    assert name in " ".join(found)


@pytest.mark.parametrize("name", [n for n, v in VARIABLES.items() if v[0] == STEP])
def test_a_number_after_the_last_step_of_a_rank_is_named(path, name):
    found = trace.open_trace(path)
    found._arrays["steps_done"][1] -= 1
    assert np.isfinite(found["duration"][1, -1])
    found._arrays[name][1, -1] = 1.0
    assert f"variable {name}" in {check.name for check in verify(found).failed}


def test_staleness_without_a_gradient_is_named(path):
    found = trace.open_trace(path)
    found._arrays["samples"][2, 3] = 0.0
    assert "variable staleness" in {check.name for check in verify(found).failed}


def test_more_steps_than_were_recorded_are_named(path):
    assert "variable steps_done" in named(path, "steps_done", 1000.0)


def test_moments_that_go_backwards_are_named(path):
    found = trace.open_trace(path)
    found._arrays["moment_time"][:] = found["moment_time"][::-1].copy()
    assert "variable moment_time" in {check.name for check in verify(found).failed}


def test_an_end_before_the_steps_is_named(path):
    assert "variable elapsed" in named(path, "elapsed", 1e-4)


def test_a_rank_that_does_not_exist_is_not_waited_for(path):
    assert "variable waited_for" in named(path, "waited_for", 1e18)


def test_the_report_names_the_variable(tmp_path):
    place = test_verify.finished(tmp_path, "adpsgd")
    with h5py.File(place, "r+") as file:
        file["waited_for"][0, 0] = 1e18  # and nobody counts so many ranks
    found = report.write_report(tmp_path)
    assert found.standing().invalid
    assert "variable waited_for" in " ".join(found.terminal(columns=200).split())


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e308, -1.0, 0.0])
def test_whatever_number_a_variable_has_a_report_is_printed(
    tmp_path, monkeypatch, value
):
    """Its trace fails verification, most times, and is shown all the same."""
    monkeypatch.setattr("dsgd_bench.report.find_spec", lambda name: None)  # no figures
    place = test_verify.finished(tmp_path, "adpsgd")
    undamaged = place.read_bytes()
    for name in VARIABLES:
        place.write_bytes(undamaged)
        with h5py.File(place, "r+") as file:
            file[name][...] = value
        found = report.write_report(tmp_path, out=tmp_path / "out")
        assert "adpsgd" in found.terminal(columns=200), name
        assert [*found.standing().lines()], name
        list(found.standing().mllog())
