"""Traces of earlier schemas, seen as ones of today's.

What was measured is never changed: variables have today's names, those that a schema
did not have yet are NaN, and what `staleness` means is what it means today.

    1  `staleness` was what `changes` is now; no servers, no push-sum, no places
    2  the same without norms, places, drained bytes and interruptions
    3  today's variables; "moving", "mixing", "copying", "hidden", "replica_distance"

Up to schema 3 the optimizer's update was booked as `mixing` by AD-PSGD, servers and
push-sum, and left in `other` by all the rest; from schema 4 on it is `update` always.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.trace import staleness
from dsgd_bench.trace.variables import FORMER, SCHEMA, VARIABLES

READABLE = range(1, SCHEMA + 1)
"""Schemas that are read."""

SINCE: dict[str, int] = {
    **dict.fromkeys(("age", "changes", "included", "delivered", "weight"), 2),
    "serves": 2,
    "norm_of_mean": 3,
    **dict.fromkeys(("node", "node_rank", "node_ranks", "shares_core"), 3),
    **dict.fromkeys(("drain_bytes_out", "drain_bytes_in"), 3),
    # the first traces of schema 3 lack these
    **dict.fromkeys(("link_bytes_out", "link_bytes_in"), 4),
}
"""The schema from which on every trace has a variable; 1 where nothing stands here."""

Arrays = dict[str, NDArray[np.float64]]


def named(items: Mapping[str, Any], schema: int) -> dict[str, Any]:
    """Return what a file holds under the names that variables have today.

    Parameters
    ----------
    items : mapping of str to h5py.Dataset
        The file.
    schema : int
        One of `READABLE`.
    """
    former = dict(FORMER) if schema < SCHEMA else {}
    if schema == 1:
        former["staleness"] = "changes"
    today = {former.get(name, name): name for name in items}
    return {name: items[old] for name, old in today.items() if name in VARIABLES}


def family(kind: str) -> str:
    """Return what staleness is for an algorithm, where a trace does not say it.

    Traces of schema 1 are of AllReduce-SGD and of AD-PSGD in its forms.
    """
    return ALGORITHMS[kind].staleness if kind in ALGORITHMS else "none"


def complete(arrays: Arrays, schema: int, ranks: int, kind: str) -> None:
    """Add to `arrays` what traces of their schema do not have yet.

    Parameters
    ----------
    arrays : dict of str to array
        Variables by the names of today; those that are added are NaN, but for
        ``serves``, which is 0, and ``staleness`` of schema 1, which follows from times.
    schema : int
        One of `READABLE`.
    ranks : int
        Of the trial.
    kind : str
        The algorithm, by its name.

    Raises
    ------
    ValueError
        If a variable is missing that every schema has.
    """
    if schema == SCHEMA:
        return
    for name in ("start", "duration", "samples", "moment_time"):
        if name not in arrays:
            raise ValueError(f"it lacks the variable {name}")
    sizes = {
        "rank": ranks,
        "step": arrays["duration"].shape[1],
        "moment": len(arrays["moment_time"]),
    }
    for name, since in SINCE.items():
        if since > schema and name not in arrays:
            shape = [sizes[dimension] for dimension in VARIABLES[name][0]]
            arrays[name] = np.full(shape, 0.0 if name == "serves" else np.nan)
    if schema == 1:
        arrays["staleness"] = staleness.staleness(family(kind), arrays)
