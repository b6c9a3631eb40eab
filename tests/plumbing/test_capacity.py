"""What ranks need of a machine and what it has: quotas and shared memory, in words."""

from types import SimpleNamespace

import pytest

from dsgd_bench import config
from dsgd_bench.host import provenance
from dsgd_bench.spec.machine import Machine
from dsgd_bench.study import capacity, launch, plan

STUDY = """
[study]
ranks = [2, 4]
budget = { steps = 10 }
[problem]
kind = "message"
dimension = 262144
batch = 1
[[algorithm]]
kind = "allreduce"
"""


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(STUDY)
    return config.read_study(path)


@pytest.fixture
def cores(monkeypatch):
    """Return a function that gives this machine cores, and a quota of them."""

    def give(count, quota=None):
        monkeypatch.setattr(provenance, "cores", lambda: count)
        quotas = {} if quota is None else {"group": quota}
        monkeypatch.setattr(provenance.cgroups, "quotas", lambda: quotas)

    return give


@pytest.fixture
def room(monkeypatch):
    """Return a function that leaves so many MiB in /dev/shm."""

    def leave(mib):
        found = SimpleNamespace(f_bavail=mib, f_frsize=capacity.MIB)
        monkeypatch.setattr(capacity.os, "statvfs", lambda _: found)

    return leave


def test_half_a_core_is_as_crowded_as_one(cores):
    cores(2)
    assert capacity.crowding(2, Machine()) == ""
    cores(1)
    assert capacity.crowding(2, Machine()).startswith("2 ranks on 1 cores: ranks wait")
    cores(2, 0.5)
    said = capacity.crowding(2, Machine())
    assert said.startswith("2 ranks on 0.5 cores (a control group allows 0.5): ranks")
    assert launch.shares_cores(1, Machine())


def test_a_quota_beyond_the_cores_adds_none(cores):
    cores(2, 16.0)
    assert provenance.usable_cores() == 2


def test_a_plan_names_what_there_is_too_little_of(study, cores, room):
    cores(2, 0.5)
    room(8)
    crowded, small = plan.lacks(study, Machine())
    assert crowded.startswith("4 ranks on 0.5 cores")
    # 4 ranks, a model of 1 MiB (float32) each
    need = 4 * (capacity.RANK_BYTES / capacity.MIB + 1)
    assert f"about {need:.0f} MiB" in small
    assert "8.0 MiB left" in small


def test_a_plan_of_ranks_elsewhere_says_nothing_of_this_machine(study, cores, room):
    cores(1)
    room(1)
    assert plan.lacks(study, Machine(launcher=("srun", "-n", "{ranks}"))) == []


@pytest.mark.parametrize(
    ("status", "said", "killed"),
    [
        (7, "", True),
        (-7, "", True),
        (135, "", True),
        (139, "", True),
        (1, "not enough space for /dev/shm/sm_segment", True),
        (1, "", False),
        (-9, "", False),
        (137, "", False),
    ],
)
def test_the_ends_of_ranks_without_shared_memory_are_known(status, said, killed):
    assert capacity.killed_by_memory(status, [said]) is killed
