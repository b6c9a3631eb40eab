"""What makes two ranks neighbors, and which host a name means."""

import os

import pytest

from dsgd_bench.analysis.links import Links
from dsgd_bench.errors import ConfigError
from dsgd_bench.host import identity
from dsgd_bench.host.identity import Host
from dsgd_bench.host.placement import Place, arrange
from dsgd_bench.io import trial_folder
from dsgd_bench.spec.machine import LinksSpec, Machine
from dsgd_bench.study import lock
from dsgd_bench.study.rank_checks import check_links

A, TWIN = Host("node", "boot-1", "time:[1]"), Host("node", "boot-2", "time:[1]")
SHIFTED = Host("node", "boot-1", "time:[2]")


def test_two_machines_of_one_name_are_two_hosts_with_two_clocks():
    assert identity.names([A, TWIN, A, TWIN]) == [
        "node",
        "node (2)",
        "node",
        "node (2)",
    ]
    assert identity.clocks([A, TWIN, A, TWIN]) == [0, 1, 0, 1]


def test_a_time_namespace_is_one_host_and_another_clock():
    assert identity.names([A, SHIFTED]) == ["node", "node"]
    assert identity.clocks([A, SHIFTED, A]) == [0, 1, 0]


def test_where_the_kernel_is_unknown_all_clocks_are_compared():
    nameless = Host("node")
    assert identity.clocks([nameless, nameless]) == [0, 1]
    assert identity.names([nameless, nameless]) == ["node", "node"]


def test_this_process_shares_a_clock_with_itself():
    assert identity.clocks([identity.here(), identity.here()]) == [0, 0]


def place(host, kernel, cores="0-1"):
    return Place(host=host, kernel=kernel, cpus=cores, cores=cores, threads=1, gpu="")


def test_machines_of_one_name_are_two_nodes_and_share_no_core():
    known = [Host("node", "1")] * 2 + [Host("node", "2")] * 2
    names = identity.names(known)
    places = arrange([place(name, host.kernel) for name, host in zip(names, known)])  # noqa: B905
    assert [p.node for p in places] == [0, 0, 1, 1]
    assert [p.node_rank for p in places] == [0, 1, 0, 1]
    assert not any(p.shares for p in places)


def test_containers_on_one_kernel_are_hosts_of_their_own_that_share_cores():
    places = arrange([place("c1", "1", "0"), place("c2", "1", "0")])
    assert [p.node for p in places] == [0, 1]
    assert all(p.shares for p in places)


@pytest.mark.parametrize(
    ("written", "name", "meant"),
    [
        ("node3", "node3", True),
        ("NODE3", "node3", True),
        ("node3", "Node3.cluster.org", True),
        ("node3.cluster.org.", "node3", True),
        ("node3.a.org", "node3.b.org", False),
        ("node3", "node33", False),
        ("node", "node (2)", True),
        ("", "node", False),
    ],
)
def test_a_name_means_a_host_whatever_its_case_and_domain(written, name, meant):
    assert identity.same(written, name) is meant


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("n1", ["n1"]),
        ("n[01-03,7],login", ["n01", "n02", "n03", "n7", "login"]),
        ("r[1-2]-x", ["r1-x", "r2-x"]),
        ("n[0-99999999999]", ["n0-99999999999"]),
    ],
)
def test_a_list_of_nodes_is_read_as_slurm_writes_it(text, names):
    assert identity.in_list(text) == names


def machine(*names):
    return Machine(links=LinksSpec(rate=1e9, hosts=dict.fromkeys(names, 1e8)))


def test_links_of_a_host_that_no_rank_is_on_are_refused(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_NODELIST", raising=False)
    check_links(machine("HOST1", "host2.site.org"), ["host1.site.org", "host2"])
    with pytest.raises(ConfigError, match=r"names host3, and .* host1, host2:"):
        check_links(machine("host1", "host3"), ["host1", "host1", "host2"])
    monkeypatch.setenv("SLURM_JOB_NODELIST", "host[1-4]")  # of this job, without a rank
    check_links(machine("host3"), ["host1", "host2"])


def test_the_rates_of_links_are_those_of_the_hosts_that_are_meant():
    links = Links(("a.x.org", "b.x.org", "c"), 1e9, {"B": 1e8, "C.x.org": 1e7, "d": 1})
    assert links.label == "1 Gbit/s, b.x.org 100 Mbit/s, c 10 Mbit/s"
    assert links.unknown == ["d"]
    assert links.apart(1e6 / 8)[0].tolist() == pytest.approx([0.0, 0.01, 0.1])
    both = Links(("b.x.org", "b.y.org"), 1e9, {"b": 1e8, "b.x.org": 1e7})
    assert both.label == "1 Gbit/s, b.x.org 10 Mbit/s, b.y.org 100 Mbit/s"


def test_a_process_number_of_another_container_says_nothing_of_its_life(
    tmp_path, monkeypatch
):
    """No process here has the number, but it is the holder's in its own namespace."""
    claim = tmp_path / trial_folder.CLAIM
    with monkeypatch.context() as there:
        there.setattr(identity, "namespace", lambda _: "pid:[1]")
        there.setattr(os, "getpid", lambda: 2**22 + 1)
        claim.write_text(lock._ourselves().text())
    assert lock._alive(claim, sure=False)
    assert not lock._alive(claim, sure=True)
