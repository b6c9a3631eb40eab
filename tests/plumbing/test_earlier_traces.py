"""Traces of earlier schemas open, under the names of today, and make reports."""

import lzma
from pathlib import Path

import h5py
import numpy as np
import pytest

from dsgd_bench.cli import main
from dsgd_bench.errors import TraceError
from dsgd_bench.fabric.columns import SPANS
from dsgd_bench.trace import SCHEMA, VARIABLES, Trace, open_trace
from dsgd_bench.trace.variables import FORMER

EARLIER = Path(__file__).parents[1] / "earlier"
BY_SCHEMA = {
    1: ("1-allreduce", "1-adpsgd-overlapped"),
    2: ("2-asgd", "2-sgp"),
    3: tuple(f"cf87a62/{path.name}/trace" for path in (EARLIER / "cf87a62").iterdir()),
}

each = pytest.mark.parametrize(
    ("schema", "name"),
    [(schema, name) for schema, names in BY_SCHEMA.items() for name in names],
)


def unpacked(name: str, folder: Path) -> Path:
    path = folder / f"{Path(name).name}.h5"
    path.write_bytes(lzma.decompress((EARLIER / f"{name}.h5.xz").read_bytes()))
    return path


@pytest.fixture
def trace(name: str, tmp_path: Path) -> Trace:
    return open_trace(unpacked(name, tmp_path))


@each
def test_it_is_of_the_schema_that_its_name_says(schema, name, tmp_path):
    with h5py.File(unpacked(name, tmp_path)) as file:
        assert file.attrs["dsgd_schema_version"] == schema
        assert set(file) & set(FORMER) == set(FORMER), "with the names of its time"


@each
def test_every_variable_of_today_is_there(schema, name, trace):
    for variable in VARIABLES:
        assert trace[variable].ndim == len(VARIABLES[variable][0])


@each
def test_its_accounts_add_up_to_the_step(schema, name, trace):
    spent = sum(trace[span] for span in (*SPANS, "other"))
    np.testing.assert_allclose(spent, trace["duration"], atol=1e-9)


@each
def test_values_are_those_under_the_former_names(schema, name, tmp_path):
    path = unpacked(name, tmp_path)
    trace = open_trace(path)
    with h5py.File(path) as file:
        for former, today in FORMER.items():
            np.testing.assert_array_equal(trace[today], file[former][()])
    assert np.nansum(trace["update"]) > 0.0


@pytest.mark.parametrize("name", BY_SCHEMA[1])
def test_staleness_of_schema_1_has_become_changes(name, tmp_path):
    path = unpacked(name, tmp_path)
    trace = open_trace(path)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(trace["changes"], file["staleness"][()])
    known, taken = np.isfinite(trace["staleness"]), np.isfinite(trace["duration"])
    if trace.staleness == "gradients":
        np.testing.assert_array_equal(known, taken)
        others = taken.sum() - taken.sum(axis=1).min()
        assert 0 < np.nanmax(trace["staleness"]) <= others
    else:
        assert trace.staleness == "none"
        assert not known.any()


@pytest.mark.parametrize("name", BY_SCHEMA[1])
def test_schema_1_knew_no_servers(name, trace):
    assert (trace["serves"] == 0.0).all()
    assert np.isnan(trace["norm_of_mean"]).all()


def test_the_server_of_schema_2_is_one(tmp_path):
    trace = open_trace(unpacked("2-asgd", tmp_path))
    assert trace["serves"].tolist() == [0.0, 0.0, 1.0]


@each
def test_what_every_schema_has_must_be_there(schema, name, tmp_path):
    path = unpacked(name, tmp_path)
    with h5py.File(path, "r+") as file:
        del file["duration"]
    with pytest.raises(TraceError, match="duration"):
        open_trace(path)


@pytest.mark.parametrize("version", [0, SCHEMA + 1, "three"])
def test_a_schema_that_there_never_was_is_refused_in_a_sentence(version, tmp_path):
    path = unpacked("1-allreduce", tmp_path)
    with h5py.File(path, "r+") as file:
        file.attrs["dsgd_schema_version"] = version
    with pytest.raises(TraceError, match=f"has schema {version}, .* 1 to {SCHEMA}"):
        open_trace(path)


def test_a_results_folder_of_schema_3_gives_its_table(tmp_path, capsys):
    study = tmp_path / "tiny2"
    for name in BY_SCHEMA[3]:
        folder = study / Path(name).parent.name
        folder.mkdir(parents=True)
        unpacked(name, folder)
        (folder / "READY").touch()  # as every finished trial has it
    assert main(["report", str(study)]) in (0, 3)
    assert "FOM trials_finished 4 count" in capsys.readouterr().out
    text = (study / "report.md").read_text()
    heads = next(line for line in text.splitlines() if line.startswith("| algorithm"))
    assert "| transfer [%] | update [%] |" in heads
    for kind in ("allreduce", "adpsgd-overlapped", "sgp", "asgd"):
        assert any(line.startswith(f"| {kind} | ") for line in text.splitlines())
