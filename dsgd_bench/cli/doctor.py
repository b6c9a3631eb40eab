"""The verb ``doctor``: looks at MPI, launcher, cores and HDF5."""

import argparse

from dsgd_bench.bench import flags
from dsgd_bench.cli.verb_parts import FAILED, Verbs, add_machine
from dsgd_bench.spec.machine import Machine


def add(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    verb = verbs.add_parser("doctor", help="look at MPI, launcher, cores and HDF5")
    verb.add_argument(
        "-n", "--ranks", type=flags.ranks, default=2, help="ranks (default: 2)"
    )
    add_machine(verb)
    verb.set_defaults(verb=doctor)


def doctor(arguments: argparse.Namespace) -> int:
    """Examine this machine; status 1 if something is bad."""
    from dsgd_bench import config
    from dsgd_bench.cli.findings_table import print_findings
    from dsgd_bench.study import doctor

    named = arguments.machine
    machine = config.read_machine(named) if named else Machine()
    findings = doctor.examine(machine, arguments.ranks)
    print_findings(findings)
    return FAILED if any(f.verdict == doctor.BAD for f in findings) else 0
