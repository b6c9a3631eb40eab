"""The verb ``replay``: who cost what in a run, and what if."""

import argparse
from pathlib import Path

from dsgd_bench.bench import flags
from dsgd_bench.cli.verb_parts import Verbs, check_target, network
from dsgd_bench.host import environment
from dsgd_bench.io import printing
from dsgd_bench.io.trial_folder import TRACE


def _worker_ranks(text: str) -> tuple[int, ...]:
    """Return the numbers in a word such as "0,3"."""
    return tuple(flags.rank(word) for word in text.split(","))


def add(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser(
        "replay",
        help="who cost what in a run, and what if a rank were not slow or the network "
        "faster",
    )
    verb.add_argument("trace", type=Path, help=f"{TRACE} of a run")
    verb.add_argument(
        "--without-slow",
        type=_worker_ranks,
        default=(),
        metavar="RANK,...",
        help="what if these ranks were as fast as the others",
    )
    verb.add_argument(
        "--faster-network",
        type=float,
        metavar="K",
        help="what if the network were K times faster",
    )
    verb.add_argument(
        "--profile",
        metavar="P",
        help="replay over this preset or machine profile (default: a network that is "
        "fitted to the trace)",
    )
    verb.add_argument(
        "--json", type=Path, metavar="FILE", help="also write all numbers"
    )
    verb.add_argument(
        "--figure", type=Path, metavar="FILE", help="also draw them: .png, .svg or .pdf"
    )
    verb.set_defaults(verb=replay)


def replay(arguments: argparse.Namespace) -> int:
    """Replay a run in virtual time with one thing after the other changed; print."""
    environment.limit_threads()
    check_target("--json", arguments.json, folder=True)
    check_target("--figure", arguments.figure, folder=True)
    from dsgd_bench.replay import figure, tables, whatif
    from dsgd_bench.trace import open_trace

    if arguments.figure is not None:
        figure.check(arguments.figure)
    over = None
    if arguments.profile is not None:
        ranks = open_trace(arguments.trace).trial.ranks
        over = network(arguments.profile, ranks)
    answers = whatif.ask(
        arguments.trace,
        network=over,
        without_slow=arguments.without_slow,
        times=arguments.faster_network,
    )
    printing.lines(tables.lines(answers))
    if arguments.json is not None:
        tables.write_json(arguments.json, answers)
    if arguments.figure is not None:
        figure.write(arguments.figure, answers)
    return 0
