"""The table [network] of a study: presets, what is laid over them, what is refused."""

import pytest

from dsgd_bench import config
from dsgd_bench.errors import ConfigError
from dsgd_bench.spec.network import PRESETS
from dsgd_bench.spec.trial import Trial

STUDY = """
[study]
ranks = 4
budget = { steps = 5 }
[problem]
kind = "quadratic"
[algorithm]
kind = "allreduce"
[compute]
mode = "emulated"
seconds = 0.01
"""


def read(tmp_path, network="", *changes):
    path = tmp_path / "study.toml"
    path.write_text(STUDY + network)
    return config.read_study(path, changes)


def test_a_study_without_the_table_has_trials_without_a_network(tmp_path):
    (trial,) = read(tmp_path).trials
    assert trial.network is None
    assert Trial.from_json(trial.to_json()) == trial


def test_keys_are_laid_over_a_preset_at_any_depth(tmp_path):
    table = '[network]\npreset = "ethernet-25"\nranks_per_node = 2\n'
    table += "[network.far]\nlatency = 1e-3\n"
    (trial,) = read(tmp_path, table).trials
    preset = PRESETS["ethernet-25"]
    assert trial.network.far.latency == 1e-3
    assert trial.network.far.rate == preset.far.rate
    assert trial.network.near == preset.near
    assert trial.network.ranks_per_node == 2
    assert Trial.from_json(trial.to_json()) == trial


def test_presets_and_keys_are_swept(tmp_path):
    table = '[network]\npreset = ["ethernet-10", "ethernet-100"]\n'
    table += "wire_bytes = [0, 1000]\nfar = { latency = [1e-6, 2e-6] }\n"
    trials = read(tmp_path, table).trials
    found = {
        (t.network.name, t.network.wire_bytes, t.network.far.latency) for t in trials
    }
    assert len(trials) == len(found) == 8


def test_a_measured_operation_can_be_given(tmp_path):
    table = "[network.far.operations]\nget = { seconds = 1e-5, rate = 1e9 }\n"
    (trial,) = read(tmp_path, table).trials
    assert trial.network.far.operations["get"].seconds == 1e-5


def test_trials_are_left_out_by_their_network(tmp_path):
    table = '[network]\npreset = ["ethernet-10", "ethernet-100"]\n[[exclude]]\n'
    table += 'when = { network = { name = "ethernet-10" } }\nreason = "known"\n'
    study = read(tmp_path, table)
    assert [t.network.name for t in study.trials] == ["ethernet-100"]
    assert len(study.excluded) == 1


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('preset = "ethernet-11"', "did you mean 'ethernet-10'"),
        ("latency = 1.0", "network.latency does not exist"),
        ("far = { rate = -1.0 }", "network.far.rate is -1.0 but must be a number at"),
        ('progress = "some"', "network.progress"),
        ("ranks_per_node = 0", "network.ranks_per_node"),
        ("preset = { a = 1 }", "network.preset is"),
    ],
)
def test_what_no_network_has_is_refused(tmp_path, table, said):
    with pytest.raises(ConfigError, match=said):
        read(tmp_path, f"[network]\n{table}\n")


def test_a_simulated_trial_needs_gradient_times(tmp_path):
    measured = ('compute={mode="measured", seconds=0.0}',)
    read(tmp_path, "", *measured)
    with pytest.raises(ConfigError, match="in virtual time computing takes no time"):
        read(tmp_path, "[network]\n", *measured)


def test_only_studies_without_networks_are_run(tmp_path):
    config.check_measured(read(tmp_path))
    with pytest.raises(ConfigError, match="use dsgd-bench simulate"):
        config.check_measured(read(tmp_path, "[network]\n"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('compute.distribution="gamma"', "compute.variation is missing"),
        ("compute.variation=0.1", "compute.variation has no effect"),
        ('compute={mode="resampled", seconds=0.0}', "compute.trace is missing"),
        ('compute={mode="resampled", trace="t.h5"}', "compute.seconds has no effect"),
        ('compute.trace="t.h5"', "compute.trace has no effect"),
    ],
)
def test_gradient_times_that_cannot_be_are_refused(tmp_path, change, said):
    with pytest.raises(ConfigError, match=said):
        read(tmp_path, "", change)
