"""Graphs: right for every number of ranks, the smallest ones first of all."""

import time
from collections.abc import Callable, Iterable
from math import pi
from pathlib import Path

import numpy as np
import pytest

from dsgd_bench import graphs
from dsgd_bench.errors import ConfigError
from dsgd_bench.graphs import EXAMPLES, GRAPHS, Graph

SIZES = range(1, 18)

NAMES = (
    *EXAMPLES,
    "one-peer-exponential:2",
    "one-peer-exponential:3",
    "random-regular:2",
    "random-regular:4:7",
    "erdos-renyi:0.3:1",
)

MAY_REFUSE = ("bipartite-exponential", "hypercube", "random-regular")


def possible(name: str, sizes: Iterable[int] = SIZES) -> list[Graph]:
    """Return the graphs of a name that exist; only some may refuse a size."""
    found = []
    for size in sizes:
        try:
            graph = graphs.make(name, size)
        except ConfigError:
            if name.partition(":")[0] not in MAY_REFUSE:
                raise
        else:
            assert (graph.name, graph.size) == (name, size)
            found.append(graph)
    assert len(found) > 2
    return found


MADE = {name: possible(name) for name in NAMES}

on_all_sizes = pytest.mark.parametrize("made", MADE.values(), ids=MADE)

UNDIRECTED = {
    name: made
    for name, made in MADE.items()
    if "exponential" not in name or "bip" in name
}

undirected = pytest.mark.parametrize("made", UNDIRECTED.values(), ids=UNDIRECTED)


def distances(graph: Graph, start: int) -> dict[int, int]:
    """Return the hops from a rank to every rank it can reach in a cycle or more."""
    reached, edge, hops = {start: 0}, [start], 0
    while edge:
        hops += 1
        edge = [j for i in edge for j in graph.neighbors[i] if j not in reached]
        reached.update(dict.fromkeys(edge, hops))
    return reached


# --- every graph


@on_all_sizes
def test_nobody_is_its_own_neighbor_or_listed_twice(made: list[Graph]) -> None:
    for graph in made:
        assert graph.period == len(graph.phases)
        for phase in (*graph.phases, graph.neighbors):
            assert len(phase) == graph.size
            for rank, near in enumerate(phase):
                assert rank not in near
                assert list(near) == sorted(set(near))
                assert set(near) <= set(range(graph.size))


@on_all_sizes
def test_sources_are_the_inverse_of_targets(made: list[Graph]) -> None:
    for graph in made:
        ranks, period = range(graph.size), graph.period
        for step in range(2 * period):
            sent = {(i, j) for i in ranks for j in graph.targets(i, step)}
            received = {(i, j) for j in ranks for i in graph.sources(j, step)}
            assert sent == received
            for rank in ranks:
                sources = list(graph.sources(rank, step))
                assert sources == sorted(sources)
                assert graph.targets(rank, step) == graph.targets(rank, step + period)


@on_all_sizes
def test_everybody_can_be_reached(made: list[Graph]) -> None:
    for graph in made:
        reached = [len(distances(graph, rank)) for rank in range(graph.size)]
        assert reached == [graph.size] * graph.size


@on_all_sizes
def test_a_single_rank_has_no_neighbors_and_others_have_some(made: list[Graph]) -> None:
    for graph in made:
        for phase in graph.phases:
            assert all(bool(near) == (graph.size > 1) for near in phase)
        assert (graph.messages_per_step() > 0) == (graph.size > 1)
        assert (graph.reach() > 0) == (graph.size > 1)


@on_all_sizes
def test_shares_hand_out_all_mass_and_only_along_edges(made: list[Graph]) -> None:
    for graph in made:
        for step, phase in enumerate(graph.phases):
            p = graph.shares(step)
            # rounding of a sum of at most seventeen numbers below one
            np.testing.assert_allclose(p.sum(axis=0), 1.0, rtol=0, atol=1e-14)
            for j, targets in enumerate(phase):
                assert np.flatnonzero(p[:, j]).tolist() == sorted([j, *targets])
                np.testing.assert_allclose(p[p[:, j] > 0, j], 1 / (1 + len(targets)))


