"""hosts.sh itself: it makes what it says, twice if asked twice, and cleans up."""

import subprocess
from pathlib import Path

import pytest
from virtual_hosts import CANNOT, ROOT, SCRIPT, Hosts, up


@pytest.fixture
def own(all_hosts: Hosts):
    """Two hosts of another prefix, beside those of the other tests."""
    hosts = Hosts(f"{all_hosts.prefix}x-")
    up(hosts, "-n", 2, "--rate", "100mbit", "--slow", "host2=10mbit")
    yield hosts
    hosts.script("down")


def devices() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def configured() -> list[Path]:
    return sorted(Path("/etc/netns").iterdir())


def rates(hosts: Hosts) -> dict[str, str]:
    lines = [line.split() for line in hosts.script("status").splitlines()[1:]]
    return {name: rate for name, _, rate, *_ in lines}


def test_hosts_have_the_rates_that_were_asked_for(own):
    assert rates(own) == {"host1": "100Mbit", "host2": "10Mbit", "ctl": "none"}
    own.script("shape", "host2", "50mbit")
    own.script("shape", "host1", "none")
    assert rates(own) == {"host1": "none", "host2": "50Mbit", "ctl": "none"}


def test_up_twice_is_up_once_with_the_new_rates(own):
    before = own.namespaces()
    own.script("up", "-n", 2, "--rate", "1gbit")
    assert own.namespaces() == before
    assert rates(own) == {"host1": "1Gbit", "host2": "1Gbit", "ctl": "none"}
    assert "run down before" in own.script("up", "-n", 3, check=False)


def test_a_host_has_its_own_name_memory_boot_and_network(own):
    look = "hostname; cat /proc/sys/kernel/random/boot_id; ls /sys/class/net /dev/shm"
    seen = [own.script("run", host, "sh", "-c", look) for host in ("host1", "host2")]
    name, boot, *rest = seen[0].split()
    assert name == "host1"
    assert boot != Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert {"eth0", "lo"} <= set(rest)
    assert seen[1].split()[:2] != [name, boot]


def test_the_stand_in_for_ssh_drops_options_and_joins_words(own):
    words = ("-x", "-o", "BatchMode=yes", "10.99.0.2", "echo $HOSTNAME;", "hostname")
    assert own.script("rsh", *words).split()[-1] == "host2"


def test_down_ends_what_runs_and_leaves_nothing(all_hosts):
    own = Hosts(f"{all_hosts.prefix}y-")
    before = devices(), configured()
    up(own, "-n", 1)
    assert (devices(), len(own.namespaces())) == (before[0], 3)
    with subprocess.Popen(
        [SCRIPT, "--prefix", own.prefix, "run", "host1", "sleep", "100"]
    ) as sleeper:
        own.script("down")
        assert sleeper.wait(20) != 0
    assert own.namespaces() == []
    assert (devices(), configured()) == before
    own.script("down")  # nothing to do is no error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["shape", "host9", "1mbit"], "there is no host host9: choose one of ctl"),
        (["shape", "host1", "fast"], "'fast' is no rate"),
        (["up", "-n", "many"], "'many' is no number of hosts"),
        (["up", "--slow", "host1"], "'host1' is not HOST=RATE"),
        (["up", "--color"], "up knows no '--color'"),
        (["run", "host1"], "run HOST COMMAND"),
    ],
)
def test_bad_words_are_answered_in_one_sentence(all_hosts, words, said):
    done = all_hosts.attempt(*words)
    assert said in done.stdout
    assert done.stdout.count("\n") == 1
    assert done.returncode == 2


def test_without_root_it_says_that_root_is_needed(all_hosts):
    if not ROOT.stat().st_mode & 0o005:
        pytest.skip("others may not read this folder")
    done = all_hosts.attempt("up", user=65534, group=65534, extra_groups=[])
    assert done.returncode == CANNOT
    assert done.stdout == "hosts.sh: network namespaces need root\n"
