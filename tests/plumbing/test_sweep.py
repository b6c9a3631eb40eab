"""From one study file to its trials: sweeps, alternatives, zips, exclusions, order."""

import pytest

from dsgd_bench.config import read_study
from dsgd_bench.config.identity import trial_id
from dsgd_bench.errors import ConfigError

BASE = {
    "study": "ranks = 4\nbudget = { steps = 10 }",
    "problem": 'kind = "quadratic"',
    "algorithm": 'kind = "allreduce"',
}


@pytest.fixture
def study(tmp_path):
    """Return a function that reads a study of some tables laid over a plain one."""

    def read(overrides=(), more="", **tables):
        text = "".join(
            table if table.lstrip().startswith("[") else f"[{name}]\n{table}\n"
            for name, table in {**BASE, **tables}.items()
        )
        path = tmp_path / "study.toml"
        path.write_text(text + more)
        return read_study(path, overrides)

    return read


def seen(study, *names):
    """Return the sorted values that the trials have under some names."""
    rows = [tuple(trial.flat().get(name) for name in names) for trial in study.trials]
    return sorted(rows)


def test_lists_are_swept_as_a_product(study):
    result = study(optimizer="lr = [0.1, 0.2, 0.4]\nmomentum = [0.0, 0.9]")
    product = [(lr, mu) for lr in (0.1, 0.2, 0.4) for mu in (0.0, 0.9)]
    assert seen(result, "optimizer.lr", "optimizer.momentum") == product


def test_nested_lists_and_ranks_are_swept_too(study):
    result = study(
        study="ranks = [2, 4]\nbudget = { steps = [5, 10] }",
        problem='kind="quadratic"\nshards = { by = "dirichlet", alpha = [0.1, 1.0] }',
    )
    rows = seen(result, "ranks", "budget.steps", "problem.shards.alpha")
    assert rows == [(n, s, a) for n in (2, 4) for s in (5, 10) for a in (0.1, 1.0)]


def test_a_list_is_a_value_where_the_key_wants_one(study):
    one = study(problem='kind = "mlp"\nhidden = [8, 4]')
    assert seen(one, "problem.hidden") == [((8, 4),)]
    two = study(problem='kind = "mlp"\nhidden = [[8, 4], []]')
    assert seen(two, "problem.hidden") == [((),), ((8, 4),)]


def test_slow_ranks_are_swept_as_a_list_of_lists(study):
    result = study(
        compute='mode = "emulated"\nseconds = 0.01',
        slowdown='kind = "constant"\nfactor = 10\nranks = [[0], [0, 1]]',
    )
    assert seen(result, "slowdown.ranks") == [((0,),), ((0, 1),)]


def test_an_array_of_tables_is_a_set_of_alternatives_with_sweeps_within(study):
    result = study(
        algorithm="""
        [[algorithm]]
        kind = "allreduce"
        [[algorithm]]
        kind = ["adpsgd", "adpsgd-overlapped"]
        graph = ["ring", "complete"]
        """
    )
    rows = [
        (t.algorithm.kind, t.algorithm.settings.get("graph")) for t in result.trials
    ]
    gossip = ("adpsgd", "adpsgd-overlapped")
    expected = {(kind, g) for kind in gossip for g in ("ring", "complete")}
    assert len(rows) == 5
    assert set(rows) == expected | {("allreduce", None)}


def test_inline_tables_are_alternatives_at_any_depth(study):
    result = study(
        problem="""
        kind = "quadratic"
        shards = [{ by = "even" }, { by = "dirichlet", alpha = [0.1, 1.0] }]
        """
    )
    rows = seen(result, "problem.shards.by", "problem.shards.alpha")
    assert rows == [("dirichlet", 0.1), ("dirichlet", 1.0), ("even", 1.0)]


def test_an_algorithm_may_have_an_optimizer_of_its_own(study):
    result = study(
        optimizer="lr = [0.1, 0.2]\nmomentum = 0.9",
        algorithm="""
        [[algorithm]]
        kind = "allreduce"
        [[algorithm]]
        kind = "adpsgd"
        optimizer = { lr = 0.05 }
        """,
    )
    rows = seen(result, "algorithm.kind", "optimizer.lr", "optimizer.momentum")
    assert rows == [
        ("adpsgd", 0.05, 0.9),
        ("allreduce", 0.1, 0.9),
        ("allreduce", 0.2, 0.9),
    ]


