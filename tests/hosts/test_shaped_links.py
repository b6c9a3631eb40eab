"""Ranks on several hosts: what crosses the links, how fast, and who must help."""

import math

import pytest
from virtual_hosts import ROOT

MIB = 2**20
RATE = 200e6
"""Bit/s of the hosts' links."""
PAYLOAD = 1448 / 1514
"""Part of a frame that TCP carries: 1500 bytes less 52 of IP, TCP and a time stamp, in
14 more of Ethernet."""


def test_an_average_over_hosts_crosses_their_links(job):
    ranks = job("meet", 4 * MIB)
    hosts = [f"host{number}" for number in (1, 2, 3, 4)]
    assert [rank["host"] for rank in ranks] == hosts
    for rank in ranks:
        assert rank["nodes"] == hosts
        assert rank["mean"] == [1.5, 1.5]
        # Whatever the algorithm, nobody can tell the others less than its own vector
        assert rank["sent"] > 4 * MIB
        assert rank["received"] > 4 * MIB
    # The least for all together are 2(n - 1) vectors; the most by sending all to all.
    sent = PAYLOAD * sum(rank["sent"] for rank in ranks)
    assert 6 * 4 * MIB < sent < 1.05 * 12 * 4 * MIB


def test_ranks_on_emulated_hosts_know_that_they_share_cores(job):
    assert all(rank["crowded"] for rank in job("meet", 8))


def test_clocks_of_hosts_are_compared_and_these_are_one(job):
    first, *others = job("meet", 8)
    assert first["offset"] == [0.0, 0.0]
    for rank in others:
        offset, error = rank["offset"]
        assert abs(offset) <= error  # all hosts share one clock
        assert 0.0 < error < 0.1


def rate(seconds, nbytes):
    """Bit/s on the line, of the best time: others may have held the cores."""
    return 8 * 2 * nbytes / PAYLOAD / min(seconds)


def test_a_link_is_as_fast_as_it_was_made(job):
    first, _, third, _ = job("there_and_back", 2 * MIB, 12)  # who began has it all back
    for seconds in (first, third):
        # A fact of the token bucket; less for the start of TCP, and for crowded cores
        assert 0.7 * RATE < rate(seconds, 2 * MIB) < 1.1 * RATE


def test_a_slow_host_slows_its_partner_and_nobody_else(hosts, job):
    hosts.script("shape", "host3", "20mbit")
    first, _, slow, _ = job("there_and_back", MIB, 8)
    assert 0.7 * RATE / 10 < rate(slow, MIB) < 1.1 * RATE / 10
    assert 0.7 * RATE < rate(first, MIB) < 1.1 * RATE


# --- progress

BUSY = 0.5
OPERATIONS = {"put", "get", "accumulate", "fetch_and_op"}


def preflight(job, mode):
    """Return the operations against a busy target on another host, by name."""
    found = job("answering", mode, BUSY, ranks=2)
    assert found[0] == found[1]
    assert set(found[0]["pairs"]) == {"other_node"}
    operations = found[0]["pairs"]["other_node"]["operations"]
    assert set(operations) == OPERATIONS
    return found[0]["thread"], operations


def test_without_a_thread_every_operation_waits_for_a_busy_target(job):
    thread, operations = preflight(job, "none")
    assert not thread
    for name, found in operations.items():
        assert found["verdict"] == "waits", name
        assert found["seconds"] > 0.8 * BUSY, name


def test_with_a_thread_a_busy_target_answers_in_milliseconds(job):
    thread, operations = preflight(job, "thread")
    assert thread
    for name, found in operations.items():
        assert found["verdict"] == "passive", name
        assert found["seconds"] < BUSY / 10, name


def test_the_preflight_finds_by_itself_that_a_thread_is_needed(job):
    thread, operations = preflight(job, "auto")
    assert thread
    for name, found in operations.items():
        assert found["verdict"] == "with-thread", name
        assert found["seconds_without_thread"] > 10 * found["seconds"], name
        assert math.isfinite(found["seconds"])


@pytest.mark.timeout(300)
def test_exchanges_over_links_are_whole_and_lose_nothing(hosts, tmp_path):
    """The contracts of replicas and inboxes, and the fabric's tests, over TCP.

    Between hosts a buffer that is reused too early is a lost message, on one host
    nobody notices.
    """
    for name in ("host1", "host2", "host3", "host4"):
        hosts.script("shape", name, "none")
    log = tmp_path / "log.txt"
    tests = ["contracts/test_replicas.py", "contracts/test_inbox.py"]
    tests += ["mpi/test_fabric.py"]
    words = [str(ROOT / "tests/run.py"), "rank", "3", str(tmp_path)]
    words += [str(ROOT / "tests" / name) for name in tests]
    # Not on every graph, which takes minutes; the preflight is tested above.
    words += ["-k", "not mpi-1 and not many_exchanges and not preflight"]
    words += [f"--rootdir={ROOT}"]
    status = hosts.start(3, words, log)
    said = log.read_text()
    assert status == 0, said[-4000:]
    assert "passed" in said
