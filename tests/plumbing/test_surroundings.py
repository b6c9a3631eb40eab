"""Is this process a rank of an MPI job? Launchers leave signs, and so do shells."""

import os
import sys

import pytest

from dsgd_bench.host import environment


@pytest.fixture
def signs(monkeypatch):
    """Return a function that makes these the only signs there are."""

    def leave(**variables):
        looked_at = (*environment.STARTED_AS, *environment.RANK_IS)
        for name in (*looked_at, "SLURM_JOB_ID", *environment.THREADS):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return leave


@pytest.mark.parametrize(
    ("variables", "ranks"),
    [
        ({}, None),
        ({"PMI_SIZE": "4"}, 4),
        ({"PMI_SIZE": "1"}, 1),
        ({"OMPI_COMM_WORLD_SIZE": "16", "PMI_SIZE": "1", "SLURM_JOB_ID": "7"}, 16),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "8"}, 8),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "1", "PMI_SIZE": "1"}, None),
        ({"PMI_SIZE": ""}, None),
    ],
)
def test_the_surest_sign_counts_and_a_slurm_shell_is_no_job(signs, variables, ranks):
    signs(**variables)
    assert environment.started_ranks() == ranks


def test_threads_are_limited_unless_the_user_said_more(signs):
    signs(OMP_NUM_THREADS="4")
    environment.limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "4"
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"


def test_the_rank_is_known_by_the_surest_sign(signs):
    signs(SLURM_PROCID="3")
    assert environment.started_rank() == 3
    signs(SLURM_PROCID="1", PMI_RANK="5")
    assert environment.started_rank() == 5
    signs()
    assert environment.started_rank() is None


def test_lonely_ranks_are_told_library_signs_and_fix(signs):
    signs(SLURM_JOB_ID="7", SLURM_STEP_NUM_TASKS="4", SLURM_PROCID="0")
    said = environment.mismatch(1, 4, "/site/libmpi.so.12", "mpich")
    for part in ("size 1", "/site/libmpi.so.12", "SLURM_STEP_NUM_TASKS=4", "pmi2"):
        assert part in said
    assert "pmix" in environment.mismatch(1, 4, "/x", "openmpi")
    signs(PMI_SIZE="2")
    assert "belongs to that library" in environment.mismatch(1, 2, "/x", "openmpi")


WHEEL = f"{sys.prefix}/lib/libmpi.so.12"


@pytest.mark.parametrize(
    ("library", "variables", "said"),
    [
        (WHEEL, {}, ""),
        ("/site/lib/libmpi.so", {"MPICH_DIR": "/site"}, ""),
        (WHEEL, {"MPICH_DIR": "/site"}, "MPICH at /site (MPICH_DIR)"),
        (WHEEL, {"CRAY_MPICH_DIR": "/opt/cray"}, "Cray MPICH at /opt/cray"),
        (WHEEL, {"LOADEDMODULES": "gcc/13:openmpi/5.0"}, "the module openmpi/5.0"),
        (WHEEL, {"I_MPI_ROOT": sys.prefix}, ""),  # set by the wheel's own launcher
        (WHEEL, {"SLURM_JOB_ID": "7"}, "whatever the site has"),
        (None, {"MPICH_DIR": "/site"}, ""),
    ],
)
def test_a_wheel_that_hides_the_sites_library_is_named(library, variables, said):
    sentence = environment.shadowed(library, variables)
    assert said in sentence
    assert bool(sentence) is bool(said)
    assert not said or "MPI4PY_LIBMPI" in sentence
