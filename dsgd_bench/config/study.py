"""What to run, read from TOML: study file -> trials.

A study file (``configs/``) says *what*, a machine file (``jobs/``) says *where*.
Everything wrong in them is found here, before a rank is launched, and said in one
sentence that names the file and the key.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, structs

from dsgd_bench import rng
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.config import study_keys, sweep
from dsgd_bench.config.checks import check
from dsgd_bench.config.identity import trial_id
from dsgd_bench.config.machine import load
from dsgd_bench.config.study_keys import NETWORK, SECTIONS, STUDY, home
from dsgd_bench.config.sweep import Table
from dsgd_bench.errors import ConfigError
from dsgd_bench.io import user_text
from dsgd_bench.spec import strict
from dsgd_bench.spec.network import NetworkSpec, preset
from dsgd_bench.spec.trial import (
    AlgorithmSpec,
    BudgetSpec,
    ComputeSpec,
    MeasureSpec,
    OptimizerSpec,
    ProblemSpec,
    ScheduleSpec,
    ShardsSpec,
    SlowdownSpec,
    Study,
    Trial,
)

__all__ = [
    "AlgorithmSpec",
    "BudgetSpec",
    "ComputeSpec",
    "MeasureSpec",
    "OptimizerSpec",
    "ProblemSpec",
    "ScheduleSpec",
    "ShardsSpec",
    "SlowdownSpec",
    "Study",
    "Trial",
    "check",
    "read_study",
]


class Exclusion(Struct, frozen=True, forbid_unknown_fields=True):
    """Trials that a study leaves out: those that have all the values of `when`."""

    when: dict[str, Any]
    reason: Annotated[str, Meta(min_length=1)]

    def covers(self, values: dict[str, Any]) -> bool:
        """Say whether a trial with these flat values is left out."""
        return all(
            name in values and values[name] in wanted
            for name, wanted in self.when.items()
        )


def read_study(path: str | PathLike[str], overrides: Sequence[str] = ()) -> Study:
    """Read a study file and expand it into trials.

    Parameters
    ----------
    path : path-like
        A TOML file.
    overrides : sequence of str
        Changes made first, each as TOML: ``"optimizer.lr=[0.1, 0.2]"``.

    Raises
    ------
    ConfigError
        In one sentence, if the file cannot be read, has an unknown key, a wrong value
        or an impossible combination, or leaves no trial.
    """
    path = Path(path)
    try:
        table = sweep.override(load(path), overrides)
        trials, excluded, seed = _trials(table)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    order = rng.generator(seed, "order").permutation(len(trials))
    shuffled = tuple(trials[i] for i in order)
    return Study(path.stem, path, shuffled, tuple(excluded))


def on_ranks(study: Study, ranks: Sequence[int]) -> Study:
    """Return the study with only its trials on one of these numbers of ranks.

    Raises
    ------
    ConfigError
        If it has none.
    """
    kept = tuple(trial for trial in study.trials if trial.ranks in ranks)
    if not kept:
        known = ", ".join(map(str, sorted({trial.ranks for trial in study.trials})))
        asked = " or ".join(map(str, ranks))
        raise ConfigError(
            f"{study.path}: there is no trial on {asked} ranks: choose from {known}"
        )
    return structs.replace(study, trials=kept)


def listed(study: Study, path: Path) -> Study:
    """Return the study with only the trials whose ids begin the lines of a file.

    Raises
    ------
    ConfigError
        If the file cannot be read, or lists no trial of the study.
    """
    try:
        lines = user_text.read(path).splitlines()
    except ConfigError as error:
        raise ConfigError(f"the list of trials {path} {error}") from None
    ids = {line.partition(" ")[0] for line in lines}
    kept = tuple(trial for trial in study.trials if trial_id(trial) in ids)
    if not kept:
        raise ConfigError(
            f"{path} lists no trial of {study.path}: the study, or this program, has "
            "changed since; submit it again"
        )
    return structs.replace(study, trials=kept)


def over(study: Study, network: Callable[[Trial], NetworkSpec]) -> Study:
    """Return the study with every trial simulated, over the network that it is given.

    Raises
    ------
    ConfigError
        If a trial cannot be simulated, or the network not be made.
    """

    def simulated(trial: Trial) -> Trial:
        trial = structs.replace(trial, network=network(trial))
        check(trial)
        return trial

    try:
        trials = tuple(map(simulated, study.trials))
    except ConfigError as error:
        raise ConfigError(f"{study.path}: {error}") from None
    return structs.replace(study, trials=trials)


def check_measured(study: Study) -> None:
    """Refuse a study whose trials are to be simulated.

    Raises
    ------
    ConfigError
        If one of them has a network.
    """
    if any(trial.network is not None for trial in study.trials):
        raise ConfigError(
            f"{study.path}: its trials have a [network], so they are not run but "
            "simulated: use dsgd-bench simulate, or leave the table out"
        )


def _trials(table: Table) -> tuple[list[Trial], list[tuple[Trial, str]], int]:
    """Return the trials, those left out with the reason, and the study's seed."""
    table = dict(table)
    exclusions = _exclusions(table.pop("exclude", []))
    for name in table:
        tables = (*SECTIONS, NETWORK, "exclude")
        strict.choose(name, tables, f"the table {name}")
    for name in ("study", "problem", "algorithm"):
        if name not in table:
            raise ConfigError(f"the table {name} is missing: add [{name}]")
    head = strict.read_table(table["study"], STUDY, "study", home=home)
    table["study"] = {key: head[key] for key in ("ranks", "budget")}
    kept: dict[str, Trial] = {}
    left_out: dict[str, tuple[Trial, str]] = {}
    for single in _combinations(table, head["zip"], head["repeats"]):
        first, checked = _trial(single, repeat=0, seed=head["seed"]), False
        for repeat in range(head["repeats"]):
            trial = structs.replace(first, repeat=repeat, seed=head["seed"] + repeat)
            values = trial.flat() if exclusions else {}
            reasons = [e.reason for e in exclusions if e.covers(values)]
            if reasons:
                left_out[trial_id(trial)] = (trial, reasons[0])
                continue
            if not checked:  # what is checked is the same for all repeats
                check(trial)
                checked = True
            kept[trial_id(trial)] = trial
    if not kept:
        raise ConfigError("exclude leaves no trial: let it match fewer")
    return list(kept.values()), list(left_out.values()), head["seed"]


