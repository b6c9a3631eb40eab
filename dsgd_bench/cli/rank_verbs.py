"""The verbs that the suite itself starts on ranks."""

import argparse
from pathlib import Path

from dsgd_bench.bench import flags
from dsgd_bench.cli.verb_parts import Verbs
from dsgd_bench.errors import DsgdError


def add(verbs: Verbs) -> None:
    """Add all of them to the command line."""
    _worker(verbs)
    _doctor_rank(verbs)
    _bench_rank(verbs)


def _worker(verbs: Verbs) -> None:
    verb = verbs.add_parser("worker", help="be one rank of a trial (used by run)")
    verb.add_argument("job", type=Path)
    verb.set_defaults(verb=worker)


def worker(arguments: argparse.Namespace) -> int:
    """Be one rank of a trial."""
    from dsgd_bench.study import rank_process

    return rank_process.main(arguments.job)


def _doctor_rank(verbs: Verbs) -> None:
    verb = verbs.add_parser("doctor-rank", help="be one rank for doctor")
    verb.add_argument("ranks", type=flags.ranks)
    verb.add_argument("mode")
    verb.set_defaults(verb=doctor_rank)


def doctor_rank(arguments: argparse.Namespace) -> int:
    """Be one rank of the doctor's job."""
    from dsgd_bench.study import doctor

    return doctor.on_rank(arguments.ranks, arguments.mode)


def _bench_rank(verbs: Verbs) -> None:
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
