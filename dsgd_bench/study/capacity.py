"""What ranks need of this machine before they compute: cores and shared memory."""

import os
from collections.abc import Iterable
from pathlib import Path

from dsgd_bench.host import provenance
from dsgd_bench.host.shared_memory import SHM
from dsgd_bench.spec.machine import Machine
from dsgd_bench.study import launch

MIB = 2**20

RANK_BYTES = 8 * MIB
"""Shared memory that a rank of MPICH 5 from its wheel takes beside windows: 1 in a file
of MPICH's, the others in those of UCX. Measured with file systems of 1 to 44 MiB: below
a third of this it dies of a bus error, close to it of a segmentation fault. Open MPI 5
takes less, and goes on without."""

DIED_OF_IT = {7: "SIGBUS", 11: "SIGSEGV"}
"""Signals that kill ranks whose shared memory cannot be backed."""

COMPLAINTS = ("not enough space for /dev/shm", "Bus error", "No space left on device")
"""What MPI libraries print then."""


def crowding(ranks: int, machine: Machine) -> str:
    """Say that ranks on this machine would share cores; empty if they would not.

    Quotas of control groups count; see `launch.shares_cores` for what cannot be known.
    """
    if not launch.shares_cores(ranks, machine):
        return ""
    cores = provenance.usable_cores()
    quota = f" (a control group allows {cores:g})" if cores < provenance.cores() else ""
    return (
        f"{ranks} ranks on {cores:g} cores{quota}: ranks wait for each other's cores; "
        "use at most one rank per core where times matter"
    )


def shared_memory_needed(ranks: int, model_bytes: int = 0) -> int:
    """Return the bytes of ``/dev/shm`` that `ranks` on one host take, roughly.

    Each takes what its MPI library does, and a window of the size of the model.
    """
    return ranks * (RANK_BYTES + model_bytes)


def shared_memory_left(folder: Path = SHM) -> int | None:
    """Return the bytes that are free in ``/dev/shm``; None if there is none."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def too_little_shared_memory(
    ranks: int, model_bytes: int = 0, folder: Path = SHM
) -> str:
    """Say that ``/dev/shm`` has less than ranks on this host need; empty if not."""
    need, left = shared_memory_needed(ranks, model_bytes), shared_memory_left(folder)
    if left is None or left >= need:
        return ""
    return (
        f"{ranks} ranks on one host need about {need / MIB:.0f} MiB of shared memory, "
        f"and {folder} has {left / MIB:.1f} MiB left: make it larger (docker run "
        "--shm-size, mount -o remount,size=), or remove what killed jobs left there"
    )


def killed_by_memory(status: int, said: Iterable[str]) -> bool:
    """Tell whether ranks died as they do where shared memory cannot be backed.

    Parameters
    ----------
    status : int
        Exit status of the launcher: negative, 128 and more, or the number itself, as
        launchers pass on which signal killed a rank.
    said : iterable of str
        What the ranks and the launcher printed.
    """
    signal = -status if status < 0 else status % 128
    text = "\n".join(said)
    return signal in DIED_OF_IT or any(word in text for word in COMPLAINTS)
