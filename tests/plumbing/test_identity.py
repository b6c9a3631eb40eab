"""Trials are the same if the same was asked for, whatever keys came later."""

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import msgspec
import pytest
import synthetic
from msgspec import Struct

from dsgd_bench import config, report
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.config import naming
from dsgd_bench.config.identity import asked, trial_id
from dsgd_bench.io.trial_folder import JOB, READY, STOPPED, TRACE, Outcome, TrialFolder
from dsgd_bench.spec.job import Job
from dsgd_bench.spec.machine import Machine
from dsgd_bench.spec.trial import (
    AlgorithmSpec,
    BudgetSpec,
    OptimizerSpec,
    ProblemSpec,
    ShardsSpec,
    Trial,
)
from dsgd_bench.study import runner
from dsgd_bench.study.decision import FINISHED, Ended
from dsgd_bench.trace import Trace, trials

EARLIER = Path(__file__).parent / "earlier"
"""Jobs as commit cf87a62 wrote them, in folders called by the ids of that time."""

STUDY = """
[study]
ranks = 2
budget = { steps = 3 }

[problem]
kind = "quadratic"
dimension = 4

[algorithm]
kind = ["dpsgd", "allreduce"]

[measure]
copies = 4
"""
"""What was asked of commit cf87a62."""


def trial(**changes: object) -> Trial:
    plain = Trial(
        ranks=2,
        algorithm=AlgorithmSpec("dpsgd"),
        problem=ProblemSpec("softmax"),
        budget=BudgetSpec(steps=1),
    )
    return msgspec.structs.replace(plain, **changes)


def test_only_what_was_asked_counts_at_every_level():
    assert asked(trial()) == {
        "ranks": 2,
        "algorithm": {"kind": "dpsgd"},
        "problem": {"kind": "softmax"},
        "budget": {"steps": 1},
    }
    spelled = trial(
        algorithm=AlgorithmSpec("dpsgd", {"graph": "ring"}),
        problem=ProblemSpec("softmax", settings={"data": "digits"}),
        optimizer=OptimizerSpec(lr=0.1, momentum=0.0),
    )
    assert ALGORITHMS["dpsgd"].settings["graph"][1] == "ring"
    assert trial_id(spelled) == trial_id(trial())


@pytest.mark.parametrize(
    "other",
    [
        trial(seed=1),
        trial(algorithm=AlgorithmSpec("dpsgd", {"graph": "complete"})),
        trial(problem=ProblemSpec("softmax", shards=ShardsSpec("dirichlet"))),
        trial(problem=ProblemSpec("softmax", settings={"data": "mnist"})),
        trial(optimizer=OptimizerSpec(lr=0.1000001)),
        trial(algorithm=AlgorithmSpec("dpsgd", rule=2)),
    ],
)
def test_whatever_is_no_default_makes_another_trial(other):
    assert trial_id(other) != trial_id(trial())


class Then(Struct, frozen=True):
    steps: int
    every: int = 1


class Now(Struct, frozen=True):
    steps: int
    every: int = 1
    inner: Then = Then(5, every=2)
    late: bool = False


def test_a_key_that_comes_later_with_a_default_changes_nothing():
    assert asked(Now(3)) == asked(Then(3)) == {"steps": 3}
    assert asked(Now(3, late=True)) == {"steps": 3, "late": True}
    whole = asked(Now(3, inner=Then(5)))
    assert whole == {"steps": 3, "inner": {"steps": 5}}, "1 is not the default here"


def test_a_setting_that_comes_later_changes_no_id(monkeypatch):
    def steps(x, worker, *, graph="ring", damping=0.5):
        yield x

    before = trial_id(trial())
    later = replace(ALGORITHMS["dpsgd"], steps=steps)
    monkeypatch.setitem(ALGORITHMS, "dpsgd", later)
    assert trial_id(trial(algorithm=AlgorithmSpec("dpsgd", {"damping": 0.5}))) == before
    assert trial_id(trial(algorithm=AlgorithmSpec("dpsgd", {"damping": 0.6}))) != before


def test_a_revised_rule_makes_another_trial_and_the_old_one_is_named(
    tmp_path, monkeypatch
):
    old = {each.algorithm.kind: each for each in tiny(tmp_path).trials}
    monkeypatch.setitem(ALGORITHMS, "dpsgd", replace(ALGORITHMS["dpsgd"], rule=2))
    new = {each.algorithm.kind: each for each in tiny(tmp_path).trials}
    assert new["allreduce"] == old["allreduce"]
    assert trial_id(new["dpsgd"]) != trial_id(old["dpsgd"])
    assert naming.label(new["dpsgd"].algorithm) == "dpsgd"
    assert naming.label(old["dpsgd"].algorithm) == "dpsgd, rule 1"


