"""The verb ``list``: algorithms, problems, graphs and slowdowns there are."""

import argparse

from dsgd_bench.cli.verb_parts import Verbs


def add(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("list", help="algorithms, problems, graphs, slowdowns")
    verb.set_defaults(verb=show)


def show(arguments: argparse.Namespace) -> int:
    """Print every algorithm, problem, graph and slowdown with its settings."""
    from dsgd_bench.cli.lists_table import print_lists

    del arguments
    print_lists()
    return 0
