"""Graphs: right for every number of ranks, the smallest ones first of all."""

import numpy as np
import pytest

from dsgd_bench import graphs
from dsgd_bench.errors import ConfigError
from dsgd_bench.graphs import GRAPHS, Graph

SIZES = range(1, 18)

CASES = [
    (name, size)
    for name in GRAPHS
    for size in SIZES
    if name != "bipartite-exponential" or size == 1 or size % 2 == 0
]

on_all_sizes = pytest.mark.parametrize(("name", "size"), CASES)


def distances(graph: Graph) -> list[int]:
    """Return the hops from rank 0 to every rank it can reach."""
    reached, edge, hops = {0: 0}, [0], 0
    while edge:
        hops += 1
        edge = [j for i in edge for j in graph.neighbors[i] if j not in reached]
        reached.update(dict.fromkeys(edge, hops))
    return list(reached.values())


@on_all_sizes
def test_nobody_is_its_own_neighbor_or_listed_twice(name: str, size: int) -> None:
    graph = graphs.make(name, size)
    assert graph.size == size
    for rank, near in enumerate(graph.neighbors):
        assert rank not in near
        assert len(set(near)) == len(near)
        assert set(near) <= set(range(size))


@on_all_sizes
def test_neighbors_are_neighbors_of_each_other(name: str, size: int) -> None:
    near = graphs.make(name, size).neighbors
    assert all(i in near[j] for i in range(size) for j in near[i])


@on_all_sizes
def test_everybody_can_be_reached(name: str, size: int) -> None:
    assert len(distances(graphs.make(name, size))) == size


@on_all_sizes
def test_weights_are_doubly_stochastic_and_never_negative(name: str, size: int) -> None:
    w = graphs.make(name, size).weights()
    # rounding of a sum of at most seventeen numbers below one
    np.testing.assert_allclose(w.sum(axis=0), 1.0, rtol=0, atol=1e-14)
    np.testing.assert_allclose(w.sum(axis=1), 1.0, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(w, w.T)
    assert w.min() > -1e-14


@pytest.mark.parametrize("size", SIZES)
def test_the_spectral_gap_of_the_ring_is_the_known_one(size: int) -> None:
    """Eigenvalues of weights of a third are (1 + 2 cos(2 pi k / n)) / 3."""
    k = np.arange(1, size)
    moduli = np.abs(1 + 2 * np.cos(2 * np.pi * k / size)) / 3
    # one and two ranks have fewer neighbors than two, and mix in one step
    expected = 1 - moduli.max() if size > 2 else 1.0
    gap = graphs.make("ring", size).spectral_gap()
    # rounding of an eigenvalue problem of seventeen rows
    assert gap == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("size", SIZES)
def test_the_spectral_gap_of_the_complete_graph_is_one(size: int) -> None:
    gap = graphs.make("complete", size).spectral_gap()
    assert gap == pytest.approx(1.0, abs=1e-13)


@pytest.mark.parametrize("size", [2, 4, 6, 8, 10, 12, 14, 16])
def test_hops_of_the_bipartite_graph_join_even_with_odd_ranks(size: int) -> None:
    for rank, near in enumerate(graphs.make("bipartite-exponential", size).neighbors):
        assert all((rank - j) % 2 == 1 for j in near)


def test_hops_of_the_bipartite_graph_are_one_and_powers_of_two_plus_one() -> None:
    near = graphs.make("bipartite-exponential", 16).neighbors[0]
    assert near == (1, 3, 5, 11, 13, 15)
    near = graphs.make("bipartite-exponential", 36).neighbors[0]
    assert near == (1, 3, 5, 9, 17, 19, 27, 31, 33, 35)


def test_the_bipartite_graph_spreads_faster_than_the_ring() -> None:
    far = [max(distances(graphs.make(name, 64))) for name in GRAPHS]
    assert dict(zip(GRAPHS, far, strict=True)) == {
        "ring": 32,
        "complete": 1,
        "bipartite-exponential": 4,
    }


@pytest.mark.parametrize("size", [3, 5, 17])
def test_an_odd_number_of_ranks_has_no_bipartite_graph(size: int) -> None:
    with pytest.raises(ConfigError, match=f"even number of ranks, not {size}"):
        graphs.make("bipartite-exponential", size)


def test_an_unknown_graph_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match="ring, complete, bipartite") as caught:
        graphs.make("bipartite", 4)
    assert "did you mean 'bipartite-exponential'" in str(caught.value)
