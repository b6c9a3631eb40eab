"""The verb ``report``: tables, figures and a page from results."""

import argparse
from pathlib import Path

from dsgd_bench.cli.verb_parts import FAILED, Verbs, add_mllog, print_for_machines
from dsgd_bench.io import printing


def add(verbs: Verbs) -> None:
    """Add the verb to the command line."""
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
