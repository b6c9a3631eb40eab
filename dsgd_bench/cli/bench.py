"""The verb ``bench``: times the suite itself."""

import argparse

from dsgd_bench.cli.verb_parts import Verbs, check_target
from dsgd_bench.io import printing
from dsgd_bench.spec.machine import Machine


def add(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser(
        "bench",
        help="time the suite itself, as OSU times MPI; bench NAME -h prints more",
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
