"""What killed ranks of MPICH leave on the nodes of a job that is put back.

Under Slurm's PMI2 a step of such a job has the name of the one before. MPICH names
shared memory after it, and new ranks take what killed ones left for their own: they
fail in ``MPI_Init``, or hang there (MPICH 5.0.2, Slurm 22.05).
"""

import os
import subprocess
from collections.abc import Mapping

from dsgd_bench.host import environment
from dsgd_bench.io import printing
from dsgd_bench.spec.machine import Machine

REMOVE = (
    "for left in /dev/shm/mpich_shm_*; do "
    'grep -qsF "$left" /proc/[0-9]*/maps || rm -f "$left"; done'
)
"""Shell: remove what no process of ours uses; that of others cannot be removed."""

PATIENCE = 60
"""Seconds until we go on without."""


def words(machine: Machine, variables: Mapping[str, str]) -> list[str]:
    """Return the words that remove leftovers from all nodes of this job.

    Parameters
    ----------
    machine : Machine
        Whose launcher starts the ranks.
    variables : mapping
        The environment.

    Returns
    -------
    list of str
        Empty if there can be none: not by PMI2, or the job runs for the first time.

    Raises
    ------
    ConfigError
        If a number in the environment is none.
    """
    again = environment.number("SLURM_RESTART_COUNT", variables)
    if not again or "--mpi=pmi2" not in machine.launcher:
        return []
    nodes = environment.number("SLURM_JOB_NUM_NODES", variables) or 1
    everywhere = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    return ["srun", "--mpi=none", *everywhere, "sh", "-c", REMOVE]


def remove(machine: Machine) -> None:
    """Remove leftovers from all nodes of this job, before any rank starts on them."""
    if not (command := words(machine, os.environ)):
        return
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, timeout=PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        printing.complain(
            f"dsgd-bench: what killed ranks left in /dev/shm could not be removed "
            f"({error}); if ranks fail in MPI_Init, take mpiexec as the launcher"
        )
