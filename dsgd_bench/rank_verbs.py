"""The verbs that the suite itself starts on ranks; users have no need of them."""

import argparse
from pathlib import Path
from typing import TypeAlias

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a verb is added to the command line."""


def _worker(verbs: Verbs) -> None:
    verb = verbs.add_parser("worker", help="be one rank of a trial (used by run)")
    verb.add_argument("job", type=Path)
    verb.set_defaults(verb=worker)


def worker(arguments: argparse.Namespace) -> int:
    """Be one rank of a trial."""
    from dsgd_bench import rank

    return rank.main(arguments.job)


def _doctor_rank(verbs: Verbs) -> None:
    verb = verbs.add_parser("doctor-rank", help="be one rank for doctor")
    verb.add_argument("ranks", type=int)
    verb.add_argument("mode")
    verb.set_defaults(verb=doctor_rank)


def doctor_rank(arguments: argparse.Namespace) -> int:
    """Be one rank of the doctor's job."""
    from dsgd_bench import doctor

    return doctor.on_rank(arguments.ranks, arguments.mode)


def _bench_rank(verbs: Verbs) -> None:
    verb = verbs.add_parser("bench-rank", help="be one rank for bench")
    verb.add_argument("name")
    verb.add_argument("words", nargs=argparse.REMAINDER)
    verb.set_defaults(verb=bench_rank)


def bench_rank(arguments: argparse.Namespace) -> int:
    """Be one rank of a benchmark."""
    from dsgd_bench import rank
    from dsgd_bench.bench import BENCHMARKS

    rank.prepare_process()
    benchmark = BENCHMARKS[arguments.name]
    options = benchmark.options.from_argv(arguments.words)
    fabric = rank.connect(options.ranks)
    benchmark.rank(fabric, options)
    fabric.close()
    return 0


ON_RANKS = (_worker, _doctor_rank, _bench_rank)
"""Each adds one verb."""
