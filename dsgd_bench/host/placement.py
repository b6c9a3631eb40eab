"""Where every rank runs: host, cores that it may use, GPU, and who shares them."""

import os
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from dsgd_bench.host import cgroups, environment, identity

TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
GPUS = Path("/proc/driver/nvidia/gpus")

SHARED_CORES = "DSGD_BENCH_SHARED_CORES"
"""Environment variable that says that ranks share cores where MPI cannot see it: on
hosts that are emulated on one machine (``jobs/emulate/``)."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where one rank runs, as far as it knows by itself: see `here`.

    Attributes
    ----------
    host : str
        Name of the computer, one that no other host of this job has.
    cpus, cores : str
        Hardware threads that it may use; the same as physical cores, each named by its
        first hardware thread.
    quotas : dict of str to float
        Cores that its control groups allow, by group (`cgroups.quotas`).
    threads : int
        That its linear algebra starts.
    kernel : str
        Which running one (see `identity`); empty where nothing tells.
    gpu : str
        Which GPUs are visible; empty without ``CUDA_VISIBLE_DEVICES``.
    emulated : bool
        Whether the host is one of several on this machine.
    """

    host: str
    cpus: str
    cores: str
    quotas: dict[str, float] = {}
    threads: int
    kernel: str = ""
    gpu: str
    emulated: bool = False


class Arranged(Place, frozen=True, kw_only=True):
    """Where one rank runs, with its neighbors on the node: see `arrange`.

    Attributes
    ----------
    node, node_rank, node_ranks : int
        Number of its node, in the order of ranks; its number there, of how many.
    shares : bool
        Whether it shares a core.
    """

    node: int
    node_rank: int
    node_ranks: int
    shares: bool


def here(host: str) -> Place:
    """Return where this process is; `host` is the name of the computer."""
    allowed = cpus()
    return Place(
        host=host,
        cpus=compact(allowed),
        cores=compact(core_of(cpu) for cpu in allowed),
        quotas=cgroups.quotas(),
        threads=environment.threads(),
        kernel=identity.kernel(),
        gpu=gpu(os.environ.get("CUDA_VISIBLE_DEVICES", "")),
        emulated=SHARED_CORES in os.environ,
    )


def read(written: Any) -> list[Arranged]:
    """Return the places of ranks that a provenance has, by rank.

    Parameters
    ----------
    written : list of dict or None
        ``placement``, as any version wrote it; None in simulations.

    Raises
    ------
    msgspec.ValidationError
        If it is anything else.
    """
    return msgspec.convert(written or [], list[Arranged])


def cpus() -> set[int]:
    """Return the hardware threads that this process may use."""
    if sys.platform == "linux":
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def core_of(cpu: int) -> int:
    """Return the first hardware thread of the physical core that `cpu` belongs to."""
    try:
        return min(
            spread(Path(TOPOLOGY.format(cpu)).read_text(encoding="utf-8").strip())
        )
    except (OSError, ValueError):
        return cpu


def gpu(visible: str, folder: Path = GPUS) -> str:
    """Return which GPUs are visible, with their PCI addresses where the driver tells.

    Parameters
    ----------
    visible : str
        ``CUDA_VISIBLE_DEVICES``: numbers or unique names.
    folder : Path
        Where the driver lists its devices by PCI address.
    """
    addresses: dict[str, str] = {}
    if visible and folder.is_dir():
        for number, device in enumerate(sorted(folder.iterdir())):
            addresses[str(number)] = device.name
            for line in (
                (device / "information").read_text(encoding="utf-8").splitlines()
            ):
                if line.startswith("GPU UUID"):
                    addresses[line.partition(":")[2].strip()] = device.name
    names = visible.split(",") if visible else []
    return ", ".join(
        f"{name} at {addresses[name]}" if name in addresses else name for name in names
    )


def arrange(places: Sequence[Place]) -> list[Arranged]:
    """Return the places of all ranks, each knowing its neighbors on the node.

    Parameters
    ----------
    places : sequence of Place
        From `here`, by rank.
    """
    nodes: dict[str, list[int]] = defaultdict(list)
    for rank, place in enumerate(places):
        nodes[place.host].append(rank)
    numbers = {host: number for number, host in enumerate(nodes)}
    sharing = _sharing(places)
    return [
        Arranged(
            **msgspec.structs.asdict(place),
            node=numbers[place.host],
            node_rank=nodes[place.host].index(rank),
            node_ranks=len(nodes[place.host]),
            shares=rank in sharing,
        )
        for rank, place in enumerate(places)
    ]


