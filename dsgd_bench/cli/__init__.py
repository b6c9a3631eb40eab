"""The command ``dsgd-bench``: each verb parses its words, then calls one function."""

import argparse
import errno
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from dsgd_bench import __version__
from dsgd_bench.bench import flags
from dsgd_bench.cli.rank_verbs import ON_RANKS, Verbs
from dsgd_bench.cli.verb_parts import (
    FAILED,
    INTERRUPTED,
    REFUSED,
    add_mllog,
    add_results,
    add_study,
    check_target,
    conclude,
    print_for_machines,
)
from dsgd_bench.cli.virtual_verbs import VIRTUAL
from dsgd_bench.errors import DsgdError, LaunchError
from dsgd_bench.host import environment
from dsgd_bench.io import printing
from dsgd_bench.io.escape import plain
from dsgd_bench.spec.machine import Machine

if TYPE_CHECKING:
    from dsgd_bench.spec.trial import Study

UNPRINTED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""Why standard output may fail: no room for it, or no place."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status.

    0: all is well; 1: a trial failed, or what is to be printed or written cannot be
    (nobody reads it, the disk is full); 2: the command,
    a study or a machine file asks for something that cannot be; 3: a finished trial
    failed verification; 4: a trial did not reach its target; 75: stopped before the
    end of the job around, to go on later; 130: interrupted. Of several the first in the
    order 130, 2, 75, 1, 3, 4.
    """
    printing.prepare()
    try:
        arguments = parser().parse_args(words)
        environment.check_working_folder()
        status = int(arguments.verb(arguments))
        printing.flush()  # else what is written at the end fails where none sees it
        return status
    except DsgdError as error:
        printing.complain(f"dsgd-bench: {error}")
        return REFUSED
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to interrupt
        printing.complain("dsgd-bench: interrupted; finished trials are kept")
        return INTERRUPTED
    except BrokenPipeError:  # who reads, such as head, has seen enough
        printing.silence(sys.stdout)
        return FAILED
    except OSError as error:
        return _refused_by_system(error)


def _refused_by_system(error: OSError) -> int:
    """Say what the operating system did not do: print, or what is not foreseen."""
    said = error.strerror or str(error)
    if error.filename is not None:
        said = f"{error.filename}: {said}"
    elif error.errno in UNPRINTED:
        printing.silence(sys.stdout)
        said = (
            f"what it prints cannot be written ({said}): make room, or print elsewhere"
        )
    printing.complain(f"dsgd-bench: {said}")
    return FAILED


class _Parser(argparse.ArgumentParser):
    """Shows words that it does not understand without what they may do to a screen."""

    def error(self, message: str) -> NoReturn:
        super().error(plain(message))


def parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    top: argparse.ArgumentParser = _Parser(
        prog="dsgd-bench",
        description="Which distributed SGD algorithm reaches the target first on this "
        "cluster, and why?",
    )
    top.add_argument("--version", action="version", version=__version__)
    verbs = top.add_subparsers(required=True, metavar="VERB")
    for add in (
        _run,
        *VIRTUAL,
        _plan,
        _submit,
        _state,
        _report,
        _list,
        _data,
        _doctor,
        _bench,
        *ON_RANKS,
    ):
        add(verbs)
    return top


def _machine(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--machine", type=Path, help="machine file, see jobs/")


def _run(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "run", help="run a study, skipping what is finished, and report"
    )
    add_study(verb)
    _machine(verb)
    add_results(verb)
    verb.add_argument(
        "--ranks",
        type=flags.ranks,
        action="append",
        metavar="N",
        help="run only the trials on N ranks (repeatable)",
    )
    verb.add_argument(
        "--trials",
        type=Path,
        metavar="FILE",
        help="run only the trials whose ids begin the lines of FILE",
    )
    add_mllog(verb)
    verb.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Run a study, here or on the ranks of the MPI job around us, and report."""
    environment.check_numbers()
    if environment.started_ranks() is not None:
        environment.limit_threads()
        return _run_in_job(arguments)
    from dsgd_bench.cli.display import study_display
    from dsgd_bench.study import runner

    study, machine = _read_measured(arguments)
    with study_display(study) as display:
        outcome = runner.run_study(study, machine, arguments.results, display)
    return conclude(outcome, study, mllog=arguments.mllog)


def _read(arguments: argparse.Namespace) -> "tuple[Study, Machine]":
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


def _read_measured(arguments: argparse.Namespace) -> "tuple[Study, Machine]":
    """Read a study that is to run on MPI."""
    from dsgd_bench import config

    study, machine = _read(arguments)
    config.check_measured(study)
    return study, machine


def _run_in_job(arguments: argparse.Namespace) -> int:
    from dsgd_bench.cli.display import study_display
    from dsgd_bench.study import inside_job, rank_process

    rank_process.prepare_process()
    fabric = rank_process.meet()
    status = 0
    try:
        study, machine = _read_measured(arguments)
        with study_display(study, silent=fabric.rank > 0) as display:
            outcome = inside_job.run_study_here(
                study, machine, arguments.results, display, fabric
            )
        with rank_process.busy(fabric):  # figures of many trials may take their time
            if fabric.rank == 0:
                status = conclude(outcome, study, mllog=arguments.mllog)
            fabric.barrier()
    except Exception as error:  # noqa: BLE001 - the others would wait forever
        rank_process.end_all(fabric, error)
    rank_process.leave(fabric)
    return status


