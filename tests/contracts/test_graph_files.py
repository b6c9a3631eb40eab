"""Graphs read from files: right, or refused with the line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dsgd_bench import graphs
from dsgd_bench.errors import ConfigError
from dsgd_bench.graphs import Graph

STAR_AND_AN_EDGE = "# a star\n0 1\n1 0\n0 2 # outward\n2 0\n\n1 2\n"


@pytest.fixture
def listed(tmp_path: Path) -> Callable[..., Graph]:
    """Return a function that makes a graph of a file with this text."""

    def read(text: str, size: int) -> Graph:
        (tmp_path / "edges.txt").write_text(text)
        return graphs.make(f"file:{tmp_path / 'edges.txt'}", size)

    return read


def test_a_file_lists_edges(listed: Callable[..., Graph]) -> None:
    graph = listed(STAR_AND_AN_EDGE, 3)
    assert graph.phases == (((1, 2), (0, 2), (0,)),)
    assert graph.directed
    np.testing.assert_allclose(graph.shares()[:, 1], 1 / 3)
    np.testing.assert_array_equal(graph.shares()[:, 2], [1 / 2, 0, 1 / 2])


def test_a_file_with_every_edge_both_ways_is_undirected(
    listed: Callable[..., Graph],
) -> None:
    graph = listed("0 1\n1 0\n1 2\n2 1\n2 0\n0 2\n", 3)
    assert not graph.directed
    assert graph.phases == graphs.make("complete", 3).phases


def test_a_file_may_say_how_much_mass_goes_where(listed: Callable[..., Graph]) -> None:
    graph = listed("0 2 0.25\n0 1 0.5\n1 0 0.75\n2 0 0.125\n", 3)
    expected = [[0.25, 0.75, 0.125], [0.5, 0.25, 0], [0.25, 0, 0.875]]
    np.testing.assert_array_equal(graph.shares(), expected)
    assert graph.directed, "unequal shares need push-sum although edges go both ways"


def test_a_path_may_have_colons(tmp_path: Path) -> None:
    path = tmp_path / "a:b.txt"
    path.write_text("0 1\n1 0\n")
    assert graphs.make(f"file:{path}", 2).size == 2


WRONG_FILES = [
    ("0 1\n1\n", 2, ":2: '1' is no edge: write FROM TO"),
    ("0 1\n1 x\n", 2, ":2: '1 x' is no edge"),
    ("0 1 0.5 3\n", 2, ":1: '0 1 0.5 3' is no edge"),
    ("0 1\n\n1 2 # far\n", 2, ":3: '1 2' names rank 2: name ranks from 0 to 1"),
    ("0 -1\n", 2, "names rank -1"),
    ("0 1\n1 1\n", 2, ":2: '1 1' leads back to its sender"),
    ("0 1\n1 0\n0 1\n", 2, ":3: '0 1' is there twice"),
    ("0 1 0\n", 2, "above 0 and below 1"),
    ("0 1 nan\n", 2, "above 0 and below 1"),
    ("0 1 1\n", 2, "above 0 and below 1"),
    ("0 1 0.5\n0 2 0.5\n", 3, ":2: '0 2 0.5' leaves nothing to rank 0"),
    ("0 1 0.5\n1 0\n", 2, ":2: '1 0' differs from the lines above"),
    ("0 1\n", 2, "never carries news from rank 1 to rank 0"),
    ("0 1\n1 0\n", 3, "never carries news from rank 2 to rank 0"),
    ("", 2, "never carries news"),
]


@pytest.mark.parametrize(("text", "size", "said"), WRONG_FILES)
def test_a_wrong_file_is_refused_with_its_line(
    listed: Callable[..., Graph], text: str, size: int, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        listed(text, size)
    sentence = str(caught.value)
    assert said in sentence
    assert "edges.txt" in sentence
    assert "\n" not in sentence


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.txt' cannot be read: No such file"):
        graphs.make(f"file:{tmp_path / 'gone.txt'}", 2)
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    with pytest.raises(ConfigError, match="is not UTF-8 at line 1, column 1"):
        graphs.make(f"file:{tmp_path / 'binary'}", 2)
