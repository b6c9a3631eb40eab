"""The verb ``bench-rank``: one rank of a benchmark, started by ``bench``."""

import argparse

from dsgd_bench.cli.verb_parts import Verbs
from dsgd_bench.errors import DsgdError


def add(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("bench-rank", help="be one rank for bench")
    verb.add_argument("name")
    verb.add_argument("words", nargs=argparse.REMAINDER)
    verb.set_defaults(verb=bench_rank)


def bench_rank(arguments: argparse.Namespace) -> int:
    """Be one rank of a benchmark."""
    from dsgd_bench.bench.table import BENCHMARKS
    from dsgd_bench.study import rank_process

    rank_process.prepare_process()
    benchmark = BENCHMARKS[arguments.name]
    options = benchmark.options.from_argv(arguments.words)
    fabric = rank_process.meet(options.ranks)
    try:
        with rank_process.busy(fabric):
            benchmark.rank(fabric, options)
    except (DsgdError, OSError) as error:
        rank_process.end_all(fabric, error)  # the others would wait forever
    rank_process.leave(fabric)
    return 0