@on_all_sizes
def test_news_arrive_within_the_reach_and_not_before(made: list[Graph]) -> None:
    for graph in made:
        arrived = []
        for start in range(graph.period):
            heard, steps = np.eye(graph.size), 0
            while not heard.all():
                heard = graph.shares(start + steps) @ heard
                steps += 1
            arrived.append(steps)
        assert graph.reach() == max(arrived)


@on_all_sizes
def test_a_name_and_a_number_of_ranks_give_one_graph(made: list[Graph]) -> None:
    for graph in made:
        assert graphs.make(graph.name, graph.size) == graph


# --- undirected graphs


@undirected
def test_neighbors_are_neighbors_of_each_other(made: list[Graph]) -> None:
    for graph in made:
        near = graph.neighbors
        assert (near,) == graph.phases
        assert not graph.directed
        assert not graph.changing
        assert all(i in near[j] for i in range(graph.size) for j in near[i])


@undirected
def test_weights_are_doubly_stochastic_and_never_negative(made: list[Graph]) -> None:
    for graph in made:
        w = graph.weights()
        # rounding of a sum of at most seventeen numbers below one
        np.testing.assert_allclose(w.sum(axis=0), 1.0, rtol=0, atol=1e-14)
        np.testing.assert_allclose(w.sum(axis=1), 1.0, rtol=0, atol=1e-14)
        np.testing.assert_array_equal(w, w.T)
        assert w.min() > -1e-14
        for i, j in zip(*np.nonzero(w), strict=True):
            assert i == j or j in graph.neighbors[i]
        for rank in range(graph.size):
            row = np.zeros(graph.size)
            for j, weight in graph.weights_of(rank).items():
                row[j] = weight
            np.testing.assert_array_equal(row, w[rank])


@undirected
def test_the_reach_of_an_undirected_graph_is_its_diameter(made: list[Graph]) -> None:
    for graph in made:
        far = [max(distances(graph, rank).values()) for rank in range(graph.size)]
        assert graph.reach() == max(far)


# --- spectral gaps known by formula


def waves(size: int) -> np.ndarray:
    return 2 * pi * np.arange(size) / size


def gap_of(eigenvalues: np.ndarray) -> float:
    """Return 1 - |second largest|; the largest, 1, is among them."""
    return float(1 - np.sort(np.abs(np.ravel(eigenvalues)))[-2])


def ring_gap(size: int) -> float:
    """Weights of a third: (1 + 2 cos(2 pi k / n)) / 3; two ranks mix in one step."""
    return gap_of((1 + 2 * np.cos(waves(size))) / 3) if size > 2 else 1.0


def hypercube_gap(size: int) -> float:
    """Weights of 1 / (q + 1): 1 - 2 k / (q + 1) for k digits of q, q over k times."""
    q = size.bit_length() - 1
    return 2 / (q + 1) if size > 1 else 1.0


def star_gap(size: int) -> float:
    """A leaf keeps 1 - 1/n: so does what differs between two leaves."""
    return 1 / size if size > 2 else 1.0


FORMULAS: dict[str, Callable[[int], float]] = {
    "ring": ring_gap,
    "complete": lambda size: 1.0,
    "hypercube": hypercube_gap,
    "star": star_gap,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_the_spectral_gap_is_the_known_one(name: str) -> None:
    for graph in MADE[name]:
        # rounding of an eigenvalue problem of seventeen rows
        known = pytest.approx(FORMULAS[name](graph.size), abs=1e-13)
        assert graph.spectral_gap() == known, graph.size


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (3, 4), (3, 5), (4, 4), (4, 5)])
def test_the_spectral_gap_of_the_torus_is_the_known_one(
    rows: int, columns: int
) -> None:
    """Weights of a fifth: (1 + 2 cos a + 2 cos b) / 5."""
    a, b = np.meshgrid(np.cos(waves(rows)), np.cos(waves(columns)))
    gap = graphs.make(f"torus:{rows}x{columns}", rows * columns).spectral_gap()
    assert gap == pytest.approx(gap_of((1 + 2 * a + 2 * b) / 5), abs=1e-13)


