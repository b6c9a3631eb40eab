"""What goes together: graphs, servers, momentum, as an algorithm says of itself.

The algorithms here are made up, so that the rules are tested and not the table.
"""

import pytest

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.algorithms.base import algorithm
from dsgd_bench.algorithms.facts import Facts, to_neighbors
from dsgd_bench.config import read_study
from dsgd_bench.errors import ConfigError
from dsgd_bench.spec.ranges import GraphName, Servers

HEAD = """
[study]
ranks = 4
budget = { steps = 10 }
[problem]
kind = "quadratic"
"""


def walking(x, worker, *, graph: GraphName = "ring", late_graph: GraphName = ""):
    yield x


def serving(x, worker, *, servers: Servers = 1, graph: GraphName = "ring"):
    yield x


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Return a function that reads a study of algorithms that are made up."""

    def add(name, steps, *traits, sent=to_neighbors):
        facts = Facts(
            paper="none",
            traits={"synchronous", *traits},
            vectors=1,
            waits_for="neighbors",
            models_sent=sent,
        )
        entry = algorithm(name, facts)(steps)
        monkeypatch.setitem(ALGORITHMS, name, entry)

    add("both-ways", walking, "undirected")
    add("one-way", walking)
    add("served", serving, "plain", sent=2)
    add("pushed", walking, "own-momentum")
    path = tmp_path / "study.toml"

    def read(kind, *settings, more=()):
        lines = [f"kind = '{kind}'", *settings]
        path.write_text(HEAD + "[algorithm]\n" + "\n".join(lines))
        return read_study(path, more).trials[0]

    return read


@pytest.fixture
def refusal(study):
    """Return a function that gives the sentence with which a trial is refused."""

    def read(*words, **more):
        with pytest.raises(ConfigError) as caught:
            study(*words, **more)
        sentence = str(caught.value)
        assert "\n" not in sentence
        return sentence

    return read


# --- graphs


@pytest.mark.parametrize(
    "name",
    [
        "torus",
        "torus:2x2",
        "hypercube",
        "star",
        "random-regular:3",
        "random-regular:2:9",
        "erdos-renyi:0.5",
    ],
)
def test_any_graph_with_or_without_arguments_can_be_asked_for(study, name):
    for kind in ("both-ways", "one-way"):
        trial = study(kind, f"graph = '{name}'")
        assert trial.algorithm.settings["graph"] == name


@pytest.mark.parametrize(
    "name", ["exponential", "one-peer-exponential", "one-peer-exponential:3"]
)
def test_directed_graphs_are_for_algorithms_that_can_run_on_them(study, refusal, name):
    assert study("one-way", f"graph = '{name}'")
    sentence = refusal("both-ways", f"graph = '{name}'", more=["study.ranks=6"])
    assert f"algorithm.graph: both-ways cannot run on graph '{name}'" in sentence
    assert "directed over 6 workers" in sentence
    assert "'ring'" in sentence


def test_a_graph_that_is_undirected_over_so_few_ranks_is_no_obstacle(study):
    """One hop ahead is one hop back between two ranks."""
    assert study("both-ways", "graph = 'exponential'", more=["study.ranks=2"])


def test_a_changing_graph_is_refused_too(refusal, monkeypatch):
    """Three peers of four ranks, then the two at either side: directed in no step."""
    from dsgd_bench import graphs

    both = tuple(graphs.make(name, 4).neighbors for name in ("complete", "ring"))
    changing = graphs.Graph("", both)
    assert not changing.directed
    monkeypatch.setitem(graphs.GRAPHS, "ring", lambda size: changing)
    # a ring that was built before must not be remembered
    monkeypatch.setattr(graphs, "_built", graphs._built.__wrapped__)
    assert "which is changing over 4 workers" in refusal("both-ways", "graph = 'ring'")


def test_a_second_graph_is_checked_too_unless_it_is_empty(study, refusal):
    assert study("both-ways", "late_graph = ''")
    assert study("one-way", "late_graph = 'exponential'")
    sentence = refusal("both-ways", "late_graph = 'exponential'")
    assert "algorithm.late_graph: both-ways cannot run on" in sentence
    assert "must be one of ring, torus" in refusal("one-way", "graph = ''")


def test_a_misspelled_graph_is_refused_when_it_is_read(refusal):
    for name in ("tours", "tours:2x2"):
        sentence = refusal("one-way", f"graph = '{name}'")
        assert f'algorithm.graph is "{name}" but must be one of ring, torus' in sentence
        assert "did you mean 'torus'?" in sentence
    assert "one of ring" in refusal("one-way", "graph = 3")


def test_an_exclusion_with_a_misspelled_graph_is_refused(refusal):
    exclude = (
        """exclude = [{ when = { "algorithm.graph" = "rng" }, reason = "slow" }]"""
    )
    assert "did you mean 'ring'?" in refusal("one-way", more=[exclude])


def test_a_graph_over_too_many_or_too_few_ranks_is_refused(refusal):
    sentence = refusal("one-way", "graph = 'torus:2x4'")
    assert "algorithm.graph: graph 'torus:2x4' has 8 ranks, not 4" in sentence


def test_a_file_of_edges_is_read_with_the_study(study, refusal, tmp_path):
    path = tmp_path / "edges.txt"
    asked = f"graph = 'file:{path}'"
    assert "cannot be read: No such file" in refusal("one-way", asked)
    path.write_text("0 1\n1 2\n2 3\n3 0\n")
    assert study("one-way", asked)
    assert "which is directed over 4 workers" in refusal("both-ways", asked)


# --- servers


def test_a_graph_joins_the_workers_only(study, refusal):
    """Of four ranks three are workers: no power of two."""
    sentence = refusal("served", "graph = 'hypercube'")
    assert "needs a power of two of ranks, not 3" in sentence
    assert study("served", "graph = 'hypercube'", "servers = 2")


def test_somebody_must_be_left_to_compute(study, refusal):
    assert study("served", "servers = 3")
    for servers in (4, 5):
        sentence = refusal("served", f"servers = {servers}")
        assert f"algorithm.servers is {servers} where study.ranks is 4" in sentence
        assert "at most 3" in sentence


def test_a_single_rank_needs_no_server(study):
    assert study("served", "servers = 2", more=["study.ranks=1"])


def test_only_workers_can_be_slow(study, refusal):
    slow = "slowdown={kind='constant', factor=2, mode='added', ranks=[%s]}"
    assert study("served", more=[slow % "0, 2"])
    sentence = refusal("served", more=[slow % "0, 3"])
    assert "slowdown.ranks names rank 3, which is a server of served" in sentence
    assert "ranks from 0 to 2" in sentence
    assert study("one-way", more=[slow % "3"])


# --- plain SGD


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("optimizer.momentum=0.9", "leave out optimizer.momentum"),
        ("optimizer.weight_decay=1e-4", "leave out optimizer.weight_decay"),
        (
            "optimizer.schedule={kind='cosine', length=2}",
            "leave out optimizer.schedule",
        ),
        (
            "optimizer={momentum=0.5, weight_decay=0.1}",
            "leave out optimizer.momentum and optimizer.weight_decay",
        ),
    ],
)
def test_plain_sgd_takes_no_extras(study, refusal, change, named):
    sentence = refusal("served", more=[change])
    assert f"algorithm served needs plain SGD: {named}" in sentence
    assert study("one-way", more=[change])


def test_an_algorithm_with_its_own_momentum_refuses_the_optimizers(study, refusal):
    sentence = refusal("pushed", more=["optimizer.momentum=0.9"])
    assert "algorithm pushed has a momentum of its own: leave out" in sentence
    assert "optimizer.momentum" in sentence
    assert study("pushed", more=["optimizer.weight_decay=1e-4"])
    assert study("one-way", more=["optimizer.momentum=0.9"])


def test_one_algorithm_of_a_study_can_be_without_the_momentum_of_the_others(study):
    """As the sentence of the refusal says."""
    alone = "optimizer = { momentum = 0 }"
    trial = study("pushed", alone, more=["optimizer.momentum=0.9"])
    assert trial.optimizer.momentum == 0


# --- what is sent


def test_models_sent_follow_the_graph_of_the_workers(study):
    def sent(kind, ranks, **settings):
        return ALGORITHMS[kind].sent(settings, ranks)

    study("one-way")
    assert sent("one-way", 8) == 2, "the default, a ring"
    assert sent("one-way", 2) == 1
    assert sent("one-way", 1) == 0
    assert sent("one-way", 8, graph="exponential") == 3
    assert sent("one-way", 8, graph="star") == 2 * 7 / 8
    assert sent("served", 1) == 0
    assert sent("served", 2) == 2, "a single worker sends to its server"
