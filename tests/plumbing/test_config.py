"""What a study or machine file may say, and the one sentence when it may not."""

import json
from pathlib import Path

import pytest

from dsgd_bench.config import naming, read_machine, read_study
from dsgd_bench.config.identity import trial_id
from dsgd_bench.errors import ConfigError
from dsgd_bench.spec.trial import (
    AlgorithmSpec,
    BudgetSpec,
    ComputeSpec,
    ProblemSpec,
    SlowdownSpec,
    Trial,
)

HERE = Path(__file__).parents[2]
STUDIES = sorted((HERE / "configs").glob("*.toml"))
MACHINES = sorted((HERE / "jobs").glob("*.toml"))

PLAIN = """
[study]
ranks = 4
budget = { steps = 10 }
[problem]
kind = "quadratic"
[algorithm]
kind = "allreduce"
"""


def trial(**changes):
    content = {
        "ranks": 4,
        "algorithm": AlgorithmSpec("adpsgd", {"graph": "ring"}),
        "problem": ProblemSpec("mlp", settings={"hidden": [8, 4]}),
        "budget": BudgetSpec(seconds=1.0),
    }
    return Trial(**{**content, **changes})


@pytest.fixture
def study(tmp_path):
    """Return a function that writes a study file and reads it."""

    def read(text, overrides=()):
        path = tmp_path / "study.toml"
        path.write_text(text)
        return read_study(path, overrides)

    return read


@pytest.fixture
def refusal(study, tmp_path):
    """Return a function that gives the sentence with which a study is refused."""

    def read(text, overrides=()):
        with pytest.raises(ConfigError) as caught:
            study(text, overrides)
        sentence = str(caught.value)
        assert sentence.startswith(f"{tmp_path / 'study.toml'}: ")
        assert "\n" not in sentence
        return sentence

    return read


def test_a_plain_study_is_one_trial_with_every_default_filled_in(study):
    (only,) = study(PLAIN).trials
    assert (only.ranks, only.seed, only.repeat) == (4, 0, 0)
    assert (only.optimizer.lr, only.problem.batch, only.measure.copies) == (0.1, 32, 40)
    assert only.problem.settings["dimension"] == 100
    assert only.budget == BudgetSpec(steps=10)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_of_the_project_can_be_read(path):
    assert read_study(path).trials
    assert path.read_text().startswith("# "), "say the question that it asks"


@pytest.mark.parametrize("path", MACHINES, ids=lambda path: path.stem)
def test_every_machine_of_the_project_can_be_read(path):
    assert any("{ranks}" in word for word in read_machine(path).launcher)


def test_the_smoke_study_compares_both_algorithms_with_and_without_a_slow_rank():
    trials = read_study(HERE / "configs" / "smoke.toml").trials
    asked = {(t.algorithm.kind, t.slowdown.factor) for t in trials}
    both = {(kind, s) for kind in ("allreduce", "adpsgd") for s in (1.0, 10.0)}
    assert both <= asked
    assert {t.ranks for t in trials} == {4}
    # 2 s to start and end each, and the whole must stay under a minute
    assert sum(t.budget.seconds + 2 for t in trials) < 60


def test_the_straggler_study_is_the_paper_s_experiment():
    trials = read_study(HERE / "configs" / "straggler.toml").trials
    assert len(trials) == 2 * 4 * 2
    assert {t.slowdown.factor for t in trials} == {1.0, 2.0, 10.0, 100.0}
    assert {(t.ranks, len(t.slowdown.ranks)) for t in trials} == {(16, 1)}
    assert sum(t.budget.seconds + 10 for t in trials) < 600


# --- identity ---------------------------------------------------------------------


def test_a_trial_comes_back_from_its_json_with_the_same_id():
    back = Trial.from_json(trial().to_json())
    assert back == trial()
    assert trial_id(back) == trial_id(trial())
    assert back.problem.settings["hidden"] == (8, 4)


