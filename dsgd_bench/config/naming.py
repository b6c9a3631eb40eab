"""What trials are called in tables and messages."""

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.slowdowns import kind_of
from dsgd_bench.spec.strict import exact
from dsgd_bench.spec.trial import AlgorithmSpec, Trial


def label(algorithm: AlgorithmSpec) -> str:
    """Return the algorithm and those of its settings that are not its defaults.

    An algorithm that this version does not have is labeled with all its settings. A
    rule that is not today's is named as well.
    """
    known = ALGORITHMS.get(algorithm.kind)
    defaults = {} if known is None else known.settings
    words = [algorithm.kind]
    if known is not None and algorithm.rule != known.rule:
        words.append(f"rule {algorithm.rule}")
    for key, value in sorted(algorithm.settings.items()):
        if key not in defaults or defaults[key][1] != value:
            words.append(value if isinstance(value, str) else f"{key} {value}")
    return ", ".join(words)


def description(trial: Trial) -> str:
    """Return the trial in a few words."""
    named = slowdown(trial)
    slow = "" if named == "none" else f", slow {named}"
    over = f", {trial.network.name or 'a network'}" if trial.network else ""
    ranks = f"{trial.ranks} ranks{over}{slow}"
    return f"{label(trial.algorithm)} on {ranks}, repeat {trial.repeat}"


def slowdown(trial: Trial) -> str:
    """Return the slowdown of a trial in a few words, for tables."""
    s = trial.slowdown
    kind = kind_of(s)
    if not kind.slows:
        return s.links.label or "none"
    where = f"rank{'s' * (len(s.ranks) > 1)} {', '.join(map(str, s.ranks))}"
    on = f"on {where if s.ranks else 'all ranks'}{', added' * (s.mode == 'added')}"
    words = " ".join(filter(None, (f"{exact(s.factor)}x", kind.words, on)))
    return ", ".join(filter(None, (words, s.links.label)))
