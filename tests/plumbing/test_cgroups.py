"""Quotas and limits of control groups: both versions, nested, mixed, in containers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsgd_bench.host import cgroups, placement

V1 = "cgroup cgroup rw,{}"
V2 = "cgroup2 cgroup2 rw,nsdelegate"


class Tree:
    """A root with ``/proc`` and control groups of our own making."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc/self").mkdir(parents=True)

    def mounted(self, *mounts: tuple[str, str, str]) -> None:
        """Write the mounts: the group that is mounted, where, and of which kind."""
        lines = [
            f"{30 + number} 25 0:{number} {inside} {place} rw,relatime - {kind}\n"
            for number, (inside, place, kind) in enumerate(mounts)
        ]
        other = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        (self.root / "proc/self/mountinfo").write_text(other + "".join(lines))

    def within(self, *lines: str) -> None:
        text = "".join(f"{line}\n" for line in lines)
        (self.root / "proc/self/cgroup").write_text(text)

    def group(self, path: str, **files: str) -> None:
        folder = self.root / path.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text + "\n")

    @property
    def cores(self) -> float | None:
        return cgroups.tightest(cgroups.quotas(self.root))


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def test_half_a_core_by_version_two(tree):
    tree.mounted(("/", "/sys/fs/cgroup", V2))
    tree.within("0::/job/step")
    tree.group("/sys/fs/cgroup/job/step", cpu__max="50000 100000")
    assert tree.cores == 0.5


def test_half_a_core_by_version_one(tree):
    tree.mounted(
        ("/", "/sys/fs/cgroup/memory", V1.format("memory")),
        ("/", "/sys/fs/cgroup/cpu,cpuacct", V1.format("cpu,cpuacct")),
    )
    tree.within("4:memory:/", "3:cpu,cpuacct:/job")
    files = {"cpu__cfs_quota_us": "50000", "cpu__cfs_period_us": "100000"}
    tree.group("/sys/fs/cgroup/cpu,cpuacct/job", **files)
    assert tree.cores == 0.5


def test_the_tightest_group_around_counts(tree):
    tree.mounted(("/", "/sys/fs/cgroup", V2))
    tree.within("0::/slice/job/step")
    tree.group("/sys/fs/cgroup/slice", cpu__max="150000 100000")
    tree.group("/sys/fs/cgroup/slice/job", cpu__max="max 100000")
    tree.group("/sys/fs/cgroup/slice/job/step", cpu__max="400000 100000")
    assert sorted(cgroups.quotas(tree.root).values()) == [1.5, 4.0]
    assert tree.cores == 1.5


def test_a_hybrid_host_has_its_quota_where_the_controller_is(tree):
    tree.mounted(
        ("/", "/sys/fs/cgroup/cpu", V1.format("cpu")),
        ("/", "/sys/fs/cgroup/unified", V2),
    )
    tree.within("1:cpu:/job", "0::/job")
    files = {"cpu__cfs_quota_us": "25000", "cpu__cfs_period_us": "50000"}
    tree.group("/sys/fs/cgroup/cpu/job", **files)
    tree.group("/sys/fs/cgroup/unified/job")
    assert tree.cores == 0.5


@pytest.mark.parametrize("path", ["/", "/../other", "/docker/abc"])
def test_a_container_sees_its_own_group_as_the_one_that_is_mounted(tree, path):
    inside = path if path == "/docker/abc" else "/"
    tree.mounted((inside, "/sys/fs/cgroup", V2))
    tree.within(f"0::{path}")
    tree.group("/sys/fs/cgroup", cpu__max="200000 100000")
    assert tree.cores == 2.0


def test_a_group_below_the_one_that_is_mounted_is_found(tree):
    tree.mounted(("/docker/abc", "/sys/fs/cgroup", V2))
    tree.within("0::/docker/abc/inner")
    tree.group("/sys/fs/cgroup/inner", cpu__max="100000 100000")
    assert tree.cores == 1.0