def test_text_that_is_no_trial_is_refused():
    for text in ("{", "[]", json.dumps({**json.loads(trial().to_json()), "rank": 1})):
        with pytest.raises(ConfigError, match="not a trial"):
            Trial.from_json(text)


def test_an_id_is_twelve_hexadecimal_digits():
    assert len(trial_id(trial())) == 12
    int(trial_id(trial()), 16)


def test_the_id_changes_with_the_content_and_with_nothing_else(study, tmp_path):
    (first,) = study(PLAIN).trials
    reordered = """
    # a comment
    [algorithm]
    kind = "allreduce"
    [problem]
    batch = 32
    kind = "quadratic"
    conditioning = 10
    [study]
    budget = { steps = 10 }
    ranks = 4
    """
    (same,) = study(reordered).trials
    assert trial_id(same) == trial_id(first), (
        "order, defaults written out and 10 for 10.0"
    )
    (other,) = study(PLAIN, ["problem.batch=33"]).trials
    assert trial_id(other) != trial_id(first)
    renamed = tmp_path / "renamed.toml"
    renamed.write_text(PLAIN)
    assert trial_id(read_study(renamed).trials[0]) == trial_id(first)
    assert read_study(renamed).name == "renamed"


def test_flat_names_are_those_of_study_files():
    flat = trial().flat()
    assert flat["ranks"] == 4
    assert flat["algorithm.graph"] == "ring"
    assert flat["problem.hidden"] == (8, 4)
    assert flat["optimizer.schedule.kind"] == "constant"
    assert flat["measure.target.loss"] is None


def test_a_label_names_the_settings_that_are_not_the_default(study):
    adpsgd = PLAIN.replace('"allreduce"', '"adpsgd"')
    assert naming.label(study(PLAIN).trials[0].algorithm) == "allreduce"
    assert naming.label(study(adpsgd).trials[0].algorithm) == "adpsgd"
    ring = study(adpsgd, ['algorithm.graph="ring"'])
    assert naming.label(ring.trials[0].algorithm) == "adpsgd, ring"
    unknown = trial(algorithm=AlgorithmSpec("retired", {"period": 4}))
    assert naming.label(unknown.algorithm) == "retired, period 4", (
        "an old trace can still be labeled"
    )


def test_a_slowdown_label_says_who_is_slow_and_how():
    assert naming.slowdown(trial()) == "none"
    one = SlowdownSpec("constant", ranks=(0,), factor=10)
    assert naming.slowdown(trial(slowdown=one)) == "10x on rank 0"
    some = SlowdownSpec("transient", factor=6, probability=0.25, mode="added")
    label = "6x with probability 0.25 on all ranks, added"
    assert naming.slowdown(trial(slowdown=some)) == label


def test_trials_cannot_be_changed():
    with pytest.raises(AttributeError):
        trial().ranks = 5


# --- refusals ---------------------------------------------------------------------

UNKNOWN = [
    ("optimizer.momentm=0.9", ("optimizer.momentm", "momentum", "weight_decay")),
    ("problem.bach=3", ("problem.bach", "'batch'", "conditioning")),
    ("optimiser.lr=1", ("the table optimiser", "'optimizer'", "slowdown")),
    ("algorithm.lr=1", ("algorithm.lr", "'optimizer.lr'")),
    ("algorithm.graph='ring'", ("algorithm.graph for allreduce does not exist",)),
    ("study.repeat=2", ("study.repeat", "'repeats'", "budget")),
    ("study.budget.second=2", ("study.budget.second", "'seconds'", "epochs")),
    ("measure.target.los=2", ("measure.target.los", "'loss'")),
    ("measure.loss=2", ("measure.loss", "'measure.target.loss'")),
    ("algorithm.kind='allreduc'", ("algorithm.kind", "'allreduce'", "adpsgd")),
    ("problem.kind='sofmax'", ("problem.kind", "'softmax'", "quadratic")),
    ("compute.device='gpu'", ("compute.device", "did you mean 'cuda'?")),
    ("slowdown.kind='random'", ("slowdown.kind", "constant, heavy-tailed, none")),
]


