"""Does a target that computes still answer? Measured at the start of every run.

The MPI standard promises no progress for a rank that computes. Where an operation waits
for its target, an asynchronous algorithm waits for the slow rank after all, and a
comparison that does not know it is worth nothing. So every run times put, get,
accumulate and fetch-and-op against a target that calls no MPI, on the same node and on
another if there is one; where they wait, it starts the progress thread and times again.
The verdict goes into the trace.

One operation per busy phase: after a first one that blocked, the rest would be quick
and hide it.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from dsgd_bench.errors import ConfigError
from dsgd_bench.fabric.base import Fabric, VectorWindow, WordWindow

BUSY_SECONDS = 0.06
"""Seconds a target computes while the operation is timed."""

HEAD_START_SECONDS = 0.005
"""Seconds the target gets to become busy."""

PHASES = 2
"""Busy phases per operation; the quickest counts, a waiting target delays them all."""

LENGTH = 1024
"""Elements of the vector that is moved, 8 bytes each."""

MODES = ("auto", "thread", "none")

Operations: TypeAlias = dict[str, Callable[[], object]]
"""Name -> a one-sided operation, complete on return."""


def preflight(fabric: Fabric, mode: str = "auto") -> dict[str, Any]:
    """Measure whether busy targets answer; see to it that they do. Collective.

    Parameters
    ----------
    fabric : Fabric
        This rank's fabric.
    mode : str
        ``"thread"``: start the progress thread whatever is found; ``"auto"``: where an
        operation waits; ``"none"``: never.

    Returns
    -------
    dict
        ``thread`` (bool) and, per pair class (``same_node``, ``other_node``), origin,
        target and per operation its seconds and verdict: ``passive`` (answers by
        itself), ``with-thread``, or ``waits``. Equal on every rank.
    """
    if mode not in MODES:
        raise ConfigError(
            f"machine.progress is '{mode}': choose one of {', '.join(MODES)}"
        )
    pairs = {} if fabric.kind == "virtual" else _pairs(fabric.nodes())
    if not pairs:
        return {"thread": False, "pairs": {}}
    if mode == "thread":
        fabric.start_progress()
    found = {name: _measure(fabric, *pair) for name, pair in pairs.items()}
    waits = any(_waiting(pair) for pair in found.values())
    if waits and mode == "auto" and not fabric.progress_running:
        fabric.start_progress()
        again = {name: _measure(fabric, *pair) for name, pair in pairs.items()}
        found = {name: _combine(found[name], again[name]) for name in found}
    return {"thread": fabric.progress_running, "busy_s": BUSY_SECONDS, "pairs": found}


def _pairs(nodes: list[str]) -> dict[str, tuple[int, int]]:
    """Choose rank 0 and the first rank on its node, and the first one elsewhere."""
    pairs: dict[str, tuple[int, int]] = {}
    for rank in range(1, len(nodes)):
        same = nodes[rank] == nodes[0]
        pairs.setdefault("same_node" if same else "other_node", (0, rank))
    return pairs


def _waiting(pair: dict[str, Any]) -> bool:
    return any(found["verdict"] == "waits" for found in pair["operations"].values())


def _combine(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Keep what was found without the thread beside what was found with it."""
    for name, found in after["operations"].items():
        alone = before["operations"][name]
        found["seconds_without_thread"] = alone["seconds"]
        if found["verdict"] == "passive" and alone["verdict"] == "waits":
            found["verdict"] = "with-thread"
    return after


def _operations(window: VectorWindow, words: WordWindow, target: int) -> Operations:
    part = slice(0, LENGTH)
    ours = np.zeros(LENGTH)

    def flushed(operation: Callable[..., None], *arguments: object) -> None:
        operation(*arguments)
        window.flush(target)

    return {
        "put": lambda: flushed(window.put, ours, target, part),
        "get": lambda: flushed(window.get, target, part, ours),
        "accumulate": lambda: flushed(window.accumulate, ours, target, part),
        "fetch_and_op": lambda: words.read(target, 0),
    }


def _measure(fabric: Fabric, origin: int, target: int) -> dict[str, Any]:
    """Time every operation against a busy target; the result is equal on all ranks."""
    window, words = fabric.vectors(LENGTH, np.zeros(1)), fabric.words(1)
    measured = answers(fabric, _operations(window, words, target), origin, target)
    window.free()
    words.free()
    operations = {}
    for name, seconds in measured.items():
        verdict = "waits" if has_waited(seconds) else "passive"
        operations[name] = {"seconds": seconds, "verdict": verdict}
    return {"origin": origin, "target": target, "operations": operations}


def has_waited(seconds: float) -> bool:
    """Tell whether an operation that took so long has waited for its busy target."""
    return seconds > BUSY_SECONDS / 2


def answers(
    fabric: Fabric, operations: Operations, origin: int, target: int
) -> dict[str, float]:
    """Time every operation against a busy target; collective.

    Parameters
    ----------
    fabric : Fabric
        This rank's fabric.
    operations : dict
        Name -> what `origin` does to `target`, complete on return.
    origin, target : int
        Ranks.

    Returns
    -------
    dict
        Name -> seconds of the quickest; equal on all ranks.
    """
    seconds: dict[str, list[float]] = {}
    for name, operation in operations.items():
        for phase in range(PHASES + 1):
            fabric.barrier()
            spent = 0.0
            if fabric.rank == target and phase:
                _compute(fabric, BUSY_SECONDS)
            elif fabric.rank == origin:
                fabric.pause(HEAD_START_SECONDS)
                started = fabric.now()
                operation()
                spent = fabric.now() - started
            if phase:  # the first one only connects
                seconds.setdefault(name, []).append(spent)
    fabric.barrier()
    measured = fabric.gather(seconds)[origin]
    return {name: min(times) for name, times in measured.items()}


def _compute(fabric: Fabric, seconds: float) -> None:
    """Compute without a single MPI call, as a gradient does."""
    matrix = np.eye(96)
    end = fabric.now() + seconds
    while fabric.now() < end:
        matrix @ matrix
