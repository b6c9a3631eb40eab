"""What several verbs have in common: words, exit statuses, reading, concluding."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from dsgd_bench.config import naming
from dsgd_bench.config.identity import trial_id
from dsgd_bench.errors import ConfigError, LaunchError
from dsgd_bench.io import files, printing
from dsgd_bench.spec.machine import Machine

if TYPE_CHECKING:
    from dsgd_bench.report import Standing
    from dsgd_bench.spec.network import NetworkSpec
    from dsgd_bench.spec.trial import Study
    from dsgd_bench.study.runner import StudyOutcome

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a verb is added to the command line."""

FAILED, REFUSED, INVALID, MISSED, STOPPED, INTERRUPTED = 1, 2, 3, 4, 75, 130
"""Exit statuses: a trial failed; the command asks for what cannot be; a finished trial
is not valid; one did not reach its target, which is a result; the job around ends, and
the same command goes on; Ctrl-C."""


def add_study(
    verb: argparse.ArgumentParser, what: str = "study file, such as configs/smoke.toml"
) -> None:
    """Add the words that name a study and change it."""
    verb.add_argument("study", type=Path, help=what)
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one key of the study, such as study.ranks=8 (repeatable)",
    )


def add_results(verb: argparse.ArgumentParser) -> None:
    """Add the word that says where results go."""
    verb.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        help="where results go (default: results)",
    )


def add_mllog(verb: argparse.ArgumentParser) -> None:
    """Add the word that asks for lines of MLPerf's loggers."""
    verb.add_argument(
        "--mllog",
        action="store_true",
        help="also print every trial as lines of MLPerf's loggers",
    )


def add_machine(verb: argparse.ArgumentParser) -> None:
    """Add the word that names a machine file."""
    verb.add_argument("--machine", type=Path, help="machine file, see jobs/")


def read(arguments: argparse.Namespace) -> tuple["Study", Machine]:
    """Read a study and a machine file, and refuse what cannot be.

    Raises
    ------
    ConfigError
        If one of them asks for something that cannot be built.
    """
    from dsgd_bench import config
    from dsgd_bench.study import plan

    study = config.read_study(arguments.study, arguments.set)
    if getattr(arguments, "ranks", None):
        study = config.on_ranks(study, arguments.ranks)
    if getattr(arguments, "trials", None):
        study = config.listed(study, arguments.trials)
    plan.costs(study)  # refuses what cannot be built, before anything is started
    named = getattr(arguments, "machine", None)
    machine = config.read_machine(named) if named else Machine()
    plan.check_patience(study, machine)
    return study, machine


def read_measured(arguments: argparse.Namespace) -> tuple["Study", Machine]:
    """Read a study that is to run on MPI."""
    from dsgd_bench import config

    study, machine = read(arguments)
    config.check_measured(study)
    return study, machine


def conclude(outcome: "StudyOutcome", study: "Study", *, mllog: bool) -> int:
    """Write and print the report of what there is; say what failed."""
    from dsgd_bench import report
    from dsgd_bench.cli import earlier
    from dsgd_bench.study import runner

    ids = {trial_id(trial) for trial in study.trials}
    for trial, reason in outcome.failed:
        printing.complain(
            f"dsgd-bench: {naming.label(trial.algorithm)} failed: {reason}"
        )
        for line in runner.log_tail(outcome.places.of(trial)).splitlines():
            printing.complain(line)
    if outcome.elsewhere:
        printing.line(f"{outcome.elsewhere} trials are being run by another dsgd-bench")
    if outcome.stopped:
        printing.line(
            f"{len(outcome.stopped)} trials were stopped, or not started, because the "
            "job around ends: the same command goes on with them"
        )
    ended = bool(outcome.finished or outcome.skipped)
    found = report.read_report(outcome.folder) if ended else report.Report((), "")
    failed = {trial_id(trial) for trial, _ in outcome.failed}
    standing = found.standing(ids, failed, outcome.folder)
    printing.lines(earlier.sentences(outcome, standing.rows, len(ids)))
    print_for_machines(standing, mllog=mllog)
    whole = True
    if ended:
        written = found.write(outcome.folder)
        printing.lines(written.terminal().split("\n"))  # last: people read the end
        whole = written.whole
    status = _status(outcome, standing)
    printing.lines([report.sentinel(status in (0, MISSED), ids)])
    return status if whole or status not in (0, MISSED) else FAILED


def foresee_bugs(study: "Study", machine: Machine, nodes: int = 1) -> None:
    """Say which bugs of this environment's MPI library a study can meet."""
    from dsgd_bench.host import mpi_bugs
    from dsgd_bench.study import launch

    ranks = max(trial.ranks for trial in study.trials)
    try:
        variables = launch.variables(ranks, machine, sys.executable)
    except LaunchError:
        return  # a plan needs no MPI library
    for sentence in mpi_bugs.foreseen(ranks, nodes, variables):
        printing.complain(f"dsgd-bench: known bug: {sentence}")


def print_for_machines(standing: "Standing", *, mllog: bool) -> None:
    """Print what other programs read, before anything is drawn or written."""
    printing.lines(standing.lines())
    if mllog:
        printing.lines(standing.mllog())


def network(name: str, ranks: int) -> "NetworkSpec":
    """Return a preset by its name, or the network that a machine profile describes.

    Raises
    ------
    ConfigError
        If there is no such preset and no such file, or the profile does not fit.
    """
    from dsgd_bench.io import user_text
    from dsgd_bench.spec.network import PRESETS
    from dsgd_bench.spec.strict import nearest

    if name in PRESETS:
        return PRESETS[name]
    if not user_text.is_there(Path(name)):
        raise ConfigError(
            f"--profile is {name[:80]}, which is neither a file nor a network: name a "
            f"machine profile, or one of {', '.join(PRESETS)}{nearest(name, PRESETS)}"
        )
    from dsgd_bench.spec import machine_profile

    return machine_profile.read(Path(name)).network(ranks)


def check_target(option: str, path: Path | None, *, folder: bool = False) -> None:
    """Refuse a file that cannot be written, before anything is measured for it.

    Parameters
    ----------
    option : str
        By which it was named.
    path : Path or None
        The file; None is none.
    folder : bool
        Whether its folder is made.

    Raises
    ------
    ConfigError
        If it lies in no folder, cannot be written, or is no file.
    """
    if path is None:
        return
    try:
        if folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        files.check_writable(path)
    except OSError as error:
        raise ConfigError(
            f"{option} {path} cannot be written ({error.strerror}): name a file in a "
            "folder that exists and has room"
        ) from None


def _status(outcome: "StudyOutcome", standing: "Standing") -> int:
    """Return the exit status of a study, see `cli.main`."""
    if outcome.stopped:
        return STOPPED
    if outcome.failed:
        return FAILED
    if standing.invalid:
        return INVALID
    return MISSED if standing.missed else 0