@pytest.mark.parametrize(("change", "said"), UNKNOWN, ids=[c for c, _ in UNKNOWN])
def test_an_unknown_name_is_refused_with_the_allowed_and_the_nearest(
    refusal, change, said
):
    sentence = refusal(PLAIN, [change])
    for words in said:
        assert words in sentence


def test_a_former_setting_is_refused_with_what_it_is_called_today(refusal):
    overrides = ["algorithm.kind='osgp'", "algorithm.biased=true"]
    assert refusal(PLAIN, overrides).endswith(
        "algorithm.biased is a setting of osgp no more: instead of biased = true write "
        "weights = false"
    )


WRONG = [
    ("study.ranks='4'", 'study.ranks is "4" but must be a whole number at least 1'),
    ("study.ranks=0", "study.ranks is 0 but must be a whole number at least 1"),
    ("study.ranks=4.0", "study.ranks is 4.0 but must be a whole number"),
    ("study.budget=3", "study.budget is 3 but must be a table of seconds, steps"),
    ("study.repeats=[1,2]", "study.repeats is [1, 2] but must be a whole number"),
    ("study.seed=-1", "study.seed is -1 but must be a whole number at least 0"),
    ("optimizer.lr=true", "optimizer.lr is true but must be a number above 0"),
    ("optimizer.lr=inf", "optimizer.lr is Infinity but must be a number above 0"),
    ("optimizer.lr=nan", "optimizer.lr is NaN but must be a number above 0"),
    ("optimizer.momentum=1", "must be a number at least 0 and below 1"),
    ("optimizer.nesterov=1", "optimizer.nesterov is 1 but must be true or false"),
    ("optimizer=3", "optimizer is 3 but must be a table of lr, momentum"),
    ("compute=3", "compute is 3 but must be a table of mode, seconds"),
    ("problem.conditioning='x'", 'problem.conditioning is "x" but must be a number'),
    ("algorithm='adpsgd'", 'algorithm is "adpsgd" but must be a table'),
    ("slowdown.ranks=0", "slowdown.ranks is 0 but must be a list, every item a whole"),
    ("slowdown.factor=0.5", "slowdown.factor is 0.5 but must be a number at least 1"),
    ("measure.target=0.3", "measure.target is 0.3 but must be a table of loss"),
    ("measure.target.accuracy=2", "must be a number at least 0 and at most 1"),
    ("optimizer.lr=[]", "optimizer.lr is an empty list"),
    ("study=3", "study is 3 but must be a table of ranks"),
]


@pytest.mark.parametrize(("change", "said"), WRONG, ids=[c for c, _ in WRONG])
def test_a_value_of_the_wrong_type_is_refused_with_what_it_must_be(
    refusal, change, said
):
    assert said in refusal(PLAIN, [change])