def _sharing(places: Sequence[Place]) -> set[int]:
    """Return which ranks share a core with others of their machine."""
    machines: dict[str, list[int]] = defaultdict(list)
    emulated = any(place.emulated for place in places)
    for rank, place in enumerate(places):
        kernel = place.kernel or place.host  # containers share its cores
        machines["" if emulated else kernel].append(rank)
    sharing: set[int] = set()
    for ranks in machines.values():
        cores = [spread(places[rank].cores) for rank in ranks]
        threads = [places[rank].threads for rank in ranks]
        quotas = [places[rank].quotas for rank in ranks]
        crowd = crowded(cores, threads, quotas)
        sharing.update(ranks[number] for number in crowd)
    return sharing


def crowded(
    cores: Sequence[Collection[int]],
    threads: Sequence[int] | None = None,
    quotas: Sequence[Mapping[str, float]] = (),
) -> set[int]:
    """Return which ranks of one machine cannot have a core for each of their threads.

    Ranks with one set of cores share it; so do those whose sets overlap, all together.

    Parameters
    ----------
    cores : sequence of sets of int
        What each rank may use.
    threads : sequence of int, optional
        Threads of each rank; by default one.
    quotas : sequence of mappings, optional
        Cores that the control groups of each rank allow (`cgroups.quotas`).
    """
    threads = [1] * len(cores) if threads is None else threads
    found: set[int] = set()
    for group, allowance in _limits(quotas).items():
        members = [rank for rank, own in enumerate(quotas) if group in own]
        if sum(threads[rank] for rank in members) > allowance:
            found.update(members)
    alike: dict[frozenset[int], list[int]] = defaultdict(list)
    for rank, allowed in enumerate(cores):
        alike[frozenset(allowed)].append(rank)
    together: list[tuple[set[int], list[int]]] = []
    for allowed, ranks in alike.items():
        union, members = set(allowed), list(ranks)
        for other in [other for other in together if other[0] & allowed]:
            together.remove(other)
            union |= other[0]
            members += other[1]
        together.append((union, members))
    for union, ranks in [
        *((set(one), group) for one, group in alike.items()),
        *together,
    ]:
        if sum(threads[rank] for rank in ranks) > len(union):
            found.update(ranks)
    return found


def _limits(quotas: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return every group that any rank is in, with its cores."""
    return {group: cores for own in quotas for group, cores in own.items()}


def usable(
    cores: Sequence[Collection[int]], quotas: Sequence[Mapping[str, float]] = ()
) -> float:
    """Return how many cores the ranks of one machine have together.

    Parameters
    ----------
    cores, quotas : sequences
        As in `crowded`.
    """
    found = [float(len(set().union(*cores)))]
    limits = _limits(quotas)
    found += [limits[group] for group in limits if all(group in own for own in quotas)]
    if quotas and all(quotas):  # each has a tightest one; some may have it in common
        inner = {min(own, key=lambda group: own[group]) for own in quotas}
        found.append(sum(limits[group] for group in inner))
    least = min(found)
    return int(least) if least.is_integer() else least


def compact(numbers: Iterable[int]) -> str:
    """Return numbers as the kernel writes them: ``"0-3,8"``."""
    words: list[str] = []
    first = last = -2
    for number in sorted(set(numbers)):
        if number != last + 1:
            first = number
            words.append("")
        last = number
        words[-1] = str(first) if first == last else f"{first}-{last}"
    return ",".join(words)


def spread(text: str) -> set[int]:
    """Return the numbers of a text such as ``"0-3,8"``."""
    found: set[int] = set()
    for word in filter(None, text.split(",")):
        first, _, last = word.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def lines(places: Sequence[Place]) -> dict[str, str]:
    """Return the map from ranks to cores in words, one entry per node.

    Parameters
    ----------
    places : sequence of Place
        Of all ranks, by rank.
    """
    nodes: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for rank, place in enumerate(places):
        where = f"cpus {place.cpus}"
        if quota := cgroups.tightest(place.quotas):
            where += f", {quota:g} cores by quota"
        if place.gpu:
            where += f", GPU {place.gpu}"
        nodes[place.host][where].append(rank)
    return {
        host: "; ".join(
            f"rank{'s' * (len(ranks) > 1)} {compact(ranks)} on {where}"
            for where, ranks in groups.items()
        )
        for host, groups in nodes.items()
    }


def summary(places: Sequence[Arranged]) -> str:
    """Return nodes, ranks per node and sharing in a few words."""
    counts = {place.node: place.node_ranks for place in places}
    sizes = sorted(set(counts.values()))
    ranks = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    sharing = sum(place.shares for place in places)
    where = f"each of {len(counts)} nodes" if len(counts) > 1 else "one node"
    words = f"{ranks} rank{'s' * (ranks != '1')} on {where}"
    return words + (f", {sharing} of which share cores" if sharing else "")