def tiny(folder: Path):
    (folder / "tiny.toml").write_text(STUDY)
    return config.read_study(folder / "tiny.toml")


def earlier(results: Path, mark: str = READY) -> list[Path]:
    """Put the folders of commit cf87a62 into a results folder."""
    shutil.copytree(EARLIER, results / "tiny")
    folders = sorted((results / "tiny").iterdir())
    for folder in folders:
        (folder / mark).touch()
    return folders


class Said:
    def __init__(self) -> None:
        self.ended_as: list[str] = []

    def starting(self, trial: Trial, number: int, of: int, /) -> None:
        raise AssertionError(f"{trial} is run again")

    def ended(self, trial: Trial, outcome: str, /) -> None:
        self.ended_as.append(outcome)


def test_what_an_earlier_version_finished_is_not_run_again(tmp_path):
    folders = earlier(tmp_path)
    said = Said()
    outcome = runner.run_study(tiny(tmp_path), Machine(), tmp_path, said)
    assert said.ended_as == ["skipped", "skipped"]
    assert sorted(outcome.places.of(each).path for each in outcome.skipped) == folders


def test_what_an_earlier_version_stopped_goes_on_in_its_folder(tmp_path):
    folders = earlier(tmp_path, STOPPED)
    begun = []

    def start(job: Job, folder: TrialFolder) -> Ended:
        begun.append(folder.path)
        folder.ready.touch()
        return FINISHED

    class Quiet(Said):
        def starting(self, trial: Trial, number: int, of: int, /) -> None: ...

    runner.run_study(tiny(tmp_path), Machine(), tmp_path, Quiet(), start)
    assert sorted(begun) == folders
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == [
        path.name for path in folders
    ]


def test_without_a_job_the_trace_tells_whose_folder_it_is(tmp_path):
    folders = earlier(tmp_path)
    for folder in folders:
        job = Job.read(folder / JOB)
        (folder / JOB).unlink()
        with h5py.File(folder / TRACE, "w") as file:
            file.attrs["dsgd_trial"] = job.trial.to_json()
    places = trials.Places(tmp_path / "tiny")
    assert sorted(places.of(each).path for each in tiny(tmp_path).trials) == folders


def test_a_folder_of_todays_name_comes_before_an_earlier_one(tmp_path):
    earlier(tmp_path)
    for each in tiny(tmp_path).trials:
        folder = tmp_path / "tiny" / trial_id(each)
        folder.mkdir()
        assert trials.Places(folder.parent).of(each).path != folder, (
            "nothing is in it yet"
        )
        (folder / READY).touch()
        assert trials.Places(folder.parent).of(each).path == folder


def test_a_folder_that_somebody_has_copied_is_nobodys_place(tmp_path):
    folder = earlier(tmp_path)[0]
    folder.rename(folder.parent / "kept")
    places = trials.Places(folder.parent)
    others = {places.of(each).path for each in tiny(tmp_path).trials}
    assert folder.parent / "kept" not in others


def test_an_earlier_folder_counts_as_its_trial_in_a_report(tmp_path):
    toy = synthetic.run(synthetic.trial())
    home = synthetic.save(toy, tmp_path / "toy")
    home.rename(home.parent / "0123456789ab")
    found = report.read_report(tmp_path / "toy")
    standing = found.standing({trial_id(toy.trial)})
    assert standing.states == ((trial_id(toy.trial), Outcome.FINISHED),)


# --- settings that are called otherwise today


def test_a_setting_that_was_renamed_is_the_same_trial():
    for biased in (False, True):
        then = trial(algorithm=AlgorithmSpec("osgp", {"biased": biased, "tau": 2}))
        now = trial(algorithm=AlgorithmSpec("osgp", {"weights": not biased, "tau": 2}))
        assert trial_id(then) == trial_id(now)
    plain = trial(algorithm=AlgorithmSpec("osgp"))
    then = trial(algorithm=AlgorithmSpec("osgp", {"biased": False}))
    assert trial_id(then) == trial_id(plain)


def test_a_trace_with_a_renamed_setting_is_read_in_the_settings_of_today(tmp_path):
    then = synthetic.trial("osgp", settings={"biased": True})
    toy = replace(synthetic.run(synthetic.trial("osgp")), trial=then)
    folder = synthetic.save(toy, tmp_path / "toy")
    found = Trace(folder / TRACE).trial.algorithm
    assert found == AlgorithmSpec("osgp", {"weights": False}, rule=found.rule)
    assert naming.label(found) == "osgp, weights False"
