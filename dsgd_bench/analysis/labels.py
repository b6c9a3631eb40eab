"""A trial's choices in a few words, for tables and figures."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dsgd_bench.config import naming
from dsgd_bench.slowdowns import kind_of, slow_ranks
from dsgd_bench.spec.strict import exact

if TYPE_CHECKING:
    from dsgd_bench.spec.trial import MeasureSpec, SlowdownSpec, Trial

NETWORK = "network.name"
"""The factor that tells simulated networks apart."""


def slowdown(trial: "Trial") -> str:
    """Return the slowdown in words; "none" where none of its ranks is there."""
    if not slow_ranks(trial.slowdown, trial.ranks):
        return trial.slowdown.links.label or "none"
    return naming.slowdown(trial)


def slow_factor(spec: "SlowdownSpec") -> float | None:
    """Return how many times slower a rank computes: 1 without slowdown.

    None where it is random, and where links are slow: no factor says that.
    """
    return None if spec.links.label else kind_of(spec).constant


def target(measure: "MeasureSpec") -> str | None:
    """Return the target in words, or None."""
    words = []
    if measure.target_loss is not None:
        words.append(f"loss ≤ {exact(measure.target_loss)}")
    if measure.target_accuracy is not None:
        words.append(f"accuracy ≥ {exact(measure.target_accuracy)}")
    return " or ".join(words) or None


def factors(trial: "Trial") -> dict[str, Any]:
    """Return every setting but seed and repeat: ``{"problem.batch": 32, ...}``.

    Values, and no text: two trials are of one point if these are equal.
    """
    return {
        name: _hashable(value)
        for name, value in trial.flat().items()
        if name not in ("seed", "repeat")
    }


def differing(factors: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings, algorithm and slowdown aside, that are not all the same.

    Networks that are told apart by names and ranks need no numbers besides.
    """
    return [
        key
        for key in sorted({key for each in factors for key in each})
        if not key.startswith(("algorithm.", "slowdown."))
        and len({each.get(key) for each in factors}) > 1
        and not (key.startswith("network.") and _follows(key, factors))
    ]


def _follows(key: str, factors: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether a number of the networks follows from their names, and the ranks.

    A machine's profile has an all-reduce of its own for every number of ranks.
    """
    names = [(each.get(NETWORK), each.get("ranks")) for each in factors]
    values = {(*name, each.get(key)) for name, each in zip(names, factors, strict=True)}
    return key != NETWORK and len(values) == len(set(names))


def chosen(settings: Mapping[str, Any], names: list[str]) -> str:
    """Return some settings in words: "8 ranks, alpha 0.1"; those not set are left out.

    Names lose their section; kinds and networks speak for themselves.
    """
    words = []
    for name in names:
        value, short = settings.get(name), name.rpartition(".")[2]
        if value is None or value == "":
            continue
        value = text(value)
        if name == "ranks":
            words.append(f"{value} ranks")
        else:
            alone = short in ("kind", "by") or name == NETWORK
            words.append(value if alone else f"{short} {value}")
    return ", ".join(words)


def fact(provenance: Mapping[str, Any], name: str) -> Any:
    """Return one provenance value, wherever it is nested; None if absent."""
    waiting: list[Mapping[str, Any]] = [provenance]
    while waiting:
        section = waiting.pop()
        if name in section:
            return section[name]
        waiting += [value for value in section.values() if isinstance(value, Mapping)]
    return None


def text(value: Any) -> str:
    """Return one setting's value as short text, another one for every other value."""
    if isinstance(value, float):
        return exact(value)
    if isinstance(value, list | tuple):
        return " ".join(text(item) for item in value)
    return str(value)


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value