@pytest.mark.parametrize("size", [5, 6, 8, 12, 16])
def test_the_spectral_gap_of_the_exponential_graph_is_the_known_one(size: int) -> None:
    """All ranks send equally far: eigenvalues are those of a circulant matrix."""
    hops = [0] + [hop for hop in (1, 2, 4, 8) if hop < size]
    means = np.mean([np.exp(1j * hop * waves(size)) for hop in hops], axis=0)
    gap = graphs.make("exponential", size).spectral_gap()
    assert gap == pytest.approx(gap_of(means), abs=1e-13)


@pytest.mark.parametrize("name", [*EXAMPLES, "one-peer-exponential:2"])
def test_the_spectral_gap_is_that_of_the_whole_matrix(name: str) -> None:
    for graph in possible(name, (2, 6, 16, 27, 64, 300, 512)):
        if graph.directed or graph.changing:
            cycle = np.eye(graph.size)
            for step in range(graph.period):
                cycle = graph.shares(step) @ cycle
        else:
            cycle = graph.weights()
        second = np.sort(np.abs(np.linalg.eigvals(cycle)))[-2]
        gap = 1 - second ** (1 / graph.period)
        exact = second < 1e-9  # a root makes much of a rounding error
        # the iteration stops within 1e-6, and three digits are printed
        expected = pytest.approx(1 if exact else gap, abs=1e-5)
        assert graph.spectral_gap() == expected, graph.size


def test_the_spectral_gap_of_a_directed_file_is_that_of_the_whole_matrix(
    tmp_path: Path,
) -> None:
    random = np.random.default_rng(1)
    lines = {(k, (k + 1) % 300) for k in range(300)}
    lines |= {(k, (k + 7) % 300) for k in random.integers(300, size=400).tolist()}
    path = tmp_path / "edges"
    path.write_text("".join(f"{a} {b}\n" for a, b in sorted(lines)))
    graph = graphs.make(f"file:{path}", 300)
    second = np.sort(np.abs(np.linalg.eigvals(graph.shares())))[-2]
    assert graph.spectral_gap() == pytest.approx(1 - second, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("one-peer-exponential:999999999", 100_000, "the limit is 4,000,000"),
        (f"one-peer-exponential:{'9' * 5000}", 4, "of at most 18 digits"),
        ("random-regular:9999", 100_000, "the limit is"),
        (f"random-regular:3:{'9' * 5000}", 4, "of at most 18 digits"),
        ("random-regular:2", 100_000, "the limit is"),
        ("erdos-renyi:0.5", 100_000, "the limit is"),
        ("erdos-renyi:1e-9", 100_000, "the limit is 500,000,000"),
        ("erdos-renyi:nan", 4, "give it a number above 0"),
        (f"torus:{'9' * 5000}x1", 4, "of at most 18 digits"),
    ],
)
def test_a_graph_that_would_never_be_made_is_refused_at_once(
    name: str, size: int, said: str
) -> None:
    began = time.process_time()
    with pytest.raises(ConfigError, match=said):
        graphs.make(name, size)
    assert time.process_time() - began < 1


def test_the_spectral_gap_of_a_changing_graph_is_per_step() -> None:
    """Hops 1 and 2 of three ranks: |1 + e^(ia)| |1 + e^(2ia)| / 4 = 1/4 in two."""
    graph = graphs.make("one-peer-exponential", 3)
    assert graph.changing
    assert graph.spectral_gap() == pytest.approx(1 - (1 / 4) ** (1 / 2), abs=1e-13)


# --- exponential graphs