def _exclusions(tables: Any) -> list[Exclusion]:
    """Read [[exclude]]; every value of `when` becomes the tuple of those it may be."""
    if not isinstance(tables, list):
        raise ConfigError("exclude must be a list of tables: write [[exclude]]")
    known = study_keys.known()
    found = []
    for table in tables:
        read = strict.read_table(table, strict.keys_of(Exclusion), "exclude")
        when = {}
        for path, value in sweep.leaves(read["when"]):
            name = ".".join(path).removeprefix("study.")
            strict.choose(name, known, f"exclude.when: the key {name}")
            type_ = known[name][0]
            several = sweep.is_swept(value, strict.is_list(type_))
            when[name] = tuple(
                strict.read_value(item, type_, f"exclude.when: {name}")
                for item in (value if several else [value])
            )
        found.append(Exclusion(when, read["reason"]))
    return found


def _combinations(
    table: Table, zips: Sequence[Sequence[str]], repeats: int
) -> Iterator[Table]:
    """Yield a table without lists of alternatives or swept keys for each trial."""
    groups = [[_path(name) for name in names] for names in zips]
    sweep.check_count(sweep.how_many(table), "its lists of tables")
    choices = [_with_own_optimizer(choice) for choice in sweep.alternatives(table)]
    swept = [sweep.axes(choice, _takes_list) for choice in choices]
    sweep.check_zips(groups, {path for axes in swept for path in axes})
    columns = [sweep.columns(axes, groups) for axes in swept]
    counted = sum(math.prod(map(len, each)) for each in columns)
    names = sorted({".".join(path) for axes in swept for path in axes})
    sources = [*names[:8], *["..."][: len(names) > 8], f"study.repeats = {repeats}"]
    sweep.check_count(counted * repeats, ", ".join(sources))
    for choice, each in zip(choices, columns, strict=True):
        yield from sweep.expand(choice, each)


def _path(name: str) -> sweep.Path:
    """Return where a value lies in the file; ``study.`` may be left out."""
    path = tuple(name.split("."))
    return ("study", *path) if path[0] in ("ranks", "budget") else path


