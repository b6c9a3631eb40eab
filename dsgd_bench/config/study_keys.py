"""What a study file may say: the keys of every table, their types and defaults.

Settings of algorithms and problems are looked up here and nowhere else.
"""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from dsgd_bench import algorithms, graphs, problems
from dsgd_bench.spec.network import PRESETS, NetworkSpec
from dsgd_bench.spec.ranges import (
    AnyNumber,
    FirstSeed,
    GraphName,
    Index,
    Ranks,
    Repeats,
    Seed,
    Share,
)
from dsgd_bench.spec.strict import (
    REQUIRED,
    Keys,
    is_struct,
    keys_of,
    one_of,
    one_of_with_arguments,
)
from dsgd_bench.spec.trial import (
    BudgetSpec,
    ComputeSpec,
    MeasureSpec,
    OptimizerSpec,
    ProblemSpec,
    SlowdownSpec,
)


class Target(Struct, frozen=True, forbid_unknown_fields=True):
    """The target as study files write it."""

    loss: AnyNumber | None = None
    accuracy: Share | None = None


STUDY: Keys = {
    "ranks": (Any, REQUIRED),
    "budget": (Any, REQUIRED),
    "repeats": (Repeats, 1),
    "seed": (FirstSeed, 0),
    "zip": (tuple[tuple[str, ...], ...], ()),
}
"""Keys of [study]; ranks and budget may be swept, so they are read trial by trial."""

PLAIN: dict[str, type[Struct]] = {
    "optimizer": OptimizerSpec,
    "compute": ComputeSpec,
    "slowdown": SlowdownSpec,
}
"""Tables that are read straight into a struct."""

SECTIONS = ("study", "problem", "algorithm", *PLAIN, "measure")
"""Tables that describe every trial."""

NETWORK = "network"
"""The table that only studies of simulated trials have."""

GRAPH = {
    needless: one_of_with_arguments(graphs.GRAPHS, empty=needless)
    for needless in (False, True)
}
"""Type of a setting that names a graph, by whether it may name none."""


def settings(section: str) -> dict[str, Keys]:
    """Return the settings of every kind of ``algorithm`` or ``problem``."""
    if section == "problem":
        return {kind: problems.settings(kind) for kind in problems.PROBLEMS}
    found = {}
    for kind, algorithm in algorithms.ALGORITHMS.items():
        found[kind] = {
            key: (GRAPH[default == ""], default)
            if type_ == GraphName
            else (type_, default)
            for key, (type_, default) in algorithm.settings.items()
        }
    return found


def keys(section: str, kinds: Iterable[Any]) -> Keys:
    """Return the keys of one table of a trial.

    Parameters
    ----------
    section : str
        One of `SECTIONS`, or `NETWORK`.
    kinds : iterable
        Kinds of algorithm or problem whose settings are keys too; unknown ones and
        other tables add none. A setting whose type differs between them has any type.
    """
    if section in PLAIN:
        return keys_of(PLAIN[section])
    if section == NETWORK:
        return {"preset": (one_of(["", *PRESETS]), ""), **keys_of(NetworkSpec)}
    if section == "study":
        return {"ranks": (Ranks, REQUIRED), "budget": (BudgetSpec, REQUIRED)}
    if section == "measure":
        copies = keys_of(MeasureSpec)["copies"]
        return {"target": (Target, Target()), "copies": copies}
    known = settings(section)
    found: Keys = {"kind": (one_of(known), REQUIRED)}
    if section == "problem":
        own = keys_of(ProblemSpec)
        found |= {key: own[key] for key in ("batch", "dtype", "shards")}
    else:
        found["optimizer"] = (dict[str, Any], {})
    for kind in kinds:
        for key, (type_, default) in known.get(str(kind), {}).items():
            same = found.get(key, (type_,))[0] == type_
            found[key] = (type_ if same else Any, default)
    return found


def known() -> Keys:
    """Return everything that a trial may say, under its flat name."""
    found: Keys = {"repeat": (Index, 0), "seed": (Seed, 0)}

    def add(table: Keys, prefix: str) -> None:
        for key, (type_, default) in table.items():
            if is_struct(type_):
                add(keys_of(type_), f"{prefix}{key}.")
            else:
                found[prefix + key] = (type_, default)

    for section in (*SECTIONS, NETWORK):
        kinds = settings(section) if section in ("problem", "algorithm") else ()
        add(keys(section, kinds), "" if section == "study" else f"{section}.")
    del found["algorithm.optimizer"], found["network.preset"]
    return found


def home(key: str) -> str:
    """Return the dotted name that a misplaced key has in a study file, if only one."""
    full = [f"study.{name}" if "." not in name else name for name in known()]
    full += ["study.repeats", "study.zip", "study.budget"]
    names = [name for name in full if name.split(".")[-1] == key]
    return names[0] if len(names) == 1 else ""
