"""What makes two trials the same: what was asked for, and the rule that was run.

Defaults are left out, at every level, so a key that comes later, with a default that
means what was done before, changes no id. (Until a first release ids were hashes of all
values; each new key then orphaned every result, see `trace.trials.Places`.) A default
must therefore never change its value: a new meaning gets a new key, or, where it is an
algorithm's, a higher `rule`.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct, structs

from dsgd_bench import problems
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.spec.strict import Keys, keys_of
from dsgd_bench.spec.trial import AlgorithmSpec, ProblemSpec, Trial


def trial_id(trial: Trial) -> str:
    """Return the name of a trial, 12 hexadecimal digits: a hash of what was `asked`."""
    content = msgspec.json.encode(asked(today(trial)), order="sorted")
    return hashlib.sha256(content).hexdigest()[:12]


def today(trial: Trial) -> Trial:
    """Return a trial that an earlier version wrote in the settings of this one."""
    spec = trial.algorithm
    known = ALGORITHMS.get(spec.kind)
    if known is None or known.former_settings.keys().isdisjoint(spec.settings):
        return trial
    spec = structs.replace(spec, settings=known.today(spec.settings))
    return structs.replace(trial, algorithm=spec)


def asked(value: Any) -> Any:
    """Return what differs from the defaults: tables of a trial, or of a part of it.

    Settings of an algorithm or a problem that this version does not have are all kept.
    """
    if isinstance(value, Struct):
        fields = keys_of(type(value))
        table = {name: getattr(value, name) for name in fields}
        settings = table.pop("settings", {})
        tag = value.__struct_config__
        own = {str(tag.tag_field): tag.tag} if tag.tag is not None else {}
        return own | _unusual(table, fields) | _unusual(settings, _settings(value))
    if isinstance(value, Mapping):
        return {key: asked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [asked(item) for item in value]
    return value


def _unusual(table: Mapping[str, Any], keys: Keys) -> dict[str, Any]:
    """Return the values of a table that are not the defaults of its keys."""
    return {
        name: asked(value)
        for name, value in table.items()
        if name not in keys or keys[name][1] != value
    }


def _settings(value: Struct) -> Keys:
    """Return the settings that the kind of an algorithm or a problem has."""
    if isinstance(value, AlgorithmSpec) and value.kind in ALGORITHMS:
        return ALGORITHMS[value.kind].settings
    if isinstance(value, ProblemSpec) and value.kind in problems.PROBLEMS:
        return problems.settings(value.kind)
    return {}
