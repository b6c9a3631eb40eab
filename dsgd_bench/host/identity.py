"""Which host a process is on: the running kernel, its clock, and a name for people.

Machines of one name exist (images, containers, virtual machines), and so do several
names on one machine (containers, emulated hosts). What matters differs from use to use:

- *Clock.* The monotonic clock counts from a kernel's boot, and a Linux time namespace
  shifts it. Ranks that agree in boot, namespace and name share it; all others compare.
- *Host.* Who has a link, memory and GPUs in common: one name on one running kernel.
- *Machine.* Whose cores are the same ones: one running kernel, whatever the names.
"""

import platform
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")
TIME, PROCESSES = Path("/proc/self/ns/time"), Path("/proc/self/ns/pid")

COPY = re.compile(r" \(\d+\)$")
"""What `names` appends to the name of a second host, and of those after it."""

MOST = 100_000
"""Hosts in a range of names; a longer one is no list of hosts."""


@dataclass(frozen=True)
class Host:
    """Where a process runs.

    Attributes
    ----------
    name : str
        Of the host, for people; others may have it, too.
    kernel : str
        Tells the running kernel from all others; empty where nothing does.
    time : str
        The time namespace; empty where the kernel has none.
    """

    name: str
    kernel: str = ""
    time: str = ""


def here(name: str = "") -> Host:
    """Return where this process runs; `name` is what MPI calls it, if it was asked."""
    return Host(name or platform.node(), kernel(), namespace(TIME))


def kernel() -> str:
    """Return what tells this running kernel from all others; empty if nothing does."""
    try:
        return BOOT.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def namespace(path: Path) -> str:
    """Return the namespace that a link below ``/proc`` leads to; empty without any."""
    with suppress(OSError):
        return str(path.readlink())
    return ""


def names(hosts: Iterable[Host]) -> list[str]:
    """Return one name per host: the second host called ``a`` is ``a (2)``.

    Parameters
    ----------
    hosts : iterable of Host
        Of every rank, in order.
    """
    kernels: dict[str, list[str]] = {}
    found = []
    for host in hosts:
        known = kernels.setdefault(host.name, [])
        if host.kernel not in known:
            known.append(host.kernel)
        number = known.index(host.kernel) + 1
        found.append(host.name if number == 1 else f"{host.name} ({number})")
    return found


def clocks(hosts: Iterable[Host]) -> list[int]:
    """Return the number of the clock that every rank reads, counted in their order.

    The name counts, too: virtual machines that go on from one snapshot have one boot
    id. Where the kernel is not known every rank has a clock of its own, since to
    compare two readings of one clock does no harm.
    """
    numbers: dict[object, int] = {}
    return [
        numbers.setdefault(host if host.kernel else (rank, host), len(numbers))
        for rank, host in enumerate(hosts)
    ]


def same(written: str, name: str) -> bool:
    """Tell whether a name that a user wrote means the host called `name`.

    Case does not matter, and a short name means the host of any domain.
    """
    one, other = (
        COPY.sub("", text).strip().rstrip(".").casefold() for text in (written, name)
    )
    short = one.partition(".")[0] == other.partition(".")[0]
    return one == other or (short and not ("." in one and "." in other))


def unknown(written: Iterable[str], names: Sequence[str]) -> list[str]:
    """Return which of the names that a user wrote mean none of these hosts."""
    return [word for word in written if not any(same(word, name) for name in names)]


def in_list(text: str) -> list[str]:
    """Return the names in a list as Slurm writes it: ``"n[01-03,7],login"``."""
    found = []
    for word in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        head, _, rest = word.partition("[")
        numbers, _, tail = rest.partition("]")
        found += [f"{head}{number}{tail}" for number in _counted(numbers)]
    return found


def _counted(numbers: str) -> list[str]:
    """Return ``["01", "02", "03", "7"]`` for ``"01-03,7"``, and one "" for nothing."""
    found = []
    for part in numbers.split(","):
        first, _, last = part.partition("-")
        if last.isdecimal() and first.isdecimal() and int(last) - int(first) < MOST:
            found += [
                str(number).zfill(len(first))
                for number in range(int(first), int(last) + 1)
            ]
        else:
            found.append(part)
    return found
