"""The command ``dsgd-bench``: each verb parses its words, then calls one function."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from dsgd_bench import __version__, surroundings
from dsgd_bench.errors import DsgdError

if TYPE_CHECKING:
    from dsgd_bench.runner import Outcome
    from dsgd_bench.specs import Machine, Study

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
"""Exit statuses: a trial failed; the command asks for what cannot be; Ctrl-C."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status.

    0: all is well; 1: a trial failed; 2: the command, a study or a machine file asks
    for something that cannot be; 130: interrupted.
    """
    arguments = parser().parse_args(words)
    try:
        return int(arguments.verb(arguments))
    except DsgdError as error:
        print(f"dsgd-bench: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("dsgd-bench: interrupted; finished trials are kept", file=sys.stderr)
        return INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    top = argparse.ArgumentParser(
        prog="dsgd-bench",
        description="Which distributed SGD algorithm reaches the target first on this "
        "cluster, and why?",
    )
    top.add_argument("--version", action="version", version=__version__)
    verbs = top.add_subparsers(required=True, metavar="VERB")
    for add in (_run, _plan, _report, _list, _data, _doctor, _bench, *_ON_RANKS):
        add(verbs)
    return top


Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _study(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("study", type=Path, help="study file, such as configs/smoke.toml")
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one key of the study, such as study.ranks=8 (repeatable)",
    )


def _machine(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--machine", type=Path, help="machine file, see jobs/")


def _run(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "run", help="run a study, skipping what is finished, and report"
    )
    _study(verb)
    _machine(verb)
    verb.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        help="where results go (default: results)",
    )
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Run a study, here or on the ranks of the MPI job around us, and report."""
    if surroundings.started_ranks() is not None:
        surroundings.limit_threads()
        return _run_in_job(arguments)
    from dsgd_bench import runner
    from dsgd_bench.display import study_display

    study, machine = _read(arguments)
    with study_display(study) as display:
        outcome = runner.run_study(study, machine, arguments.results, display)
    return _conclude(outcome)


def _read(arguments: argparse.Namespace) -> "tuple[Study, Machine]":
    from dsgd_bench import config, plan

    study = config.read_study(arguments.study, arguments.set)
    plan.costs(study)  # refuses what cannot be built, before anything is started
    named = getattr(arguments, "machine", None)
    return study, config.read_machine(named) if named else config.Machine()


def _run_in_job(arguments: argparse.Namespace) -> int:
    from dsgd_bench import rank, runner
    from dsgd_bench.display import study_display

    rank.prepare_process()
    fabric = rank.connect()
    status = 0
    try:
        study, machine = _read(arguments)
        with study_display(study, silent=fabric.rank > 0) as display:
            outcome = runner.run_study_here(
                study, machine, arguments.results, display, fabric
            )
        if fabric.rank == 0:
            status = _conclude(outcome)
    except Exception as error:  # noqa: BLE001 - the others would wait forever
        rank.end_all(fabric, error)
    fabric.close()
    return status


def _conclude(outcome: "Outcome") -> int:
    """Write and print the report of what there is; say what failed."""
    from dsgd_bench import report, runner

    for trial, reason in outcome.failed:
        print(f"dsgd-bench: {trial.label} failed: {reason}", file=sys.stderr)
        print(runner.log_tail(outcome.folder / trial.id), file=sys.stderr)
    if outcome.elsewhere:
        print(f"{outcome.elsewhere} trials are being run by another dsgd-bench")
    if outcome.finished or outcome.skipped:
        print(report.write_report(outcome.folder).terminal())
    return FAILED if outcome.failed else 0


def _plan(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "plan", help="trials, memory, traffic and duration of a study; runs nothing"
    )
    _study(verb)
    verb.set_defaults(verb=plan)


def plan(arguments: argparse.Namespace) -> int:
    """Print what a study would cost."""
    from dsgd_bench.display import print_plan

    study, _ = _read(arguments)
    print_plan(study)
    return 0


def _report(verbs: Verbs) -> None:
    verb = verbs.add_parser("report", help="tables, figures and a page from results")
    verb.add_argument("results", type=Path, help="folder, such as results/smoke")
    verb.add_argument("--out", type=Path, help="where to write (default: there)")
    verb.set_defaults(verb=report)


def report(arguments: argparse.Namespace) -> int:
    """Write the report of a results folder and print its table."""
    from dsgd_bench.report import write_report

    print(write_report(arguments.results, arguments.out).terminal())
    return 0


def _list(verbs: Verbs) -> None:
    verb = verbs.add_parser("list", help="algorithms, problems and graphs there are")
    verb.set_defaults(verb=list_)


