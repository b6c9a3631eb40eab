"""The verb ``simulate``: a study in virtual time, in this process."""

import argparse
import json
from typing import TYPE_CHECKING

from dsgd_bench.bench import flags
from dsgd_bench.cli.verb_parts import (
    Verbs,
    add_mllog,
    add_results,
    add_study,
    conclude,
    network,
)
from dsgd_bench.host import environment
from dsgd_bench.io import printing
from dsgd_bench.io.trial_folder import TRACE

if TYPE_CHECKING:
    from dsgd_bench.spec.network import NetworkSpec
    from dsgd_bench.spec.trial import Study, Trial

DEFAULT = "ethernet-10"
"""The network of a study that names none."""


def _ranks(text: str) -> list[int]:
    """Return the numbers in a word such as "128,1024,10000"."""
    return [flags.ranks(word) for word in text.split(",")]


def add(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser(
        "simulate",
        help="run a study in virtual time, thousands of ranks in this process",
    )
    add_study(verb)
    add_results(verb)
    verb.add_argument(
        "--profile",
        metavar="P",
        help="network of a study without [network]: a preset's name or a machine "
        f"profile that probe has written (default: {DEFAULT})",
    )
    verb.add_argument(
        "--ranks",
        type=_ranks,
        metavar="N,N,...",
        help="simulate these numbers of ranks instead of the study's",
    )
    verb.add_argument(
        "--compute-from",
        metavar="TRACE",
        help=f"draw gradient times from those in this {TRACE} of a real run",
    )
    verb.add_argument(
        "--seed",
        metavar="S",
        help="seed of the schedule: another one is another interleaving",
    )
    verb.add_argument(
        "--dry-run", action="store_true", help="print the plan; simulate nothing"
    )
    add_mllog(verb)
    verb.set_defaults(verb=simulate)


def simulate(arguments: argparse.Namespace) -> int:
    """Simulate a study in this process, skipping what is finished, and report."""
    environment.limit_threads()
    from dsgd_bench.cli.display import study_display
    from dsgd_bench.cli.plan_table import print_plan
    from dsgd_bench.study import plan, simulation

    study = _read(arguments)
    costs = plan.costs(study)  # refuses what cannot be built
    if arguments.dry_run:
        print_plan(study)
        return 0
    plan.check_memory(costs)
    with study_display(study) as display:
        outcome = simulation.simulate_study(study, arguments.results, display)
    return conclude(outcome, study, mllog=arguments.mllog)


def _read(arguments: argparse.Namespace) -> "Study":
    """Read the study with all that the words say laid over it."""
    from dsgd_bench import config
    from dsgd_bench.errors import ConfigError

    try:
        seed = None if arguments.seed is None else flags.seed(arguments.seed)
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"--seed: {error}") from None
    changes = list(arguments.set)
    if arguments.ranks:
        changes.append(f"study.ranks={arguments.ranks}")
    if arguments.compute_from:
        changes.append(_resampled(arguments.compute_from))
    study = config.read_study(arguments.study, changes)
    if all(trial.network is None for trial in study.trials):
        if arguments.profile is None:
            printing.line(
                f"no network is given: every trial is simulated over {DEFAULT}"
            )
        name = arguments.profile or DEFAULT
        study = config.over(study, lambda trial: network(name, trial.ranks))
    elif arguments.profile is not None:
        raise ConfigError(
            f"{arguments.study}: it has a [network] of its own: leave out --profile, "
            "or change the network with --set network.KEY=VALUE"
        )
    if seed is not None:
        study = config.over(study, lambda trial: _seeded(trial, seed))
    return study


def _seeded(trial: "Trial", seed: int) -> "NetworkSpec":
    """Return the network of a trial with another schedule."""
    from msgspec import structs

    from dsgd_bench.spec.network import NetworkSpec

    return structs.replace(trial.network or NetworkSpec(), seed=seed)


def _resampled(path: str) -> str:
    """Return the change to a study by which gradient times come from a trace."""
    values = {"mode": "resampled", "trace": path, "distribution": "constant"}
    words = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    return f"compute={{{', '.join([*words, 'seconds=0.0', 'variation=0.0'])}}}"
