"""What a rank checks before its trial begins."""

import os
from collections.abc import Iterable, Sequence

from dsgd_bench.errors import ConfigError
from dsgd_bench.host import identity
from dsgd_bench.io.escape import plain
from dsgd_bench.spec.machine import Machine


def check_links(machine: Machine, names: Sequence[str]) -> None:
    """Refuse names in ``[links]`` that mean no host of this trial or Slurm job.

    Parameters
    ----------
    machine : Machine
        The machine file.
    names : sequence of str
        The host of every rank.

    Raises
    ------
    ConfigError
        If there is such a name: the bounds of the report would be those of other links.
    """
    there = [*names, *identity.in_list(os.environ.get("SLURM_JOB_NODELIST", ""))]
    if strange := identity.unknown(machine.links.hosts, there):
        raise ConfigError(
            f"links.hosts of the machine file names {_listed(strange)}, and the ranks "
            f"of this trial run on {_listed(dict.fromkeys(names))}: name those (case "
            "does not matter, and host1 means host1.any.domain), or leave the name out"
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(plain, names))
