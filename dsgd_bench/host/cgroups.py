"""What control groups allow this process: shares of cores, and memory.

A container, a batch system or systemd may give a process half a core, and nothing but
its control group says so: the set of cores that it may use stays whole. Groups lie in
each other, and the tightest one counts. There are two versions with files of their
own, and hosts that have both (hybrid).
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

UNLIMITED = 2**60
"""Bytes from which on a limit is none: version 1 writes 2^63, rounded to pages."""

ROOT = Path("/")


@dataclass(frozen=True)
class Group:
    """One control group that this process is in, or one around that.

    Attributes
    ----------
    folder : Path
        Its files.
    version : int
        1 or 2.
    """

    folder: Path
    version: int

    @property
    def identity(self) -> str:
        """What tells it from all others of this machine, from inside any container."""
        status = self.folder.stat()
        return f"{status.st_dev}:{status.st_ino}"

    def number(self, name: str) -> int:
        """Return the number in one of its files.

        Raises
        ------
        OSError, ValueError
            If there is no such file, or no number in it: ``max`` is none.
        """
        return int((self.folder / name).read_text(encoding="utf-8"))

    def table(self, name: str) -> dict[str, int]:
        """Return the numbers by name in one of its files.

        Raises
        ------
        OSError, ValueError
            If there is no such file, or it is none.
        """
        words = (self.folder / name).read_text(encoding="utf-8").split()
        return dict(zip(words[::2], map(int, words[1::2]), strict=True))


def groups(controller: str, root: Path = ROOT) -> Iterator[Group]:
    """Yield the groups by which `controller` rules this process, the inner ones first.

    Parameters
    ----------
    controller : str
        ``"cpu"`` or ``"memory"``.
    root : Path
        Where ``/proc`` is, and what its files name; another one for tests.
    """
    with suppress(OSError, ValueError):
        mounts = _mounts(controller, root)
        for line in (
            (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        ):
            number, controllers, path = line.split(":", 2)
            version = 2 if (number, controllers) == ("0", "") else 1
            if version in mounts and (
                version == 2 or controller in controllers.split(",")
            ):
                top, inside = mounts[version]
                for folder in _chain(top, inside, path):
                    yield Group(folder, version)


def _mounts(controller: str, root: Path) -> dict[int, tuple[Path, str]]:
    """Return by version where the groups' files are, and the group mounted there."""
    found: dict[int, tuple[Path, str]] = {}
    for line in (root / "proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        inside, place = (_unescaped(word) for word in before.split()[3:5])
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2":
            version = 2
        elif kind == "cgroup" and controller in options.split(","):
            version = 1
        else:
            continue
        found.setdefault(version, (root / place.lstrip("/"), inside))
    return found


def _unescaped(word: str) -> str:
    return word.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def _chain(top: Path, inside: str, path: str) -> Iterator[Path]:
    """Yield the folders from a group up to the one that is mounted.

    In a container the mounted one is often the process's own, and what its path says
    is seen from outside: then there is nothing below.
    """
    inside = inside.rstrip("/")
    below = path.removeprefix(inside) if path.startswith(inside + "/") else ""
    parts = [part for part in below.split("/") if part]
    if ".." in parts:  # it is not below the root of its namespace
        parts = []
    for count in range(len(parts), -1, -1):
        folder = top.joinpath(*parts[:count])
        if folder.is_dir():
            yield folder


def quotas(root: Path = ROOT) -> dict[str, float]:
    """Return the cores that this process's groups may use: identity -> cores.

    All processes of a group share its quota; a group without one is left out.
    """
    found = {}
    for group in groups("cpu", root):
        with suppress(OSError, ValueError):
            found[group.identity] = _quota(group)
    return found


def _quota(group: Group) -> float:
    """Return the cores of one group; ValueError if it has no quota."""
    if group.version == 2:
        quota, period = map(
            int, (group.folder / "cpu.max").read_text(encoding="utf-8").split()
        )
    else:
        quota = group.number("cpu.cfs_quota_us")
        period = group.number("cpu.cfs_period_us")
    if quota <= 0 or period <= 0:
        raise ValueError(quota)
    return quota / period


def tightest(quotas: Mapping[str, float]) -> float | None:
    """Return the cores of the tightest quota; None without any."""
    return min(quotas.values(), default=None)


def memory_limit(root: Path = ROOT) -> int | None:
    """Return the bytes of memory that the tightest group allows; None without any."""
    return min((limit for limit, _ in _memory(root)), default=None)


def memory_left(root: Path = ROOT) -> int | None:
    """Return the bytes that groups let this process still take; None without a limit.

    What a group holds of files can be given back, and does not count as used; shared
    memory can not.
    """
    return min((limit - used for limit, used in _memory(root)), default=None)


def _memory(root: Path) -> Iterator[tuple[int, int]]:
    """Yield limit and use in bytes of every group that has a limit."""
    for group in groups("memory", root):
        with suppress(OSError, ValueError):
            stat = group.table("memory.stat")
            if group.version == 2:
                limit = group.number("memory.max")
                used = stat.get("anon", 0) + stat.get("shmem", 0)
            else:  # a group around all that can be seen may be tighter still
                around = stat.get("hierarchical_memory_limit", UNLIMITED)
                limit = min(group.number("memory.limit_in_bytes"), around)
                used = stat.get("total_rss", 0) + stat.get("total_shmem", 0)
            if limit < UNLIMITED:
                yield limit, used
