"""Whether the variables of a trace fit each other, seen before any of them is read."""

from collections.abc import Mapping
from typing import Any

from dsgd_bench.trace import inspector
from dsgd_bench.trace.variables import VARIABLES

Sizes = dict[str, int]
"""Length of every dimension."""


def check(items: Mapping[str, Any], ranks: int) -> None:
    """Refuse a trace whose variables are not of one number of ranks, steps and points.

    Parameters
    ----------
    items : mapping of str to h5py.Dataset
        What the trace holds under the names of variables.
    ranks : int
        How many its trial has.

    Raises
    ------
    ValueError
        If a variable does not fit, or is no dataset of numbers, with its name.
    """
    sizes: Sizes = {"rank": ranks, "partner": ranks}
    first: dict[str, str] = {"rank": "the trial", "partner": "the trial"}
    for name, (dimensions, _, _) in VARIABLES.items():
        if name not in items:
            continue
        item = items[name]
        inspector.check(item)
        if len(item.shape) != len(dimensions):
            raise ValueError(
                f"the variable {name} has {len(item.shape)} dimensions, not the "
                f"{len(dimensions)} of {' and '.join(dimensions)}"
            )
        for dimension, length in zip(dimensions, item.shape, strict=True):
            expected = sizes.setdefault(dimension, length)
            whose = first.setdefault(dimension, name)
            if length != expected:
                raise ValueError(
                    f"the variable {name} has {length} along {dimension}, and {whose} "
                    f"has {expected}"
                )
