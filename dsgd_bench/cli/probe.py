"""The verb ``probe``: what this machine takes, as a profile for ``simulate``."""

import argparse
import shlex
import sys
from pathlib import Path

from dsgd_bench.bench import flags
from dsgd_bench.cli.verb_parts import Verbs, check_target
from dsgd_bench.host import environment
from dsgd_bench.io import printing


def add(verbs: Verbs) -> None:
    """Add the verb to the command line."""
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
