"""What goes together in a trial: what no machine can run, and what has no effect."""

from collections.abc import Iterator
from operator import attrgetter

from dsgd_bench import algorithms, slowdowns
from dsgd_bench.errors import ConfigError
from dsgd_bench.io.trial_folder import TRACE
from dsgd_bench.spec.strict import keys_of
from dsgd_bench.spec.trial import BudgetSpec, Trial

PLACE = ("device", "precision")
"""Keys of [compute] that say where; they count in every mode."""

EFFECTIVE: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "problem.shards": ("by", {"dirichlet": ("alpha",)}),
    "compute": (
        "mode",
        {
            "measured": PLACE,
            "emulated": ("seconds", "distribution", "variation", *PLACE),
            "resampled": ("trace", *PLACE),
        },
    ),
    "slowdown": (
        "kind",
        {name: (*kind.settings, "links") for name, kind in slowdowns.KINDS.items()},
    ),
    "optimizer.schedule": (
        "kind",
        {
            "step": ("at", "factor"),
            "cosine": ("length",),
            "warmup-step": ("at", "factor", "warmup"),
        },
    ),
}
"""Table -> (its deciding key, value of that key -> the other keys that then count)."""


def check(trial: Trial) -> None:
    """Refuse a trial that no machine can run, or that asks for what has no effect.

    Raises
    ------
    ConfigError
        Naming the key and the way out.
    """
    rules = (
        _without_effect,
        _optimizer,
        _plain,
        _servers,
        _slowdown,
        _times,
        _simulated,
        _precision,
        _links,
        _ends,
    )
    for rule in rules:
        for broken, sentence in rule(trial):
            if broken:
                raise ConfigError(sentence)
    algorithms.ALGORITHMS[trial.algorithm.kind].graphs(
        trial.algorithm.settings, trial.ranks
    )


def _without_effect(trial: Trial) -> Iterator[tuple[object, str]]:
    for name, (decider, effective) in EFFECTIVE.items():
        spec = attrgetter(name)(trial)
        choice = getattr(spec, decider)
        for key, (_, default) in keys_of(type(spec)).items():
            counts = key == decider or key in effective.get(choice, ())
            yield (
                not counts and getattr(spec, key) != default,
                f"{name}.{key} has no effect where {name}.{decider} is {choice}: "
                f"leave it out, or choose another {decider}",
            )


def _optimizer(trial: Trial) -> Iterator[tuple[object, str]]:
    o, s = trial.optimizer, trial.optimizer.schedule
    yield (
        o.nesterov and not o.momentum,
        "optimizer.nesterov needs momentum: set optimizer.momentum above 0",
    )
    yield (
        s.kind == "step" and not s.at,
        "optimizer.schedule.at is missing for kind step: name the epochs",
    )
    yield (
        list(s.at) != sorted(set(s.at)),
        "optimizer.schedule.at must ascend: sort the epochs, each once",
    )
    yield (
        s.kind == "cosine" and not s.length,
        "optimizer.schedule.length is missing for kind cosine: give it epochs above 0",
    )
    yield (
        s.kind == "warmup-step" and not s.warmup,
        "optimizer.schedule.warmup is missing for kind warmup-step: give it epochs "
        "above 0",
    )


def _plain(trial: Trial) -> Iterator[tuple[object, str]]:
    o, kind = trial.optimizer, trial.algorithm.kind
    extras = {
        "optimizer.momentum": o.momentum,
        "optimizer.weight_decay": o.weight_decay,
        "optimizer.schedule": o.schedule.kind != "constant",
    }
    asked = [key for key, value in extras.items() if value]
    yield (
        "plain" in algorithms.ALGORITHMS[kind].traits and asked,
        f"algorithm {kind} needs plain SGD: leave out {' and '.join(asked)}",
    )
    yield (
        "own-momentum" in algorithms.ALGORITHMS[kind].traits and o.momentum,
        f"algorithm {kind} has a momentum of its own: leave out optimizer.momentum, or "
        "set it to 0 for this algorithm alone with optimizer = { momentum = 0 } there",
    )


def _servers(trial: Trial) -> Iterator[tuple[object, str]]:
    algorithm = algorithms.ALGORITHMS[trial.algorithm.kind]
    servers = algorithm.servers(trial.algorithm.settings, trial.ranks)
    workers = trial.ranks - servers
    yield (
        workers < 1,
        f"algorithm.servers is {servers} where study.ranks is {trial.ranks}: leave a "
        f"rank to compute, with at most {trial.ranks - 1}",
    )
    beyond = [rank for rank in trial.slowdown.ranks if workers <= rank < trial.ranks]
    yield (
        beyond,
        f"slowdown.ranks names rank {max(beyond, default=0)}, which is a server of "
        f"{trial.algorithm.kind} and computes no gradients: name workers, ranks from 0 "
        f"to {workers - 1}",
    )