@pytest.mark.parametrize("q", [1, 2, 3, 4, 5])
def test_one_peer_averages_two_to_the_q_ranks_exactly_in_q_steps(q: int) -> None:
    graph = graphs.make("one-peer-exponential", 2**q)
    product = np.eye(2**q)
    for step in range(q):
        product = graph.shares(step) @ product
    np.testing.assert_array_equal(product, np.full((2**q, 2**q), 2.0**-q))
    assert graph.period == graph.reach() == q
    assert graph.spectral_gap() == 1.0
    assert graph.messages_per_step() == 1


@pytest.mark.parametrize("size", [3, 9])
def test_two_peers_average_powers_of_three_exactly(size: int) -> None:
    graph = graphs.make("one-peer-exponential:2", size)
    product = np.eye(size)
    for step in range(graph.period):
        product = graph.shares(step) @ product
    # rounding of two products of thirds
    np.testing.assert_allclose(product, 1 / size, rtol=1e-15)
    assert graph.messages_per_step() == 2
    assert graph.spectral_gap() == pytest.approx(1.0, abs=1e-13)


def test_peers_are_those_of_the_published_schedule() -> None:
    """Hops j (p + 1)**i for j = 1 ... p, as long as (p + 1)**i is below n."""
    hops = [phase[0] for phase in graphs.make("one-peer-exponential", 17).phases]
    assert hops == [(1,), (2,), (4,), (8,), (16,)]
    hops = [phase[0] for phase in graphs.make("one-peer-exponential:2", 17).phases]
    assert hops == [(1, 2), (3, 6), (1, 9)]  # 18 hops around seventeen ranks is one
    hops = [phase[0] for phase in graphs.make("one-peer-exponential:3", 8).phases]
    assert hops == [(1, 2, 3), (4,)]  # 8 hops lead back, 12 are 4 again
    assert graphs.make("exponential", 17).neighbors[16] == (0, 1, 3, 7, 15)


@pytest.mark.parametrize("size", [2, 4, 6, 8, 10, 12, 14, 16])
def test_hops_of_the_bipartite_graph_join_even_with_odd_ranks(size: int) -> None:
    for rank, near in enumerate(graphs.make("bipartite-exponential", size).neighbors):
        assert all((rank - j) % 2 == 1 for j in near)


def test_hops_of_the_bipartite_graph_are_one_and_powers_of_two_plus_one() -> None:
    near = graphs.make("bipartite-exponential", 16).neighbors[0]
    assert near == (1, 3, 5, 11, 13, 15)
    near = graphs.make("bipartite-exponential", 36).neighbors[0]
    assert near == (1, 3, 5, 9, 17, 19, 27, 31, 33, 35)


# --- the others


def test_news_spread_as_fast_as_expected() -> None:
    found = {name: graphs.make(name, 64).reach() for name in EXAMPLES[:-2]}
    assert found == {
        "ring": 32,
        "torus": 8,
        "hypercube": 6,
        "complete": 1,
        "star": 2,
        "bipartite-exponential": 4,
        "exponential": 6,
        "one-peer-exponential": 6,
    }


@pytest.mark.parametrize("size", SIZES)
def test_the_reach_of_the_ring_is_half_way_around(size: int) -> None:
    assert graphs.make("ring", size).reach() == size // 2


def test_the_torus_is_as_square_as_it_can_be_or_as_asked() -> None:
    assert graphs.make("torus", 12).phases == graphs.make("torus:3x4", 12).phases
    assert graphs.make("torus", 7).phases == graphs.make("ring", 7).phases
    assert graphs.make("torus:2x4", 8).neighbors[5] == (1, 4, 6)
    assert graphs.make("torus:1x8", 8).phases == graphs.make("ring", 8).phases


def test_the_center_of_the_star_is_rank_zero() -> None:
    assert graphs.make("star", 4).neighbors == ((1, 2, 3), (0,), (0,), (0,))


@pytest.mark.parametrize(("degree", "size"), [(2, 9), (3, 16), (4, 9), (5, 6), (7, 16)])
def test_every_rank_of_a_random_regular_graph_has_its_degree(
    degree: int, size: int
) -> None:
    near = graphs.make(f"random-regular:{degree}", size).neighbors
    assert {len(ranks) for ranks in near} == {degree}