@pytest.mark.parametrize(
    "text", ["max 100000", "", "-1", "0 100000", "50000 0", "x y", "1 2 3"]
)
def test_no_quota_and_nonsense_are_no_quota(tree, text):
    tree.mounted(("/", "/sys/fs/cgroup", V2))
    tree.within("0::/")
    tree.group("/sys/fs/cgroup", cpu__max=text)
    assert tree.cores is None


@pytest.mark.parametrize("missing", ["cgroup", "mountinfo", "both"])
def test_where_nothing_tells_there_is_no_limit(tree, missing):
    if missing != "mountinfo":
        tree.mounted()
    if missing != "cgroup":
        tree.within("0::/", "nonsense")
    assert tree.cores is None
    assert cgroups.memory_left(tree.root) is None


def test_memory_of_nested_groups_by_version_two(tree):
    tree.mounted(("/", "/sys/fs/cgroup", V2))
    tree.within("0::/job/step")
    used = "anon 300\nfile 500\nshmem 100"
    tree.group("/sys/fs/cgroup/job", memory__max="1000", memory__stat=used)
    tree.group("/sys/fs/cgroup/job/step", memory__max="max", memory__stat=used)
    assert cgroups.memory_limit(tree.root) == 1000
    assert cgroups.memory_left(tree.root) == 600


def test_memory_by_version_one_and_of_a_group_that_is_not_seen(tree):
    tree.mounted(("/a/b", "/sys/fs/cgroup/memory", V1.format("memory")))
    tree.within("4:memory:/a/b")
    stat = "total_rss 300\ntotal_shmem 100\nhierarchical_memory_limit 900"
    files = {"memory__limit_in_bytes": str(2**63 - 4096), "memory__stat": stat}
    tree.group("/sys/fs/cgroup/memory", **files)
    assert cgroups.memory_limit(tree.root) == 900
    assert cgroups.memory_left(tree.root) == 500
    files["memory__stat"] = "total_rss 300"
    tree.group("/sys/fs/cgroup/memory", **files)
    assert cgroups.memory_limit(tree.root) is None


@pytest.mark.parametrize(
    ("quotas", "threads", "sharing", "cores"),
    [
        ([{"job": 0.5}, {"job": 0.5}], [1, 1], {0, 1}, 0.5),
        ([{"job": 2.0}, {"job": 2.0}], [1, 1], set(), 2),
        ([{"job": 2.0}, {"job": 2.0}], [2, 1], {0, 1}, 2),
        ([{"a": 1.0}, {"b": 0.5}], [1, 1], {1}, 1.5),
        ([{"a": 1.0, "job": 1.5}, {"b": 1.0, "job": 1.5}], [1, 1], {0, 1}, 1.5),
        ([{}, {"b": 0.25}], [1, 1], {1}, 4),
    ],
)
def test_ranks_share_a_quota_as_they_share_cores(quotas, threads, sharing, cores):
    allowed = [{0, 1, 2, 3}] * 2
    assert placement.crowded(allowed, threads, quotas) == sharing
    assert placement.usable(allowed, quotas) == cores


def real_group(version: int) -> Path:
    """Return the folder of a new group of this machine with half a core."""
    for group in cgroups.groups("cpu"):
        if group.version != version:
            continue
        folder = group.folder / f"dsgd-bench-test-{os.getpid()}"
        try:
            folder.mkdir()
            if version == 1:
                (folder / "cpu.cfs_period_us").write_text("100000")
                (folder / "cpu.cfs_quota_us").write_text("50000")
            else:
                (folder / "cpu.max").write_text("50000 100000")
        except OSError:
            if folder.exists():
                folder.rmdir()
            continue
        return folder
    pytest.skip(f"no CPU quota of cgroup version {version} can be made here")


@pytest.mark.parametrize("version", [1, 2])
def test_a_real_group_is_seen_from_within(version):
    folder = real_group(version)
    code = (
        f"open({str(folder / 'cgroup.procs')!r}, 'w').write('0');"
        "from dsgd_bench.host import provenance as p;"
        "print(p.usable_cores(), p.host().cpu_quota)"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
    finally:
        folder.rmdir()
    assert done.stdout.split() == ["0.5", "0.5"]