def list_(arguments: argparse.Namespace) -> int:
    """Print every algorithm, problem and graph with its settings."""
    from dsgd_bench.display import print_lists

    del arguments
    print_lists()
    return 0


def _data(verbs: Verbs) -> None:
    verb = verbs.add_parser("data", help="fetch published data sets, or list them")
    actions = verb.add_subparsers(required=True, metavar="ACTION")
    fetch = actions.add_parser("fetch", help="download what is missing of a data set")
    fetch.add_argument("name", help="such as mnist; data list shows all")
    fetch.set_defaults(verb=data_fetch)
    shown = actions.add_parser("list", help="data sets, and whether they are intact")
    shown.set_defaults(verb=data_list)
    for action in (fetch, shown):
        action.add_argument(
            "--folder",
            type=Path,
            default=Path("data"),
            help="where data sets lie, the problem setting folder (default: data)",
        )


def data_fetch(arguments: argparse.Namespace) -> int:
    """Download a data set; ranks never do this."""
    from dsgd_bench.display import download_display
    from dsgd_bench.problems import catalog, fetch

    data_set = catalog.find(arguments.name)
    with download_display() as watch:
        fetch.fetch(data_set, arguments.folder, watch)
    print(f"{data_set.name} is complete in {data_set.place(arguments.folder)}")
    return 0


def data_list(arguments: argparse.Namespace) -> int:
    """Print every data set that can be fetched, and whether it is there and intact."""
    from dsgd_bench.display import print_data_sets

    print_data_sets(arguments.folder)
    return 0


def _doctor(verbs: Verbs) -> None:
    verb = verbs.add_parser("doctor", help="look at MPI, launcher, cores and HDF5")
    verb.add_argument("-n", "--ranks", type=int, default=2, help="ranks (default: 2)")
    _machine(verb)
    verb.set_defaults(verb=doctor)


def doctor(arguments: argparse.Namespace) -> int:
    """Examine this machine; status 1 if something is bad."""
    from dsgd_bench import config, doctor
    from dsgd_bench.display import print_findings

    named = arguments.machine
    machine = config.read_machine(named) if named else config.Machine()
    findings = doctor.examine(machine, arguments.ranks)
    print_findings(findings)
    return FAILED if any(f.verdict == doctor.BAD for f in findings) else 0


def _bench(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "bench",
        help="time the suite itself, as OSU times MPI; bench NAME -h tells more",
    )
    verb.add_argument("name", choices=("average", "recording"))
    verb.add_argument("words", nargs=argparse.REMAINDER, metavar="...")
    verb.set_defaults(verb=bench)


def bench(arguments: argparse.Namespace) -> int:
    """Run one benchmark of the suite itself on ranks of its own."""
    from dsgd_bench import config, rank
    from dsgd_bench.bench import BENCHMARKS

    options = BENCHMARKS[arguments.name].options.from_argv(arguments.words)
    words = ["bench-rank", arguments.name, *arguments.words]
    return rank.start(config.Machine(), options.ranks, words, print)


def _worker(verbs: Verbs) -> None:
    verb = verbs.add_parser("worker", help="be one rank of a trial (used by run)")
    verb.add_argument("job", type=Path)
    verb.set_defaults(verb=worker)


def worker(arguments: argparse.Namespace) -> int:
    """Be one rank of a trial."""
    from dsgd_bench import rank

    return rank.main(arguments.job)


def _doctor_rank(verbs: Verbs) -> None:
    verb = verbs.add_parser("doctor-rank", help="be one rank for doctor")
    verb.add_argument("ranks", type=int)
    verb.add_argument("mode")
    verb.set_defaults(verb=doctor_rank)


def doctor_rank(arguments: argparse.Namespace) -> int:
    """Be one rank of the doctor's job."""
    from dsgd_bench import doctor

    return doctor.on_rank(arguments.ranks, arguments.mode)


def _bench_rank(verbs: Verbs) -> None:
    verb = verbs.add_parser("bench-rank", help="be one rank for bench")
    verb.add_argument("name")
    verb.add_argument("words", nargs=argparse.REMAINDER)
    verb.set_defaults(verb=bench_rank)


def bench_rank(arguments: argparse.Namespace) -> int:
    """Be one rank of a benchmark."""
    from dsgd_bench import rank
    from dsgd_bench.bench import BENCHMARKS

    rank.prepare_process()
    benchmark = BENCHMARKS[arguments.name]
    options = benchmark.options.from_argv(arguments.words)
    fabric = rank.connect(options.ranks)
    benchmark.rank(fabric, options)
    fabric.close()
    return 0


_ON_RANKS = (_worker, _doctor_rank, _bench_rank)
