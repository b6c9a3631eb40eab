"""The verb ``status``: how far a study is, and its jobs."""

import argparse

from dsgd_bench.cli.verb_parts import Verbs, add_results, add_study


def add(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("status", help="how far a study is, and its jobs")
    add_study(verb, "its folder, such as results/smoke, or its file")
    add_results(verb)
    verb.set_defaults(verb=status)


def status(arguments: argparse.Namespace) -> int:
    """Print how many trials are finished, failed, running, queued or missing."""
    from dsgd_bench import config
    from dsgd_bench.batch.slurm.status import look
    from dsgd_bench.cli.status_table import print_status

    if arguments.study.is_dir():
        print_status(look(arguments.study))
    else:
        study = config.read_study(arguments.study, arguments.set)
        print_status(look(arguments.results / study.name, study))
    return 0
