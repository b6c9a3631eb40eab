"""What a report says of where ranks ran, and of bugs that they could have met."""

from typing import Any

import msgspec
import pytest
import synthetic

from dsgd_bench import report
from dsgd_bench.host.placement import Place, arrange


def places(*cores: str) -> Any:
    """Return the places of ranks on one node, as a trace keeps them."""
    found = [
        Place(host="node1", cpus=core, cores=core, threads=1, gpu="") for core in cores
    ]
    return msgspec.to_builtins(arrange(found))


def study(tmp_path, **provenance):
    """Return the report's only study, of one toy run with this provenance."""
    toy = synthetic.run(synthetic.trial(ranks=4))
    toy.provenance = {**synthetic.PROVENANCE, **provenance}
    synthetic.save(toy, tmp_path / "toy")
    (found,) = report.read_report(tmp_path / "toy").studies
    return found


def said(found, kind: str) -> list[str]:
    return [caution.text for caution in found.cautions if caution.kind == kind]


def test_the_page_shows_which_cores_every_rank_had(tmp_path):
    found = study(tmp_path, placement=places("0", "1", "2", "3"))
    assert found.provenance["node node1"] == (
        "rank 0 on cpus 0; rank 1 on cpus 1; rank 2 on cpus 2; rank 3 on cpus 3"
    )
    assert "placement" not in found.provenance
    assert said(found, "oversubscribed") == []


def test_ranks_pinned_to_one_core_are_counted(tmp_path):
    pinned = places("0", "0", "2", "3")
    found = study(tmp_path, placement=pinned, oversubscribed=True)
    (text,) = said(found, "oversubscribed")
    assert text.startswith("4 ranks of which 2 shared cores")


def test_ranks_that_take_turns_on_a_gpu_are_counted(tmp_path):
    gpu = {"name": "some", "mps": False, "ranks": 2}
    (text,) = said(study(tmp_path / "turns", gpus=[gpu, gpu]), "shared-gpus")
    assert text.startswith("2 ranks computed on one GPU without")
    for number, better in enumerate(({**gpu, "mps": True}, {**gpu, "ranks": 1})):
        found = study(tmp_path / str(number), gpus=[better, better])
        assert said(found, "shared-gpus") == []


def test_a_known_bug_is_named_once_with_the_runs_that_could_meet_it(tmp_path):
    found = study(tmp_path, known_bugs=["some/project#1: it hangs: use another"])
    (text,) = said(found, "known-bugs")
    assert text.startswith("1 of 1 runs could have met")
    assert "some/project#1" in text
    assert said(study(tmp_path / "other", known_bugs=[]), "known-bugs") == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("placement", "node1"),
        ("placement", [1, 2]),
        ("gpus", 5),
        ("gpus", [{"ranks": "two", "mps": False}]),
        ("known_bugs", 5),
        ("oversubscribed", "yes"),
        ("cores", "many"),
    ],
)
def test_a_trace_of_odd_provenance_is_unreadable_and_the_others_are_reported(
    tmp_path, name, value
):
    for repeat, odd in enumerate(({}, {name: value})):
        toy = synthetic.run(synthetic.trial(repeat=repeat))
        toy.provenance = {**synthetic.PROVENANCE, **odd}
        synthetic.save(toy, tmp_path / "toy")
    (found,) = report.read_report(tmp_path / "toy").studies
    assert [row.status for row in found.rows] == ["reached", "unreadable"]
    assert f"$.{name}" in found.rows[1].reason