def test_zipped_keys_advance_together(study):
    result = study(
        study="""
        ranks = [2, 4]
        budget = { steps = 10 }
        zip = [["ranks", "problem.batch"]]
        """,
        problem='kind = "quadratic"\nbatch = [64, 32]',
        optimizer="lr = [0.1, 0.2]",
    )
    rows = seen(result, "ranks", "problem.batch", "optimizer.lr")
    assert rows == [(n, 128 // n, lr) for n in (2, 4) for lr in (0.1, 0.2)]


@pytest.mark.parametrize(
    ("zipped", "said"),
    [
        ('[["ranks", "problem.batch"]]', "study.ranks has 2, problem.batch has 3"),
        ('[["ranks", "problem.dtype"]]', "problem.dtype, which is not swept"),
        ('[["ranks", "problem.batsh"]]', "problem.batsh, which is not swept"),
        ('[["ranks"], ["study.ranks"]]', "study.ranks twice"),
        ('["ranks"]', "study.zip is "),
    ],
)
def test_a_zip_that_cannot_be_is_refused(study, zipped, said):
    with pytest.raises(ConfigError, match=r"study\.toml: .*" + said):
        study(
            study=f"ranks = [2, 4]\nbudget = {{ steps = 10 }}\nzip = {zipped}",
            problem='kind = "quadratic"\nbatch = [64, 32, 16]',
        )


def test_excluded_trials_are_kept_apart_with_their_reason(study):
    result = study(
        study="ranks = [4, 5]\nbudget = { steps = 10 }",
        algorithm='kind = "adpsgd"\ngraph = ["ring", "bipartite-exponential"]',
        more="""
        [[exclude]]
        when = { "algorithm.graph" = "bipartite-exponential", ranks = [3, 5] }
        reason = "two halves need an even number"
        """,
    )
    assert seen(result, "ranks", "algorithm.graph") == [
        (4, "bipartite-exponential"),
        (4, "ring"),
        (5, "ring"),
    ]
    ((trial, reason),) = result.excluded
    assert (trial.ranks, reason) == (5, "two halves need an even number")


@pytest.mark.parametrize(
    ("exclusion", "said"),
    [
        ("when = { ranks = 3 }", "the key exclude.reason is missing"),
        ('when = { ranks = 3 }\nreason = ""', "exclude.reason is"),
        ('when = { rank = 3 }\nreason = "x"', "the key rank does not exist: .*'ranks'"),
        ('when = { ranks = "3" }\nreason = "x"', 'ranks is "3" but must be'),
        ('when = { algorithm.kind = "alreduce" }\nreason = "x"', "'allreduce'"),
        ('when = { ranks = 4 }\nreason = "x"', "leaves no trial"),
        ('reason = "x"', "the key exclude.when is missing"),
    ],
)
def test_an_exclusion_that_cannot_be_is_refused(study, exclusion, said):
    with pytest.raises(ConfigError, match=said):
        study(more=f"[[exclude]]\n{exclusion}\n")


def test_an_exclusion_of_everything_by_no_condition_is_refused(study):
    with pytest.raises(ConfigError, match="exclude"):
        study(more='[[exclude]]\nwhen = {}\nreason = "x"\n')


def test_all_algorithms_of_a_repeat_share_its_seed(study):
    result = study(
        study="ranks = 4\nbudget = { steps = 10 }\nrepeats = 3\nseed = 7",
        algorithm='kind = ["allreduce", "adpsgd"]',
    )
    assert seen(result, "algorithm.kind", "repeat", "seed") == [
        (kind, r, 7 + r) for kind in ("adpsgd", "allreduce") for r in range(3)
    ]


def test_more_repeats_leave_the_first_ones_as_they_were(study):
    few = {trial_id(t) for t in study(study=BASE["study"] + "\nrepeats = 2").trials}
    many = {trial_id(t) for t in study(study=BASE["study"] + "\nrepeats = 5").trials}
    assert few < many


def test_the_order_is_shuffled_over_the_whole_study_and_the_same_each_time(study):
    lr = f"lr = {[round(0.01 * k, 2) for k in range(1, 41)]}"
    first = [t.optimizer.lr for t in study(optimizer=lr).trials]
    assert first == [t.optimizer.lr for t in study(optimizer=lr).trials]
    assert first != sorted(first)
    seeded = study(optimizer=lr, study=BASE["study"] + "\nseed = 1")
    assert first != [t.optimizer.lr for t in seeded.trials], "the seed decides"


def test_equal_trials_are_run_once(study):
    assert len(study(optimizer="lr = [0.1, 0.1]").trials) == 1


def test_overrides_change_values_and_sweep_them(study):
    result = study(["study.ranks=8", "optimizer.lr=[0.1,0.2]"])
    assert seen(result, "ranks", "optimizer.lr") == [(8, 0.1), (8, 0.2)]


def test_an_override_reaches_every_alternative(study):
    two = '[[algorithm]]\nkind = "adpsgd"\n[[algorithm]]\nkind = "adpsgd-waitfree"\n'
    result = study(['algorithm.graph="ring"'], algorithm=two)
    assert seen(result, "algorithm.kind", "algorithm.graph") == [
        ("adpsgd", "ring"),
        ("adpsgd-waitfree", "ring"),
    ]


def test_a_word_needs_no_quotes_which_a_shell_takes_away(study):
    result = study(["algorithm.kind=allreduce", "optimizer.nesterov=false"])
    assert seen(result, "algorithm.kind", "optimizer.nesterov") == [
        ("allreduce", False)
    ]


def test_an_override_that_is_no_assignment_is_refused(study):
    for text in ("ranks", "algorithm.kind=all reduce"):
        with pytest.raises(ConfigError, match=f"the override {text} cannot be read"):
            study([text])
