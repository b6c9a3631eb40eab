"""Is this process a rank of an MPI job? Launchers leave signs, and so do shells."""

import os

import pytest

from dsgd_bench import surroundings


@pytest.fixture
def signs(monkeypatch):
    """Return a function that makes these the only signs there are."""

    def leave(**variables):
        for name in (*surroundings.STARTED_AS, "SLURM_JOB_ID", *surroundings.THREADS):
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
        ({"PMI_SIZE": "no number"}, None),
    ],
)
def test_the_surest_sign_counts_and_a_slurm_shell_is_no_job(signs, variables, ranks):
    signs(**variables)
    assert surroundings.started_ranks() == ranks


def test_threads_are_limited_unless_the_user_said_more(signs):
    signs(OMP_NUM_THREADS="4")
    surroundings.limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "4"
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
