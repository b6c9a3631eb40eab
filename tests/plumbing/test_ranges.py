"""Every number that a user may give has two ends, and beyond them is one sentence."""

import math
import time
from functools import cache
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from dsgd_bench import config
from dsgd_bench.config import study_keys
from dsgd_bench.errors import ConfigError
from dsgd_bench.spec import batch, machine_profile, network, strict, trial
from dsgd_bench.study.plan import costs

WITHOUT_ENDS = {
    "Profile.dsgd_profile": "it is compared with the one version that is read",
    "Job.job": "none",
}
"""Numbers without ends, and why."""

RECORDS = [
    value
    for module in (trial, network, batch, machine_profile, study_keys)
    for value in vars(module).values()
    if strict.is_struct(value) and value is not msgspec.Struct
]


def numbers(kind: Any, name: str):
    """Yield name and type of every number in a type, those in lists included."""
    left = [(kind if isinstance(kind, inspect.Type) else inspect.type_info(kind), name)]
    while left:
        info, name = left.pop()
        if isinstance(info, inspect.IntType | inspect.FloatType):
            yield name, info
        for part in ("type", "item_type", "key_type", "value_type"):
            if isinstance(getattr(info, part, None), inspect.Type):
                left.append((getattr(info, part), name))
        if isinstance(info, inspect.UnionType):
            left += [(each, name) for each in info.types]


def ends(info):
    """Return the lowest and the highest number of a type, or None."""
    step = 1 if isinstance(info, inspect.IntType) else 0
    low = info.ge if info.ge is not None else info.gt
    high = info.le if info.le is not None else info.lt
    if info.ge is None and low is not None:
        low = low + step if step else math.nextafter(low, math.inf)
    if info.le is None and high is not None:
        high = high - step if step else math.nextafter(high, -math.inf)
    return low, high


def of_records():
    """Yield every number of every record that is read from a file."""
    for record in RECORDS:
        for key, (kind, _) in strict.keys_of(record).items():
            yield from numbers(kind, f"{record.__name__}.{key}")
    for section in ("problem", "algorithm"):
        for of, keys in study_keys.settings(section).items():
            for key, (kind, _) in keys.items():
                yield from numbers(kind, f"{section} {of}.{key}")
    for key, (kind, _) in study_keys.STUDY.items():
        yield from numbers(kind, f"study.{key}")


def test_every_number_has_two_ends_or_a_reason():
    found = dict(of_records())
    assert len(found) > 120
    open_ended = {name for name, info in found.items() if None in ends(info)}
    assert open_ended <= set(WITHOUT_ENDS)


NEEDS: dict[str, dict[str, Any]] = {
    "problem.classes": {"problem.data": "generated"},
    "problem.features": {"problem.data": "generated"},
    "problem.samples": {"problem.data": "generated"},
    "algorithm.early_epochs": {"algorithm.early_graph": "ring"},
    "problem.shards.alpha": {"problem.shards.by": "dirichlet"},
    "compute.variation": {"compute.distribution": "gamma"},
    "slowdown.probability": {"slowdown.kind": "transient", "slowdown.factor": 2},
    "slowdown.alpha": {"slowdown.kind": "heavy-tailed", "slowdown.factor": 2},
    "slowdown.factor": {"slowdown.kind": "constant"},
    "slowdown.ranks": {"slowdown.kind": "constant", "slowdown.factor": 2},
    "slowdown.links.ranks": {"slowdown.links.seconds": 0.1},
    "optimizer.schedule.at": {"optimizer.schedule.kind": "step"},
    "optimizer.schedule.factor": {
        "optimizer.schedule.kind": "step",
        "optimizer.schedule.at": [1],
    },
    "optimizer.schedule.length": {"optimizer.schedule.kind": "cosine"},
    "optimizer.schedule.warmup": {"optimizer.schedule.kind": "warmup-step"},
}
"""Key -> what a study must say for it to count."""


@cache
def asked() -> dict[str, tuple[str, Any, str, str]]:
    """Return every number of a study: where -> key, type, problem and algorithm."""
    found: dict[str, tuple[str, Any, str, str]] = {}
    for name, (kind, _) in (study_keys.known() | study_keys.STUDY).items():
        key = f"study.{name}" if name.partition(".")[0] in IN_STUDY else name
        if name.partition(".")[0] not in ("problem", "algorithm"):
            found[key] = key, kind, "softmax", "adpsgd"
    for name in ("batch", "shards.alpha"):
        key = f"problem.{name}"
        found[key] = key, study_keys.known()[key][0], "softmax", "adpsgd"
    for problem, keys in study_keys.settings("problem").items():
        for name, (kind, _) in keys.items():
            found[f"{problem}.{name}"] = f"problem.{name}", kind, problem, "adpsgd"
    for algorithm, keys in study_keys.settings("algorithm").items():
        for name, (kind, _) in keys.items():
            found[f"{algorithm}.{name}"] = (
                f"algorithm.{name}", kind, "softmax", algorithm,
            )  # fmt: skip
    del found["repeat"]
    return {
        where: asks
        for where, asks in found.items()
        if list(numbers(asks[1], "")) and asks[2] != "torch"  # which may not be here
    }


SMALL = {"problem.data": '"generated"', "problem.samples": "100"}
"""Changes that make a problem of pictures one of a moment."""

IN_STUDY = ("ranks", "seed", "budget", "repeats", "zip")
"""What a study file has in [study]."""


def text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(text, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def study(key: str, value: Any, problem: str, algorithm: str) -> list[str]:
    """Return the changes to a study that make one number what it is asked to be."""
    changes = {
        "problem": f'{{ kind = "{problem}", batch = 1 }}',
        "algorithm": f'{{ kind = "{algorithm}" }}',
        **(SMALL if problem in ("lenet", "resnet20") else {}),
        **{
            name: text(item)
            for name, item in NEEDS.get(key, {}).items()
            if problem not in ("quadratic", "message")
        },
        key: text(value),
    }
    return [f"{name}={item}" for name, item in changes.items()]


PLAIN = """
[study]
ranks = 2
budget = { seconds = 0.3 }
[problem]
kind = "softmax"
batch = 1
[algorithm]
kind = "adpsgd"
[compute]
mode = "emulated"
seconds = 0.002
"""


def extremes(kind: Any) -> list[Any]:
    """Return values at and beyond the ends of a type, and some that are no numbers."""
    (_, info), *_ = numbers(kind, "")
    low, high = ends(info)
    return [
        low, high, low - 1, high + 1, 10**20, -(10**20), 1.7e308, 5e-324,
        math.nan, math.inf, -math.inf,
    ]  # fmt: skip


@pytest.mark.parametrize("where", sorted(asked()))
def test_big_numbers_are_refused_by_name_or_planned(where, tmp_path):
    key, kind, problem, algorithm = asked()[where]
    path = tmp_path / "study.toml"
    path.write_text(PLAIN)
    several = strict.is_list(kind)
    for value in extremes(kind):
        changes = study(key, [value] if several else value, problem, algorithm)
        began = time.process_time()
        try:
            found = config.read_study(path, changes)
            costs(found)
        except ConfigError as error:
            said = str(error)
            assert key in said or key.rpartition(".")[2] in said, (value, said)
            assert len(said) < 600
        assert time.process_time() - began < 5, value  # a second, on a quiet machine
