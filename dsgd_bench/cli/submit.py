"""The verb ``submit``: what is missing of a study, as jobs."""

import argparse
from pathlib import Path

from dsgd_bench.cli.verb_parts import (
    Verbs,
    add_results,
    add_study,
    foresee_bugs,
    read_measured,
)


def add(verbs: Verbs) -> None:
    """Add the verb to the command line."""
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
    from dsgd_bench.cli import submit_table

    study, machine = read_measured(arguments)
    changes, results = tuple(arguments.set), arguments.results.resolve()
    order = Order(study, changes, machine, arguments.machine, results)
    foresee_bugs(study, machine, order.most_nodes)
    act = submit_table.dry_run if arguments.dry_run else submit_table.submit
    act(order, failed=arguments.failed)
    return 0
