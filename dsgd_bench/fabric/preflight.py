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
from typing import Literal, TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

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

PASSIVE: Literal["passive"] = "passive"
WITH_THREAD: Literal["with-thread"] = "with-thread"
WAITS: Literal["waits"] = "waits"
"""A target that computes answers by itself, thanks to the progress thread, or not."""


class Answer(Struct, frozen=True, omit_defaults=True):
    """How a target that computes answered one operation.

    Attributes
    ----------
    seconds : float
        Of the quickest.
    verdict : str
        `PASSIVE`, `WITH_THREAD` or `WAITS`.
    seconds_without_thread : float or None
        The same before the progress thread was started; None if it was not started
        for what was found, and in traces left out.
    """

    seconds: float
    verdict: Literal["passive", "with-thread", "waits"]
    seconds_without_thread: float | None = None


class Pair(Struct, frozen=True):
    """What was found between two ranks.

    Attributes
    ----------
    origin, target : int
        Ranks; the target computes.
    operations : dict of str to Answer
        Of put, get, accumulate and fetch-and-op.
    """

    origin: int
    target: int
    operations: dict[str, Answer]

    @property
    def waits(self) -> bool:
        """Whether any operation waited for its target."""
        return any(found.verdict == WAITS for found in self.operations.values())


class Verdict(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the preflight found; equal on every rank, and kept in the trace as JSON.

    Attributes
    ----------
    thread : bool
        Whether the progress thread runs.
    busy_s : float or None
        Seconds that targets computed; None, and left out, where nothing was measured.
    pairs : dict of str to Pair
        By class: ``same_node``, ``other_node``. Empty for one rank, and simulated ones.
    """

    thread: bool
    busy_s: float | None = None
    pairs: dict[str, Pair]


Operations: TypeAlias = dict[str, Callable[[], object]]
"""Name -> a one-sided operation, complete on return."""


def preflight(fabric: Fabric, mode: str = "auto") -> Verdict:
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
    Verdict
        Equal on every rank.

    Raises
    ------
    ConfigError
        If there is no such mode.
    """
    if mode not in MODES:
        raise ConfigError(
            f"machine.progress is '{mode}': choose one of {', '.join(MODES)}"
        )
    pairs = {} if fabric.kind == "virtual" else _pairs(fabric.nodes())
    if not pairs:
        return Verdict(thread=False, pairs={})
    if mode == "thread":
        fabric.start_progress()
    found = {name: _measure(fabric, *pair) for name, pair in pairs.items()}
    waits = any(pair.waits for pair in found.values())
    if waits and mode == "auto" and not fabric.progress_running:
        fabric.start_progress()
        again = {name: _measure(fabric, *pair) for name, pair in pairs.items()}
        found = {name: _combine(found[name], again[name]) for name in found}
    return Verdict(thread=fabric.progress_running, busy_s=BUSY_SECONDS, pairs=found)


def _pairs(nodes: list[str]) -> dict[str, tuple[int, int]]:
    """Choose rank 0 and the first rank on its node, and the first one elsewhere."""
    pairs: dict[str, tuple[int, int]] = {}
    for rank in range(1, len(nodes)):
        same = nodes[rank] == nodes[0]
        pairs.setdefault("same_node" if same else "other_node", (0, rank))
    return pairs


def _combine(before: Pair, after: Pair) -> Pair:
    """Keep what was found without the thread beside what was found with it."""
    operations = {}
    for name, found in after.operations.items():
        alone = before.operations[name]
        mended = found.verdict == PASSIVE and alone.verdict == WAITS
        operations[name] = Answer(
            found.seconds, WITH_THREAD if mended else found.verdict, alone.seconds
        )
    return replace(after, operations=operations)


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


def _measure(fabric: Fabric, origin: int, target: int) -> Pair:
    """Time every operation against a busy target; the result is equal on all ranks."""
    window, words = fabric.vectors(LENGTH, np.zeros(1)), fabric.words(1)
    measured = answers(fabric, _operations(window, words, target), origin, target)
    window.free()
    words.free()
    operations = {
        name: Answer(seconds, WAITS if has_waited(seconds) else PASSIVE)
        for name, seconds in measured.items()
    }
    return Pair(origin, target, operations)


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
