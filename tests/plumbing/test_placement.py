"""Where ranks run: sets of cores as text, who shares them, and the map in words."""

import json

import msgspec
import pytest

from dsgd_bench.host import placement
from dsgd_bench.host.placement import Place, arrange, compact, crowded, spread


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        (set(), ""),
        ({3}, "3"),
        ({0, 1, 2, 3, 8}, "0-3,8"),
        ({5, 1, 2, 9, 10}, "1-2,5,9-10"),
    ],
)
def test_sets_of_cores_are_written_as_the_kernel_writes_them(numbers, text):
    assert compact(numbers) == text
    assert spread(text) == numbers


@pytest.mark.parametrize(
    ("cores", "threads", "sharing"),
    [
        ([{0}, {1}, {2}], None, set()),
        ([{0, 1}, {0, 1}], None, set()),  # two ranks that may move, two cores
        ([{0, 1}, {0, 1}, {0, 1}], None, {0, 1, 2}),
        ([{0}, {0}, {0, 1, 2, 3}], None, {0, 1}),  # idle cores help nobody pinned
        ([{0}, {1}, {0, 1}], None, {0, 1, 2}),
        ([{0, 1}, {2, 3}], [2, 2], set()),
        ([{0, 1}, {2, 3}], [2, 3], {1}),
    ],
)
def test_ranks_share_cores_where_there_is_not_one_for_every_thread(
    cores, threads, sharing
):
    assert crowded(cores, threads) == sharing


def place(host: str, cores: str, gpu: str = "", *, emulated: bool = False) -> Place:
    return Place(
        host=host, cpus=cores, cores=cores, threads=1, gpu=gpu, emulated=emulated
    )


def test_ranks_are_counted_on_every_node_and_only_those_that_share_are_marked():
    places = arrange(
        [place("a", "0"), place("b", "0"), place("a", "1"), place("b", "0")]
    )
    assert [p.node for p in places] == [0, 1, 0, 1]
    assert [p.node_rank for p in places] == [0, 0, 1, 1]
    assert [p.node_ranks for p in places] == [2, 2, 2, 2]
    assert [p.shares for p in places] == [False, True, False, True]
    assert (
        placement.summary(places)
        == "2 ranks on each of 2 nodes, 2 of which share cores"
    )


def test_emulated_hosts_are_one_machine():
    apart = [place("a", "0", emulated=True), place("b", "1", emulated=True)]
    assert not any(p.shares for p in arrange(apart))
    same = [place("a", "0", emulated=True), place("b", "0", emulated=True)]
    assert all(p.shares for p in arrange(same))


def test_the_map_groups_ranks_of_a_node_that_have_the_same():
    places = arrange([place("a", "0-3"), place("a", "0-3"), place("b", "0", gpu="1")])
    assert placement.lines(places) == {
        "a": "ranks 0-1 on cpus 0-3",
        "b": "rank 2 on cpus 0, GPU 1",
    }


def test_gpus_carry_their_pci_address(tmp_path):
    for address, name in (("0000:1b:00.0", "GPU-aa"), ("0000:1c:00.0", "GPU-bb")):
        (tmp_path / address).mkdir()
        text = f"Model: \t X\nGPU UUID: \t {name}\n"
        (tmp_path / address / "information").write_text(text)
    assert placement.gpu("1", tmp_path) == "1 at 0000:1c:00.0"
    assert placement.gpu("GPU-aa,7", tmp_path) == "GPU-aa at 0000:1b:00.0, 7"
    assert placement.gpu("", tmp_path) == ""


def test_a_process_knows_where_it_is(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = placement.here("me")
    assert found.host == "me"
    assert found.threads == 3
    assert spread(found.cpus) == placement.cpus()
    assert spread(found.cores) <= spread(found.cpus) | {
        placement.core_of(cpu) for cpu in placement.cpus()
    }


def test_a_trace_keeps_every_place_and_gives_it_back():
    places = arrange([place("a", "0-3"), place("b", "0", gpu="1")])
    written = json.loads(json.dumps(msgspec.to_builtins(places)))
    assert written[1] == {
        "host": "b",
        "cpus": "0",
        "cores": "0",
        "quotas": {},
        "threads": 1,
        "kernel": "",
        "gpu": "1",
        "emulated": False,
        "node": 1,
        "node_rank": 0,
        "node_ranks": 1,
        "shares": False,
    }
    assert placement.read(written) == places
    for each in written:  # as the first versions wrote them
        del each["quotas"], each["kernel"]
    assert placement.read(written) == places


def test_simulated_ranks_are_nowhere():
    assert placement.read(None) == []


@pytest.mark.parametrize("written", ["node1", [1, 2], [{"host": "node1"}]])
def test_what_is_no_list_of_places_is_refused(written):
    with pytest.raises(msgspec.ValidationError):
        placement.read(written)
