"""From a trial and a machine to the words and the environment that start its ranks.

No MPI is imported and nothing is started here, except that an ``mpiexec`` is asked once
for its version: the three families need different words when ranks share cores.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from dsgd_bench.errors import LaunchError
from dsgd_bench.host import environment, provenance
from dsgd_bench.host.environment import THREADS
from dsgd_bench.spec.machine import Machine

MPIEXEC = ("mpiexec", "mpirun", "mpiexec.hydra", "mpirun.hydra", "prterun", "orterun")
"""Launchers that belong to an MPI library; others, such as srun, belong to a site."""

SHARING = {
    "mpich": {
        "MPIR_CVAR_CH4_PROGRESS_THROTTLE": "true",
        "MPIR_CVAR_CH4_PROGRESS_THROTTLE_NO_PROGRESS_COUNT": "1",
    },
    "openmpi": {"OMPI_MCA_mpi_yield_when_idle": "true"},
    "intel": {"I_MPI_SPIN_COUNT": "1", "I_MPI_THREAD_YIELD": "2"},
    "unknown": {},
}
"""Family -> settings that make a waiting rank give up its core to the others.

Sources: the continuous integration of mpi4py, ``.ci/env.*``.
"""


WHEEL_PMI2 = {"MPIR_CVAR_CH4_NETMOD": "ofi"}
"""For MPICH from its wheel by Slurm's PMI2, which reads lines of at most 1,023 bytes.

The address of a rank over UCX comes in lines of up to 1,077, over libfabric it has 16
bytes. Other builds of MPICH may be without libfabric, and would refuse to start.
"""


def command(trial: Path, ranks: int, machine: Machine, python: str) -> list[str]:
    """Return the words that run one trial.

    Parameters
    ----------
    trial : Path
        The trial as JSON: all that a worker reads.
    ranks : int
        Number of ranks.
    machine : Machine
        Where to run.
    python : str
        Interpreter of every rank, usually ``sys.executable``.

    Raises
    ------
    LaunchError
        If the machine's ``mpiexec`` cannot be found.
    """
    worker = program(python, "worker", str(trial))
    return [*starter(ranks, machine, python), *worker]


def program(python: str, *words: str) -> list[str]:
    """Return the words of one rank: the interpreter, and a verb with its arguments.

    With ``-P``, so that a ``random.py`` or ``numpy.py`` in the working folder is no
    part of the program: ``-m`` alone would look there first.
    """
    return [python, "-P", "-m", "mpi4py", "-m", "dsgd_bench", *words]


def starter(ranks: int, machine: Machine, python: str) -> list[str]:
    """Return the words before the interpreter: the launcher and its options.

    Raises
    ------
    LaunchError
        If the machine's ``mpiexec`` cannot be found.
    """
    starts, *words = _launcher(machine, python)
    words = [word.replace("{ranks}", str(ranks)) for word in words]
    if family(starts) == "openmpi" and shares_cores(ranks, machine):
        # Open MPI refuses more ranks than cores and would pin several to one core.
        words = ["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none", *words]
    return [starts, *words]


def variables(
    ranks: int,
    machine: Machine,
    python: str,
    inherited: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the environment in which the launcher starts.

    What the machine file says stands above all; then the number of threads; then what
    is `inherited` (by default the environment of this process); then our settings.

    Raises
    ------
    LaunchError
        If the launcher cannot be found, or the files that it needs cannot be written.
    """
    inherited = os.environ if inherited is None else inherited
    words = _launcher(machine, python)
    # It need not come first: another program may start it somewhere else.
    program = next((word for word in words if Path(word).name in MPIEXEC), words[0])
    ours: dict[str, str] = {}
    if "--mpi=pmi2" in words:
        beside = str(Path(python).parent / "mpiexec")
        ours |= WHEEL_PMI2 if family(beside) == "mpich" else {}
    if family(program) == "openmpi":
        _check_temporary_folder({**inherited, **machine.env}.get("TMPDIR", ""))
        ours |= _openmpi(bundled=Path(program).parent == Path(python).parent)
    if shares_cores(ranks, machine, inherited):
        ours |= SHARING[family(program)]
    ours |= {"PYTHONSAFEPATH": "1"}  # for what ranks start themselves
    threads = dict.fromkeys(THREADS, str(machine.threads_per_rank))
    return {**ours, **inherited, **threads, **machine.env}


def _launcher(machine: Machine, python: str) -> list[str]:
    """Return the machine's words, an ``mpiexec`` among them as the path it has."""
    return [find(word, python) for word in machine.launcher]


def find(program: str, python: str) -> str:
    """Return the path of an ``mpiexec``: beside `python` if there, else on the PATH.

    An MPI library installed from a wheel brings its own launcher into the environment's
    ``bin``; any other would start ranks that do not see each other. Other launchers are
    returned as they are.

    Raises
    ------
    LaunchError
        If `program` is an ``mpiexec`` and is in neither place.
    """
    if program not in MPIEXEC:
        return program
    beside = Path(python).parent / program
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(program)
    if found is None:
        raise LaunchError(
            f"the launcher {program!r} is neither beside {python} nor on the PATH; "
            "install an MPI library, for example `pip install mpich`, or name another "
            "launcher in the machine file"
        )
    return found


@lru_cache
def family(program: str) -> str:
    """Return whose launcher this is: mpich, openmpi, intel or unknown."""
    if Path(program).name not in MPIEXEC:
        return "unknown"
    try:
        answer = subprocess.run(
            [program, "--version"],
            capture_output=True,
            check=False,
            errors="replace",
            timeout=60,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    if "Intel(R) MPI" in answer:
        return "intel"
    if "Open MPI" in answer or "OpenRTE" in answer or "PRRTE" in answer:
        return "openmpi"
    return "mpich" if "HYDRA" in answer else "unknown"


def shares_cores(
    ranks: int, machine: Machine, inherited: Mapping[str, str] | None = None
) -> bool:
    """Say whether ranks will have to share cores, as far as this can be known here.

    That is so if the launcher gets nothing but the number of ranks, and the cores of
    this computer that quotas let us use, times the hosts of the Slurm job around it,
    are too few. A launcher
    with more words than that may go anywhere, and its machine file speaks for it.

    Raises
    ------
    ConfigError
        If the number of hosts in the environment is none.
    """
    inherited = os.environ if inherited is None else inherited
    if goes_elsewhere(machine):
        return False
    nodes = environment.number("SLURM_JOB_NUM_NODES", inherited) or 1
    return ranks * machine.threads_per_rank > nodes * provenance.usable_cores()


def goes_elsewhere(machine: Machine) -> bool:
    """Say whether a launcher has more words than the number of ranks."""
    program, *words = machine.launcher
    return Path(program).name not in MPIEXEC or words not in (
        ["-n", "{ranks}"],
        ["-np", "{ranks}"],
    )


def _check_temporary_folder(folder: str) -> None:
    """Refuse a ``TMPDIR`` that can be seen to be of no use to Open MPI."""
    if folder and Path(folder).is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        raise LaunchError(
            f"TMPDIR is {folder}, which cannot be written, and Open MPI keeps files "
            "there: set it to another folder"
        )


def _openmpi(*, bundled: bool) -> dict[str, str]:
    settings = {}
    if os.geteuid() == 0:
        # Root is the rule in containers, and Open MPI wants to be told twice.
        settings["OMPI_ALLOW_RUN_AS_ROOT"] = "1"
        settings["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    if bundled:
        # Windows of the wheel's UCX component complain, and may never be freed.
        settings["OMPI_MCA_osc"] = "^ucx"
    return settings
