"""Machine profiles: written, read, refused, and turned into simulated networks."""

import json
from pathlib import Path

import pytest
from msgspec import structs

from dsgd_bench.errors import ConfigError
from dsgd_bench.fabric.virtual.network import Interconnect
from dsgd_bench.spec import machine_profile
from dsgd_bench.spec.machine_profile import Answer, GradientTime, Measured, Profile


def measured(seconds: float, rate: float, overhead: float = 0.0) -> Measured:
    sizes = (8, 1024)
    times = tuple(seconds + 8 * size / rate for size in sizes)
    return Measured(
        sizes, times, times, times, (5, 5), seconds, rate, overhead, 0.0, 0.0
    )


def operations(factor: float = 1.0) -> dict[str, Measured]:
    names = (
        "send_receive",
        "put",
        "get",
        "accumulate",
        "get_accumulate",
        "fetch_and_op",
        "compare_and_swap",
    )
    return {
        name: measured(factor * (number + 1) * 1e-6, (number + 1) * 1e9, 1e-7)
        for number, name in enumerate(names)
    }


def a_profile(
    *, far: bool = False, verdict: machine_profile.Verdict = "passive"
) -> Profile:
    classes = ("near", "far") if far else ("near",)
    answers = {"put": Answer(1e-5, 1e-5, "passive"), "get": Answer(1.0, 1.0, verdict)}
    return Profile(
        machine_profile.VERSION,
        {"mpi_library": "a library"},
        ranks=8 if far else 4,
        nodes=len(classes),
        ranks_per_node=4,
        pairs={name: operations(1.0 if name == "near" else 10.0) for name in classes},
        allreduce={2: measured(2e-3, 2e8), 4: measured(4e-3, 4e8)},
        neighborhood={2: measured(1e-4, 1e9)},
        busy_target=0.06,
        busy={name: {"allocate": answers, "create": answers} for name in classes},
        remedies=("a sentence",),
        gradients={"mlp": GradientTime(32, 4810, 1e-4, 9e-5, 2e-4)},
        timer=6e-8,
    )


def test_a_profile_is_written_whatever_bytes_the_variables_have(tmp_path: Path) -> None:
    profile = a_profile()
    profile.provenance["environment"] = {"UCX_NET_DEVICES": "caf\udce9"}
    profile.write(tmp_path / "cluster.json")
    found = machine_profile.read(tmp_path / "cluster.json")
    assert found.provenance["environment"] == {"UCX_NET_DEVICES": "caf?"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.json"
    a_profile().write(path)
    return path


def test_what_is_written_is_read_again_under_the_name_of_the_file(file):
    assert machine_profile.read(file) == structs.replace(a_profile(), name="cluster")
    assert [path.name for path in file.parent.iterdir()] == ["cluster.json"]
    assert json.loads(file.read_text())["dsgd_profile"] == 1


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        machine_profile.read(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    assert "dsgd-bench probe" in said
    return said


def test_a_profile_that_is_missing_is_refused(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.json")


@pytest.mark.parametrize("text", ["", "{", "# a comment", "\xff"])
def test_what_is_not_json_is_refused(file, text):
    file.write_bytes(text.encode("latin-1"))
    assert ("not UTF-8" if text == "\xff" else "not JSON") in refusal(file)


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"pairs": {}}'])
def test_other_json_is_refused(file, text):
    file.write_text(text)
    assert "no machine profile" in refusal(file)


@pytest.mark.parametrize("version", [0, 2, "new"])
def test_another_schema_is_refused(file, version):
    content = json.loads(file.read_text()) | {"dsgd_profile": version}
    file.write_text(json.dumps(content | {"new": 1}))
    assert f"schema {version}" in refusal(file)


def test_a_damaged_profile_is_refused_with_the_place(file):
    content = json.loads(file.read_text())
    del content["pairs"]["near"]["put"]["rate"]
    file.write_text(json.dumps(content))
    assert "rate" in refusal(file)


def test_a_profile_without_an_operation_is_refused(file):
    content = json.loads(file.read_text())
    del content["pairs"]["near"]["put"]
    file.write_text(json.dumps(content))
    assert "put" in refusal(file)


def test_more_ranks_on_a_node_than_measured_are_refused():
    with pytest.raises(ConfigError, match="4 ranks per node, fewer than the 5 asked"):
        a_profile(far=True).network(100, ranks_per_node=5)


def test_one_node_is_no_cluster():
    assert a_profile().network(4).ranks_per_node == 4
    with pytest.raises(ConfigError, match="on one node with 4 ranks"):
        a_profile().network(5)
    with pytest.raises(ConfigError, match="on one node"):
        a_profile().network(4, ranks_per_node=2)
    assert a_profile(far=True).network(1000).ranks_per_node == 4


def test_a_message_costs_what_it_was_measured_to():
    spec = a_profile(far=True).network(8)
    for link, factor in ((spec.near, 1.0), (spec.far, 10.0)):
        assert link.overhead == 1e-7
        assert link.latency + link.overhead == pytest.approx(factor * 1e-6)
        assert link.rate == 1e9
    network = Interconnect(spec, 8)
    nbytes = 1_000_000
    assert network.message(0, 1, nbytes, 0.0)[1] == pytest.approx(1e-6 + 8e-3)
    assert network.message(0, 4, nbytes, 0.0)[1] == pytest.approx(1e-5 + 8e-3)


def test_an_overhead_longer_than_an_empty_message_leaves_no_latency():
    slow = operations() | {"send_receive": measured(1e-6, 1e9, overhead=5e-6)}
    link = structs.replace(a_profile(), pairs={"near": slow}).network(4).near
    assert (link.overhead, link.latency) == (1e-6, 0.0)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("put", "put"),
        ("get", "get"),
        ("accumulate", "accumulate"),
        ("fetch", "get_accumulate"),
    ],
)
def test_an_operation_costs_what_it_was_measured_to(ours, theirs):
    network = Interconnect(a_profile().network(4), 4)
    line = operations()[theirs]
    nbytes = 1_000_000
    expected = line.seconds + 8 * nbytes / line.rate
    assert network.operation(ours, 0, 1, nbytes, 0.0) == pytest.approx(expected)


def test_a_word_costs_the_mean_of_both_measured():
    network = Interconnect(a_profile().network(4), 4)
    assert network.operation("word", 0, 1, 8, 0.0) == pytest.approx(6.5e-6)


@pytest.mark.parametrize(("ranks", "line"), [(2, 2), (3, 2), (4, 4)])
def test_an_allreduce_takes_what_as_many_or_the_next_fewer_ranks_took(ranks, line):
    network = Interconnect(a_profile().network(ranks), ranks)
    found = sum(network.allreduce(1_000_000, 0, 0.0))
    took = a_profile().allreduce[line]
    assert found == pytest.approx(took.seconds + 8e6 / took.rate)


@pytest.mark.parametrize(
    ("verdict", "progress"),
    [("passive", "hardware"), ("needs-progress", "thread"), ("none", "none")],
)
def test_who_answers_while_a_target_computes_was_measured_between_nodes(
    verdict, progress
):
    assert a_profile(far=True, verdict=verdict).network(8).progress == progress
    assert a_profile(verdict=verdict).network(4).progress == "hardware"
