"""The verb ``run``: a study, here or on the ranks of the job around."""

import argparse
from pathlib import Path

from dsgd_bench.bench import flags
from dsgd_bench.cli.verb_parts import (
    Verbs,
    add_machine,
    add_mllog,
    add_results,
    add_study,
    conclude,
    read_measured,
)
from dsgd_bench.host import environment


def add(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser(
        "run", help="run a study, skipping what is finished, and report"
    )
    add_study(verb)
    add_machine(verb)
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

    study, machine = read_measured(arguments)
    with study_display(study) as display:
        outcome = runner.run_study(study, machine, arguments.results, display)
    return conclude(outcome, study, mllog=arguments.mllog)


def _run_in_job(arguments: argparse.Namespace) -> int:
    from dsgd_bench.cli.display import study_display
    from dsgd_bench.study import inside_job, rank_process

    rank_process.prepare_process()
    fabric = rank_process.meet()
    status = 0
    try:
        study, machine = read_measured(arguments)
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