def _slowdown(trial: Trial) -> Iterator[tuple[object, str]]:
    s, c = trial.slowdown, trial.compute
    missing = slowdowns.kind_of(s).missing
    yield (
        c.mode == "emulated" and not c.seconds,
        "compute.seconds is missing for mode emulated: give it seconds above 0",
    )
    yield (
        any(rank >= trial.ranks for rank in s.ranks),
        f"slowdown.ranks names rank {max(s.ranks, default=0)} where study.ranks is "
        f"{trial.ranks}: name ranks from 0 to {trial.ranks - 1}",
    )
    yield (
        len(set(s.ranks)) < len(s.ranks),
        "slowdown.ranks names a rank twice: name it once",
    )
    yield (
        missing,
        f"slowdown.{missing} is missing for kind {s.kind}: set it above 0",
    )
    yield (
        s.kind != "none" and s.mode == "minimum" and c.mode == "measured",
        "slowdown.mode minimum needs compute.mode emulated: emulate, or choose "
        "slowdown.mode added",
    )


def _times(trial: Trial) -> Iterator[tuple[object, str]]:
    c = trial.compute
    yield (
        c.distribution != "constant" and not c.variation,
        f"compute.variation is missing for distribution {c.distribution}: give it the "
        "standard deviation over the mean, above 0",
    )
    yield (
        c.distribution == "constant" and c.variation,
        "compute.variation has no effect where compute.distribution is constant: leave "
        "it out, or choose lognormal or gamma",
    )
    yield (
        c.mode == "resampled" and not c.trace,
        f"compute.trace is missing for mode resampled: name the {TRACE} of a real run",
    )


def _simulated(trial: Trial) -> Iterator[tuple[object, str]]:
    c = trial.compute
    yield (
        trial.network is not None and c.mode == "measured",
        "compute.mode is measured, but in virtual time computing takes no time: set "
        "compute.mode to emulated with compute.seconds, or draw times from the trace "
        "of a real run with simulate --compute-from TRACE",
    )
    yield (
        trial.network is not None and c.device != "cpu",
        f"compute.device is {c.device}, but simulated ranks compute in one process on "
        "the host: leave it out",
    )


def _precision(trial: Trial) -> Iterator[tuple[object, str]]:
    c = trial.compute
    reduced = c.precision != "float32"
    yield (
        reduced and c.device == "cpu",
        f"compute.precision {c.precision} needs compute.device cuda: choose both, or "
        "neither",
    )
    yield (
        reduced and trial.problem.dtype != "float32",
        f"compute.precision {c.precision} is for models of float32, but problem.dtype "
        f"is {trial.problem.dtype}: leave one of them out",
    )


def _links(trial: Trial) -> Iterator[tuple[object, str]]:
    links = trial.slowdown.links
    ends = [tuple(map(int, pair.split("-"))) for pair in links.pairs]
    named = {*links.ranks, *(rank for pair in ends for rank in pair)}
    beyond = [rank for rank in named if rank >= trial.ranks]
    yield (
        beyond,
        f"slowdown.links names rank {max(beyond, default=0)} where study.ranks is "
        f"{trial.ranks}: name ranks from 0 to {trial.ranks - 1}",
    )
    yield (
        any(one == other for one, other in ends),
        "slowdown.links.pairs names a rank and itself: name two ranks, as in "
        '["0-1", "1-2"]',
    )
    yield (
        len(set(links.ranks)) < len(links.ranks)
        or len({frozenset(pair) for pair in ends}) < len(ends),
        "slowdown.links names a rank or a pair twice: name it once",
    )
    yield (
        named and not links.seconds and not links.rate,
        "slowdown.links has neither seconds nor rate: say how slow they are, such as "
        "rate = 20e6 for 20 Mbit/s",
    )


def _ends(trial: Trial) -> Iterator[tuple[object, str]]:
    measure = trial.measure
    yield (
        trial.budget == BudgetSpec(),
        "study.budget is empty: give it one or more of seconds, steps, samples, epochs",
    )
    yield (
        None not in (measure.target_loss, measure.target_accuracy),
        "measure.target has both loss and accuracy: choose one",
    )
