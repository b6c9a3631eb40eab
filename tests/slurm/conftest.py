"""A real Slurm of four virtual nodes on this machine, and jobs that go through it.

`jobs/emulate/slurm.sh` brings the cluster up once per session, and down again; one that
is up already is used, and stays. Which MPI library is tested is a matter of the
interpreter that runs pytest: there is one environment per library.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from virtual_cluster import LAUNCHERS, TEST_SECONDS, Slurm, script, surroundings

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            # by signal: the thread method ends pytest, and the cluster would stay
            item.add_marker(pytest.mark.timeout(TEST_SECONDS, method="signal"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[dict[str, str]]:
    """The environment in which Slurm's commands find the cluster."""
    for program in ("slurmctld", "slurmd", "srun", "munged"):
        if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin"):
            pytest.skip(f"there is no {program} on this machine")
    if os.geteuid():
        pytest.skip("only root can give every virtual node a host name of its own")
    was_up = script("status", check=False).returncode == 0
    try:
        if not was_up:
            script("up")
        found = re.search(r"SLURM_CONF='(.+)'", script("env").stdout)
        assert found
        yield {**surroundings(), "SLURM_CONF": found[1]}
    finally:
        if not was_up:
            script("down")


@pytest.fixture
def slurm(cluster: dict[str, str], tmp_path: Path) -> Iterator[Slurm]:
    here = Slurm(cluster, tmp_path)
    try:
        yield here
    finally:
        here.end_all()


@pytest.fixture(params=LAUNCHERS)
def launcher(request: pytest.FixtureRequest) -> list[str]:
    """Words that start the ranks: every way that this environment's MPI offers."""
    return LAUNCHERS[request.param]
