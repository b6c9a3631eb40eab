"""What is recorded about host, software and environment, and what is not."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dsgd_bench.host import environment, provenance


def test_provenance_is_json_and_complete():
    record = json.loads(json.dumps(provenance.collect()))
    assert set(record) == {"time_utc", "host", "software", "commit", "environment"}
    assert record["host"]["memory_bytes"] > 0
    assert record["software"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "numpy" in record["software"]["packages"]


def test_the_time_is_utc_to_the_second():
    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    assert re.fullmatch(pattern, provenance.collect()["time_utc"])


@pytest.mark.parametrize(
    "name",
    [
        "SLURM_JWT",
        "SLURM_JOB_API_TOKEN",
        "UCX_SECRET",
        "CUDA_LICENSE_KEY",
        "FI_PROVIDER_PASSWORD",
        "OMPI_MCA_credential",
        "PMIX_MCA_auth",
    ],
)
def test_variables_whose_name_says_secret_are_withheld(name):
    assert provenance.recorded_variables({name: "hunter2"}) == {
        name: provenance.WITHHELD
    }


def test_a_login_within_an_address_is_withheld():
    recorded = provenance.recorded_variables(
        {"PMIX_SERVER": "tcp4://me:hunter2@host:80/x"}
    )
    assert recorded == {"PMIX_SERVER": f"tcp4://{provenance.WITHHELD}@host:80/x"}


def test_only_variables_that_change_a_measurement_are_recorded():
    variables = {
        "AWS_SECRET_ACCESS_KEY": "x",
        "HOME": "/home/me",
        "USER": "me",
        "MY_OMP_NUM_THREADS": "4",
        "OMP_NUM_THREADS": "1",
        "SLURM_JOB_ID": "17",
        "UCX_TLS": "tcp,self",
    }
    assert provenance.recorded_variables(variables) == {
        "OMP_NUM_THREADS": "1",
        "SLURM_JOB_ID": "17",
        "UCX_TLS": "tcp,self",
    }


def test_the_cores_are_those_this_process_may_use():
    host = provenance.host()
    assert set(host.cpus_allowed) == os.sched_getaffinity(0)
    assert 1 <= host.cores_allowed <= len(host.cpus_allowed)


def test_hardware_threads_of_one_core_count_once(monkeypatch):
    siblings = {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}
    monkeypatch.setattr(provenance, "_cpus", lambda: {0, 1, 2})
    monkeypatch.setattr(
        provenance, "_line", lambda path: siblings[int(path.split("/cpu")[-1][0])]
    )
    assert provenance.cores() == 2


def test_no_mpi_library_is_loaded_or_reported_without_mpi():
    code = (
        "import sys; from dsgd_bench.host import environment, provenance;"
        "provenance.collect(); print(environment.libmpi(), 'mpi4py' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["None", "False"]


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("7f00-7f01 r-xp 0 08:01 42   /opt/mpich/lib/libmpi.so.12", "libmpi.so.12"),
        ("7f00-7f01 r-xp 0 08:01 42   /o/lib/libmpi.so.40.40.7", "libmpi.so.40.40.7"),
        ("7f00-7f01 r-xp 0 08:01 42   /opt/cray/libmpi_gnu_123.so.12", "libmpi_gnu"),
        ("7f00-7f01 r-xp 0 08:01 42   /usr/lib/libmpi_cxx.so.40", None),
        ("7f00-7f01 r-xp 0 08:01 42   /usr/lib/libmpicxx.so.12", None),
        ("7f00-7f01 rw-p 0 00:00 0    [heap]", None),
    ],
)
def test_the_mpi_library_is_found_by_its_mapping(monkeypatch, line, path):
    monkeypatch.setattr(Path, "read_text", lambda self, **_: line + "\n")
    found = environment.libmpi()
    assert found is None if path is None else path in found


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=A", "-c", "user.email=a@b"]
    subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True
    )


@pytest.fixture
def checkout(tmp_path):
    """Return a checkout with one commit that holds a package."""
    package = tmp_path / "dsgd_bench"
    package.mkdir()
    (package / "provenance.py").write_text("first\n")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "First")
    return package


def test_a_clean_checkout_is_its_commit(checkout):
    found = provenance.commit(checkout)
    assert re.fullmatch("[0-9a-f]{40}", found.hash)
    assert found.dirty is False


def test_a_changed_checkout_is_dirty(checkout):
    (checkout / "provenance.py").write_text("second\n")
    assert provenance.commit(checkout).dirty is True


def test_an_environment_inside_somebody_elses_checkout_has_no_commit(checkout):
    installed = checkout.parent / "venv" / "dsgd_bench"
    installed.mkdir(parents=True)
    (installed / "provenance.py").write_text("installed\n")
    assert provenance.commit(installed) is None
