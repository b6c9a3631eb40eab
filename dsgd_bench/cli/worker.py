"""The verb ``worker``: one rank of a trial, started by ``run``."""

import argparse
from pathlib import Path

from dsgd_bench.cli.verb_parts import Verbs


def add(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("worker", help="be one rank of a trial (used by run)")
    verb.add_argument("job", type=Path)
    verb.set_defaults(verb=worker)


def worker(arguments: argparse.Namespace) -> int:
    """Be one rank of a trial."""
    from dsgd_bench.study import rank_process

    return rank_process.main(arguments.job)