def test_random_regular_graphs_are_random() -> None:
    """The two cubic graphs of six ranks: K(3, 3), 10 labelings, and the prism, 60."""
    drawn = {graphs.make(f"random-regular:3:{seed}", 6).phases for seed in range(600)}
    # 70 graphs, the rarest with a chance of about 1/70: missing one of them in 600
    # draws has a chance of 70 exp(-600 / 70) = 1 %, and the seeds are fixed
    assert len(drawn) == 70


def test_edges_of_erdos_renyi_are_as_frequent_as_asked() -> None:
    """A graph of 40 ranks and p = 0.3 is practically never unconnected."""
    edges = [
        graphs.make(f"erdos-renyi:0.3:{seed}", 40).messages_per_step() * 20
        for seed in range(50)
    ]
    # 50 times 780 draws; five standard deviations of the mean
    deviation = (780 * 0.3 * 0.7 / 50) ** 0.5
    assert np.mean(edges) == pytest.approx(780 * 0.3, abs=5 * deviation)
    assert len(set(edges)) > 10


# --- refusals

REFUSED = [
    ("bipartite-exponential", 3, "needs an even number of ranks, not 3"),
    ("bipartite-exponential", 17, "needs an even number of ranks, not 17"),
    ("hypercube", 6, "needs a power of two of ranks, not 6: use 4 or 8"),
    ("torus:2x4", 6, "has 8 ranks, not 6: use a shape of 6, such as 2x3"),
    ("torus:2", 2, "write ROWSxCOLUMNS"),
    ("torus:2x-4", 8, "has columns '-4': give it a whole number"),
    ("random-regular:4", 3, "use degree 2 or less"),
    ("random-regular:3", 5, "needs an even number of ranks, not 5"),
    ("random-regular:3", 5, "or degree 2 or 4"),
    ("random-regular:1", 4, "use a degree from 2 to 3"),
    ("random-regular:0", 2, "use a degree from 1 to 1"),
    ("random-regular:3.5", 8, "has degree '3.5'"),
    ("random-regular:3:x", 8, "has seed 'x'"),
    ("random-regular", 8, "write random-regular:DEGREE[:SEED]"),
    ("random-regular:3:1:2", 8, "write random-regular:DEGREE[:SEED]"),
    ("erdos-renyi:1.5", 8, "give it a number above 0 and at most 1"),
    ("erdos-renyi:nan", 8, "give it a number above 0 and at most 1"),
    ("erdos-renyi:0.01", 40, "use a probability of 0.10 or more"),
    ("one-peer-exponential:0", 8, "give it at least 1"),
    ("ring:2", 8, "write ring"),
    ("torus:", 8, "write torus[:SHAPE]"),
    ("file", 8, "write file:PATH"),
    ("bipartite", 4, "did you mean 'bipartite-exponential'?"),
    ("rong", 4, "choose one of ring, torus, hypercube"),
    ("tours:2x2", 4, "did you mean 'torus'?"),
]


@pytest.mark.parametrize(("name", "size", "said"), REFUSED)
def test_an_impossible_graph_is_refused_with_the_way_out(
    name: str, size: int, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        graphs.make(name, size)
    sentence = str(caught.value)
    assert sentence.startswith(f"graph '{name}' ")
    assert said in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("name", ["exponential", "one-peer-exponential"])
def test_directed_graphs_have_no_symmetric_weights(name: str) -> None:
    graph = graphs.make(name, 8)
    assert graph.directed
    with pytest.raises(ConfigError, match=f"graph '{name}' is directed over 8 ranks"):
        graph.weights()
    with pytest.raises(ConfigError, match=f"graph '{name}' is directed over 8 ranks"):
        graph.weights_of(0)


def test_every_graph_that_needs_no_file_has_an_example() -> None:
    bases = [name.partition(":")[0] for name in EXAMPLES]
    assert sorted([*bases, "file"]) == sorted(GRAPHS)