def _takes_list(path: sweep.Path, table: Table) -> bool:
    """Say whether the key at `path` has a list as its value."""
    section = table[path[0]]
    sections = (*SECTIONS, NETWORK)
    if path[0] not in sections or not isinstance(section, dict):
        return False
    kind = section.get("kind")
    keys = study_keys.keys(path[0], kind if isinstance(kind, list) else [kind])
    for key in path[1:-1]:
        if key not in keys or not strict.is_struct(keys[key][0]):
            return False
        keys = strict.keys_of(keys[key][0])
    return path[-1] in keys and strict.is_list(keys[path[-1]][0])


def _with_own_optimizer(table: Table) -> Table:
    """Return the table with what the algorithm says of the optimizer laid over it."""
    algorithm = table["algorithm"]
    if not isinstance(algorithm, dict) or "optimizer" not in algorithm:
        return table
    general, own = table.get("optimizer", {}), algorithm["optimizer"]
    for name, value in (("optimizer", general), ("algorithm.optimizer", own)):
        if not isinstance(value, dict):
            raise ConfigError(f"{name} is {strict.show(value)} but must be a table")
    algorithm = {key: algorithm[key] for key in algorithm if key != "optimizer"}
    return {**table, "algorithm": algorithm, "optimizer": {**general, **own}}


def _trial(table: Table, *, repeat: int, seed: int) -> Trial:
    """Read one table into one trial; every value strict, every default filled in."""
    values = {name: _section(name, table.get(name, {})) for name in SECTIONS}
    slowdown = table.get("slowdown", {})
    if slowdown.get("kind", "none") != "none" and "factor" not in slowdown:
        raise ConfigError("the key slowdown.factor is missing: say how many times")
    del values["algorithm"]["optimizer"]
    target = values["measure"]["target"]
    return Trial(
        **values["study"],
        seed=seed,
        repeat=repeat,
        algorithm=_algorithm(values["algorithm"]),
        problem=_with_settings(ProblemSpec, values["problem"]),
        measure=MeasureSpec(target.loss, target.accuracy, values["measure"]["copies"]),
        optimizer=OptimizerSpec(**values["optimizer"]),
        compute=ComputeSpec(**values["compute"]),
        slowdown=SlowdownSpec(**values["slowdown"]),
        network=_network(table[NETWORK]) if NETWORK in table else None,
    )


def _algorithm(values: dict[str, Any]) -> AlgorithmSpec:
    """Return the algorithm with its settings and the rule that it has now."""
    spec: AlgorithmSpec = _with_settings(AlgorithmSpec, values)
    return structs.replace(spec, rule=ALGORITHMS[spec.kind].rule)


def _network(table: Any) -> NetworkSpec:
    """Read a network: what the table says, laid over the preset that it names."""
    if isinstance(table, dict) and "preset" in table:
        name = strict.read_value(table["preset"], str, "network.preset")
        base = msgspec.to_builtins(preset(name))
        given = {key: value for key, value in table.items() if key != "preset"}
        table = sweep.merged(base, given)
    keys = strict.keys_of(NetworkSpec)
    return NetworkSpec(**strict.read_table(table, keys, NETWORK))


def _section(name: str, table: Any) -> dict[str, Any]:
    """Read one table of a trial."""
    if name not in ("problem", "algorithm") or not isinstance(table, dict):
        return strict.read_table(table, study_keys.keys(name, []), name, home=home)
    given = {key: table[key] for key in table if key == "kind"}
    kind = strict.read_table(given, {"kind": study_keys.keys(name, [])["kind"]}, name)[
        "kind"
    ]
    if name == "algorithm":
        _refuse_former(kind, table)
    return strict.read_table(
        table, study_keys.keys(name, [kind]), name, kind=kind, home=home
    )


def _with_settings(struct: type[Any], values: dict[str, Any]) -> Any:
    """Return a struct; what is no field of it goes into its settings."""
    fields = strict.keys_of(struct)
    settings = {key: value for key, value in values.items() if key not in fields}
    own = {key: value for key, value in values.items() if key in fields}
    return struct(**own, settings=settings)


def _refuse_former(kind: str, table: Table) -> None:
    """Refuse a setting that an earlier version had, with what it is called today."""
    for key, convert in ALGORITHMS[kind].former_settings.items():
        if key in table:
            now = convert(table[key])
            said = ", ".join(f"{name} = {strict.show(now[name])}" for name in now)
            raise ConfigError(
                f"algorithm.{key} is a setting of {kind} no more: instead of {key} = "
                f"{strict.show(table[key])} write {said}"
            )