SLOW = "slowdown.kind='constant'\nslowdown.factor=10\n"
EMULATED = "compute.mode='emulated'\ncompute.seconds=0.01\n"
IMPOSSIBLE = [
    ("a slow rank beyond the last", SLOW + EMULATED + "slowdown.ranks=[4]", "rank 4"),
    (
        "more slow ranks than ranks",
        SLOW + EMULATED + "slowdown.ranks=[0,1,2,3,4]",
        "slowdown.ranks names rank 4 where study.ranks is 4",
    ),
    ("a slow rank twice", SLOW + EMULATED + "slowdown.ranks=[1,1]", "twice"),
    ("a slowdown that does not say how much", "slowdown.kind='constant'", "factor"),
    ("minimum step times of measured gradients", SLOW, "slowdown.mode minimum needs"),
    ("a factor without a kind", "slowdown.factor=10", "slowdown.factor has no effect"),
    (
        "a random slowdown that never comes",
        EMULATED + "slowdown.kind='transient'\nslowdown.factor=6",
        "slowdown.probability",
    ),
    (
        "a tail of a constant",
        SLOW + EMULATED + "slowdown.alpha=2",
        "slowdown.alpha has no effect where slowdown.kind is constant",
    ),
    ("emulation without seconds", "compute.mode='emulated'", "compute.seconds"),
    ("seconds without emulation", "compute.seconds=1", "compute.seconds has no effect"),
    ("nesterov without momentum", "optimizer.nesterov=true", "momentum"),
    ("steps at no time", "optimizer.schedule.kind='step'", "optimizer.schedule.at"),
    (
        "steps backward in time",
        "optimizer.schedule={kind='step', at=[3, 2]}",
        "optimizer.schedule.at must ascend",
    ),
    ("no length", "optimizer.schedule.kind='cosine'", "optimizer.schedule.length"),
    ("no warm-up", "optimizer.schedule.kind='warmup-step'", "schedule.warmup"),
    ("alpha of even shards", "problem.shards.alpha=2", "problem.shards.alpha has no"),
    ("two targets", "measure.target={loss=1, accuracy=0.5}", "both loss and accuracy"),
    (
        "odd ranks in two halves",
        "study.ranks=5\nalgorithm={kind='adpsgd', graph='bipartite-exponential'}",
        "algorithm.graph: ",
    ),
    ("no graph of this name", "algorithm={kind='adpsgd', graph='rng'}", "'ring'"),
]


@pytest.mark.parametrize(
    ("changes", "said"), [c[1:] for c in IMPOSSIBLE], ids=[c[0] for c in IMPOSSIBLE]
)
def test_an_impossible_combination_is_refused(refusal, changes, said):
    assert said in refusal(PLAIN, [changes])


@pytest.mark.parametrize("missing", ["study", "problem", "algorithm"])
def test_a_missing_table_is_named(refusal, missing):
    tables = PLAIN.split("\n[")
    kept = "\n[".join(part for part in tables if not part.startswith(missing))
    assert f"the table {missing} is missing" in refusal(kept)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("ranks = 4", "study.ranks"),
        ("budget = { steps = 10 }", "study.budget"),
        ('kind = "quadratic"', "problem.kind"),
        ('kind = "allreduce"', "algorithm.kind"),
    ],
)
def test_a_missing_key_is_named(refusal, line, key):
    assert f"the key {key} is missing" in refusal(PLAIN.replace(line, ""))


def test_an_empty_budget_is_refused_and_the_measures_are_named(refusal):
    sentence = refusal(PLAIN.replace("steps = 10", ""))
    assert "seconds, steps, samples, epochs" in sentence


def test_a_file_that_cannot_be_read_is_named(tmp_path, refusal):
    with pytest.raises(ConfigError, match=r"gone\.toml: .*No such file"):
        read_study(tmp_path / "gone.toml")
    assert "not TOML" in refusal("[study")


def test_a_machine_has_defaults_and_refuses_unknown_keys(tmp_path):
    path = tmp_path / "here.toml"
    path.write_text("")
    assert read_machine(path).launcher == ("mpiexec", "-n", "{ranks}")
    assert read_machine(path).watchdog == 120.0
    for text, said in (
        ("watchdg = 3", "the key watchdg does not exist: .*'watchdog'"),
        ("progress = 'treads'", "progress is .* one of auto, none, thread"),
        ("launcher = 'mpiexec'", "launcher is .* a list, every item text"),
        ("launcher = ['mpiexec', '-n', '4']", r"launcher must have .*\{ranks\}"),
        ("env = { A = 1 }", "env is "),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            read_machine(path)


def test_emulated_slow_ranks_are_accepted(study):
    (only,) = study(PLAIN, [SLOW + EMULATED + "slowdown.ranks=[3]"]).trials
    assert only.slowdown == SlowdownSpec("constant", (3,), 10.0)
    assert only.compute == ComputeSpec("emulated", 0.01)
