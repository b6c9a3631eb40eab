"""Graphs read from a file of edges.

One edge per line, the sender first: ``FROM TO``, or ``FROM TO SHARE`` with the share of
its mass that the sender gives away, the rest of which it keeps. ``#`` begins a comment.
A graph is undirected if no line has a share and every edge is there both ways.
"""

from pathlib import Path

from dsgd_bench.errors import ConfigError
from dsgd_bench.graphs.base import Graph

Row = dict[int, float | None]
"""What one rank sends: target -> share, or None for an equal one."""


def file(size: int, *path: str) -> Graph:
    """Edges from a file, one FROM TO [SHARE] per line.

    Raises
    ------
    ConfigError
        If the file cannot be read or a line of it is wrong; the words follow the name
        of the graph. Whether everybody can be reached is not examined.
    """
    name = ":".join(path)
    try:
        lines = Path(name).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"cannot be read: {reason}") from None
    rows: list[Row] = [{} for _ in range(size)]
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if words:
            try:
                _add(rows, words)
            except ConfigError as error:
                text = " ".join(words)
                raise ConfigError(
                    f"is wrong at {name}:{number}: '{text}' {error}"
                ) from None
    edges = tuple(tuple(sorted(row)) for row in rows)
    shares = tuple(
        tuple(share for _, share in sorted(row.items()) if share is not None)
        for row in rows
    )
    return Graph("", (edges,), shares if any(shares) else None)


def _add(rows: list[Row], words: list[str]) -> None:
    """Add an edge; what is raised follows the line."""
    try:
        sender, target = int(words[0]), int(words[1])
        share = float(words[2]) if len(words) > 2 else None
        whole = len(words) <= 3
    except (IndexError, ValueError):
        whole = False
    if not whole:
        raise ConfigError("is no edge: write FROM TO or FROM TO SHARE, in numbers")
    last = len(rows) - 1
    for rank in (sender, target):
        if not 0 <= rank <= last:
            raise ConfigError(f"names rank {rank}: name ranks from 0 to {last}")
    if sender == target:
        raise ConfigError("leads back to its sender: leave it out, it keeps the rest")
    if target in rows[sender]:
        raise ConfigError("is there twice: leave one out")
    if share is not None and not 0 < share < 1:
        raise ConfigError("has an impossible share: give it one above 0 and below 1")
    if any((share is None) != (s is None) for row in rows for s in row.values()):
        raise ConfigError(
            "differs from the lines above: give a share to every edge or to none"
        )
    rows[sender][target] = share
    if sum(s or 0 for s in rows[sender].values()) >= 1:
        raise ConfigError(
            f"leaves nothing to rank {sender}: let its shares add up to less than 1"
        )
