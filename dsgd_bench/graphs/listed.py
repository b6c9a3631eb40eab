"""Graphs read from a file of edges.

One edge per line, the sender first: ``FROM TO``, or ``FROM TO SHARE`` with the share of
its mass that the sender gives away, the rest of which it keeps. ``#`` begins a comment.
A graph is undirected if no line has a share and every edge is there both ways.
"""

from dataclasses import dataclass
from pathlib import Path

from dsgd_bench.errors import ConfigError
from dsgd_bench.graphs.base import Graph
from dsgd_bench.io import user_text

LARGEST_FILE = 64 * 2**20
"""Bytes: some millions of edges."""

SHOWN = 80
"""Characters of a line that a sentence shows."""

Row = dict[int, float | None]
"""What one rank sends: target -> share, or None for an equal one."""


def file(size: int, *path: str) -> Graph:
    """Edges from a file, one FROM TO [SHARE] per line.

    Raises
    ------
    ConfigError
        If the file cannot be read or a line of it is wrong; the words follow the name
        of the graph. Whether every rank can be reached is not examined.
    """
    name = ":".join(path)
    lines = user_text.read(Path(name), limit=LARGEST_FILE).splitlines()
    listed = _Listed([{} for _ in range(size)], [0.0] * size)
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if words:
            try:
                _add(listed, words)
            except ConfigError as error:
                text = " ".join(words)[:SHOWN]
                raise ConfigError(
                    f"is wrong at {name}:{number}: '{text}' {error}"
                ) from None
    rows = [sorted(row.items()) for row in listed.rows]
    edges = tuple(tuple(target for target, _ in row) for row in rows)
    shares = tuple(tuple(s for _, s in row if s is not None) for row in rows)
    return Graph("", (edges,), shares if any(shares) else None)


@dataclass
class _Listed:
    """What the lines above say; `given` is the sum of the shares in each row."""

    rows: list[Row]
    given: list[float]
    shared: bool | None = None


def _add(listed: _Listed, words: list[str]) -> None:
    """Add an edge; what is raised follows the line."""
    try:
        sender, target = int(words[0]), int(words[1])
        share = float(words[2]) if len(words) > 2 else None
        whole = len(words) <= 3
    except (IndexError, ValueError):
        whole = False
    if not whole:
        raise ConfigError("is no edge: write FROM TO or FROM TO SHARE, in numbers")
    last = len(listed.rows) - 1
    for rank, word in ((sender, words[0]), (target, words[1])):
        if not 0 <= rank <= last:
            raise ConfigError(f"names rank {word[:20]}: name ranks from 0 to {last}")
    if sender == target:
        raise ConfigError("leads back to its sender: leave it out, it keeps the rest")
    if target in listed.rows[sender]:
        raise ConfigError("is there twice: leave one out")
    if share is not None and not 0 < share < 1:
        raise ConfigError("has an impossible share: give it one above 0 and below 1")
    if listed.shared not in (None, share is not None):
        raise ConfigError(
            "differs from the lines above: give a share to every edge or to none"
        )
    listed.shared = share is not None
    listed.rows[sender][target] = share
    listed.given[sender] += share or 0.0
    if listed.given[sender] >= 1:
        raise ConfigError(
            f"leaves nothing to rank {sender}: let its shares add up to less than 1"
        )
