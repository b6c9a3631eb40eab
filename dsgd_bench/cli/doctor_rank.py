"""The verb ``doctor-rank``: one rank of the job that ``doctor`` starts."""

import argparse

from dsgd_bench.bench import flags
from dsgd_bench.cli.verb_parts import Verbs


def add(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("doctor-rank", help="be one rank for doctor")
    verb.add_argument("ranks", type=flags.ranks)
    verb.add_argument("mode")
    verb.set_defaults(verb=doctor_rank)


def doctor_rank(arguments: argparse.Namespace) -> int:
    """Be one rank of the doctor's job."""
    from dsgd_bench.study import doctor

    return doctor.on_rank(arguments.ranks, arguments.mode)
