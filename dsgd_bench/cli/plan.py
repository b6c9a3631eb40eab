"""The verb ``plan``: what a study would cost."""

import argparse

from dsgd_bench.cli.verb_parts import Verbs, add_machine, add_study, foresee_bugs, read
from dsgd_bench.io import printing


def add(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser(
        "plan", help="trials, memory, traffic and duration of a study; runs nothing"
    )
    add_study(verb)
    add_machine(verb)
    verb.set_defaults(verb=plan)


def plan(arguments: argparse.Namespace) -> int:
    """Print what a study would cost."""
    from dsgd_bench.cli.plan_table import print_plan
    from dsgd_bench.study.plan import lacks

    study, machine = read(arguments)
    print_plan(study)
    foresee_bugs(study, machine)
    for sentence in lacks(study, machine):
        printing.complain(f"dsgd-bench: {sentence}")
    return 0