def _submit(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "submit", help="send what is missing of a study to Slurm as jobs"
    )
    add_study(verb)
    verb.add_argument(
        "--machine", type=Path, required=True, help="machine file with [slurm]"
    )
    add_results(verb)
    verb.add_argument(
        "--dry-run", action="store_true", help="print the scripts; send nothing"
    )
    verb.add_argument(
        "--failed", action="store_true", help="send only the trials that failed"
    )
    verb.set_defaults(verb=submit)


def submit(arguments: argparse.Namespace) -> int:
    """Send what is missing of a study to the batch system, or show what that is."""
    from dsgd_bench.batch.slurm.groups import Order
    from dsgd_bench.cli import cluster

    study, machine = _read_measured(arguments)
    changes, results = tuple(arguments.set), arguments.results.resolve()
    order = Order(study, changes, machine, arguments.machine, results)
    _foresee_bugs(study, machine, order.most_nodes)
    act = cluster.rehearse if arguments.dry_run else cluster.submit
    act(order, failed=arguments.failed)
    return 0


def _state(verbs: Verbs) -> None:
    verb = verbs.add_parser("status", help="how far a study is, and its jobs")
    add_study(verb, "its folder, such as results/smoke, or its file")
    add_results(verb)
    verb.set_defaults(verb=status)


def status(arguments: argparse.Namespace) -> int:
    """Print how many trials are finished, failed, running, queued or missing."""
    from dsgd_bench import config
    from dsgd_bench.cli import cluster

    if arguments.study.is_dir():
        cluster.status(arguments.study)
    else:
        study = config.read_study(arguments.study, arguments.set)
        cluster.status(arguments.results / study.name, study)
    return 0


def _plan(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "plan", help="trials, memory, traffic and duration of a study; runs nothing"
    )
    add_study(verb)
    _machine(verb)
    verb.set_defaults(verb=plan)


def plan(arguments: argparse.Namespace) -> int:
    """Print what a study would cost."""
    from dsgd_bench.cli.display import print_plan
    from dsgd_bench.study.plan import lacks

    study, machine = _read(arguments)
    print_plan(study)
    _foresee_bugs(study, machine)
    for sentence in lacks(study, machine):
        printing.complain(f"dsgd-bench: {sentence}")
    return 0


def _foresee_bugs(study: "Study", machine: "Machine", nodes: int = 1) -> None:
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


def _report(verbs: Verbs) -> None:
    verb = verbs.add_parser("report", help="tables, figures and a page from results")
    verb.add_argument(
        "results", type=Path, nargs="+", help="folders, such as results/smoke"
    )
    verb.add_argument(
        "--out", type=Path, help="where to write (default: the first of them)"
    )
    add_mllog(verb)
    verb.set_defaults(verb=report)


def report(arguments: argparse.Namespace) -> int:
    """Print the tables of results folders, and write their report."""
    from dsgd_bench.report import read_report

    found = read_report(*arguments.results)
    standing = found.standing()
    print_for_machines(standing, mllog=arguments.mllog)
    written = found.write(arguments.out or arguments.results[0])
    printing.lines([*written.terminal().split("\n"), standing.sentinel()])
    return 0 if written.whole else FAILED


def _list(verbs: Verbs) -> None:
    verb = verbs.add_parser("list", help="algorithms, problems and graphs there are")
    verb.set_defaults(verb=list_)


def list_(arguments: argparse.Namespace) -> int:
    """Print every algorithm, problem and graph with its settings."""
    from dsgd_bench.cli.display import print_lists

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
    from dsgd_bench.cli.display import download_display
    from dsgd_bench.problems import catalog, fetch

    data_set = catalog.find(arguments.name)
    with download_display() as watch:
        fetch.fetch(data_set, arguments.folder, watch)
    printing.line(f"{data_set.name} is complete in {data_set.where(arguments.folder)}")
    return 0


def data_list(arguments: argparse.Namespace) -> int:
    """Print every data set that can be fetched, and whether it is there and intact."""
    from dsgd_bench.cli.display import print_data_sets

    print_data_sets(arguments.folder)
    return 0


def _doctor(verbs: Verbs) -> None:
    verb = verbs.add_parser("doctor", help="look at MPI, launcher, cores and HDF5")
    verb.add_argument(
        "-n", "--ranks", type=flags.ranks, default=2, help="ranks (default: 2)"
    )
    _machine(verb)
    verb.set_defaults(verb=doctor)


def doctor(arguments: argparse.Namespace) -> int:
    """Examine this machine; status 1 if something is bad."""
    from dsgd_bench import config
    from dsgd_bench.cli.display import print_findings
    from dsgd_bench.study import doctor

    named = arguments.machine
    machine = config.read_machine(named) if named else Machine()
    findings = doctor.examine(machine, arguments.ranks)
    print_findings(findings)
    return FAILED if any(f.verdict == doctor.BAD for f in findings) else 0


def _bench(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "bench",
        help="time the suite itself, as OSU times MPI; bench NAME -h tells more",
    )
    verb.add_argument(
        "name",
        choices=(
            "average",
            "kernels",
            "problems",
            "recording",
            "simulator",
            "transports",
        ),
    )
    verb.add_argument("words", nargs=argparse.REMAINDER, metavar="...")
    verb.set_defaults(verb=bench)


def bench(arguments: argparse.Namespace) -> int:
    """Run one benchmark of the suite itself on ranks of its own."""
    from dsgd_bench.bench.table import BENCHMARKS
    from dsgd_bench.study import rank_process

    options = BENCHMARKS[arguments.name].options.from_argv(arguments.words)
    check_target("--json", getattr(options, "json", None))
    words = ["bench-rank", arguments.name, *arguments.words]
    machine = Machine(threads_per_rank=getattr(options, "threads", 1))
    return rank_process.start(machine, options.ranks, words, printing.line)
