"""The verbs that run on ranks: probe, and those that the suite itself starts there."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TypeAlias

from dsgd_bench.bench import flags
from dsgd_bench.cli.verb_parts import check_target
from dsgd_bench.errors import DsgdError
from dsgd_bench.host import environment
from dsgd_bench.io import printing

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a verb is added to the command line."""


def _probe(verbs: Verbs) -> None:
    verb = verbs.add_parser(
        "probe",
        help="measure what this machine takes, under mpiexec or srun: a profile for "
        "simulate",
    )
    flags.add_samples(verb, iterations=100, warm_up=10)
    flags.add_sizes(verb, flags.sizes("8:64M"), "of the vectors")
    verb.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("profile.json"),
        help="where the machine profile goes (default: profile.json)",
    )
    verb.set_defaults(verb=probe)


def probe(arguments: argparse.Namespace) -> int:
    """Be one rank of a probe; rank 0 writes the machine profile and prints tables."""
    environment.limit_threads()
    from dsgd_bench.cli.display import stages_display
    from dsgd_bench.probe import Probe, ProbeOptions
    from dsgd_bench.study import rank_process

    rank_process.prepare_process()
    fabric = rank_process.meet()
    try:
        if fabric.rank == 0:  # its folder may be on this host only
            check_target("--output", arguments.output)
        names = ("sizes", "iterations", "warm_up", "percentiles", "full", "output")
        options = ProbeOptions(**{name: getattr(arguments, name) for name in names})
        measuring = Probe(fabric, options)
        with stages_display(measuring.stages, silent=fabric.rank > 0) as stage:
            profile, series = measuring.run(stage)
        lines = measuring.report(profile, series)
        if fabric.rank == 0:
            command = shlex.join(["dsgd-bench", *sys.argv[1:]])
            printing.lines([*lines, "", command])
            profile.write(options.output)
            printing.lines([f"wrote {options.output}"])
    except Exception as error:
        if fabric.size == 1:
            raise
        rank_process.end_all(fabric, error)  # the others would wait forever
    rank_process.leave(fabric)
    return 0


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


ON_RANKS = (_probe, _worker, _doctor_rank, _bench_rank)
"""Each adds one verb."""
