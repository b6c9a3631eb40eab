"""What communication and computing cost on this machine: ``dsgd-bench probe``.

Measured by the verbs of the fabric, as algorithms use them, between two ranks of one
node and of two nodes, and among all ranks. The result is a machine profile.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from dsgd_bench.bench.flags import GIB, short
from dsgd_bench.bench.output import header
from dsgd_bench.errors import ConfigError
from dsgd_bench.fabric.preflight import BUSY_SECONDS
from dsgd_bench.host import mpi_bugs, provenance
from dsgd_bench.probe import busy, gradients, tables
from dsgd_bench.probe.operations import AMONG_MANY, BETWEEN_TWO
from dsgd_bench.probe.samples import FEWEST, LIMIT, ProbeOptions, Series
from dsgd_bench.spec.machine_profile import (
    ALLOCATED,
    FAR,
    NEAR,
    PASSIVE,
    VERSION,
    Busy,
    GradientTime,
    Profile,
)

if TYPE_CHECKING:
    from dsgd_bench.fabric.mpi.fabric import MpiFabric

__all__ = ["Probe", "ProbeOptions", "groups", "pairs"]

Stage: TypeAlias = Callable[[str], AbstractContextManager[None]]
"""Shows that something is measured while its block runs."""

VECTORS_HELD = 3
"""Of the largest size per rank, most of all: those of an exchange on a ring."""

MEMORY_SHARE = 0.8
"""Of a node's memory that these may take."""


class Probe:
    """One rank of a probe; collective to make.

    Parameters
    ----------
    fabric : MpiFabric
        This rank's fabric.
    options : ProbeOptions
        What was asked.

    Attributes
    ----------
    stages : int
        How many things are measured, one after the other.

    Raises
    ------
    ConfigError
        If there is one rank only, the vectors do not fit, or the profile cannot be
        written.
    """

    def __init__(self, fabric: "MpiFabric", options: ProbeOptions) -> None:
        if fabric.size < 2:
            raise ConfigError(
                "probe measures between ranks, and this is one rank by itself: start "
                "it as `mpiexec -n 4 dsgd-bench probe`, or with srun"
            )
        self._fabric, self._options = fabric, options
        self._nodes = _nodes(fabric)
        self._per_node = max(Counter(self._nodes).values())
        for reason in fabric.gather(self._refusal()):
            if reason:
                raise ConfigError(reason)
        self._pairs = pairs(self._nodes)
        self._groups = groups(fabric.size)
        self._thread = False
        self.stages = len(self._pairs) * (1 + len(BETWEEN_TWO))
        self.stages += len(self._groups) * len(AMONG_MANY) + len(gradients.TIMED)

    def _refusal(self) -> str:
        """Say why this rank cannot take part, or nothing."""
        largest, output = max(self._options.sizes), self._options.output
        need = VECTORS_HELD * self._per_node * largest
        host = provenance.host()
        if need > MEMORY_SHARE * (host.memory_limit or host.memory_bytes):
            return (
                f"{self._per_node} ranks on a node need {need / GIB:.3g} GiB for "
                f"vectors of {short(largest)}: ask for smaller ones, such as -m 8:4M"
            )
        folder = output.absolute().parent
        writable = os.access(folder, os.W_OK) and not output.is_dir()
        if self._fabric.rank == 0 and not writable:
            return f"{output} cannot be written: choose another --output"
        return ""

    def report(
        self, profile: Profile, series: dict[str, dict[str, Series]]
    ) -> list[str]:
        """Return all that is printed, as lines; whole on rank 0. Collective."""
        options = self._options
        measured = ", ".join(
            f"{name} (ranks {first} and {second})"
            for name, (first, second) in self._pairs.items()
        )
        missing = [name for name in (NEAR, FAR) if name not in self._pairs]
        facts = {
            "MPI library": profile.provenance["mpi_library"],
            "Nodes": f"{profile.nodes}, at most {profile.ranks_per_node} ranks on one",
            "Pairs": measured + "".join(f"; no {name} ones here" for name in missing),
            "Iterations": f"{options.iterations}, or what {LIMIT:g} s allow but not "
            f"below {FEWEST}; warm-up {options.warm_up}",
            "Progress thread": "runs, as in runs here" if self._thread else "none",
        }
        lines = header(self._fabric, "probe: what this machine takes", facts)
        if self._fabric.rank:
            return lines
        for who, found in series.items():
            title = tables.CLASSES.get(who, who)
            lines += ["", *tables.latencies(title, found)]
            if options.full or options.percentiles:
                for name, one in found.items():
                    lines += ["", *tables.details(f"{title}: {name}", one, options)]
        for part in (tables.lines, tables.answers, tables.computing):
            lines += ["", *part(profile)]
        return lines

    def run(self, stage: Stage) -> tuple[Profile, dict[str, dict[str, Series]]]:
        """Measure everything.

        Returns
        -------
        tuple
            The profile, and the series behind it: who -> operation -> series. Both
            are whole on rank 0 only.
        """
        found = self._answers(stage)
        waits = any(
            answer.verdict != PASSIVE
            for flavors in found.values()
            for answer in flavors[ALLOCATED].values()
        )
        self._thread = self._fabric.gather(waits)[0]
        series: dict[str, dict[str, Series]] = {}
        for name, ranks in self._pairs.items():
            series[name] = self._series(name, ranks, BETWEEN_TWO, stage)
        for size in self._groups:
            who = f"{size} ranks"
            series[who] = self._series(who, range(size), AMONG_MANY, stage)
        times = {}
        for kind in gradients.TIMED:
            with stage(f"gradients of {kind}"):
                times[kind] = gradients.gradient(self._fabric, kind, self._options)
        return self._profile(found, series, times), series

    def _answers(self, stage: Stage) -> Busy:
        """Ask busy targets without and with the progress thread.

        Only classes in which this rank took part are found.
        """
        found = {}
        for name, ranks in self._pairs.items():
            with stage(f"{name}: busy targets"):
                alone, with_thread = self._busy(ranks), self._busy(ranks, thread=True)
            if self._fabric.rank in ranks:
                found[name] = busy.answers(alone, with_thread)
        return found

    def _busy(self, ranks: Sequence[int], *, thread: bool = False) -> busy.Seconds:
        with self._part(ranks, thread=thread) as pair:
            return busy.times(pair) if pair else {}

    @contextmanager
    def _part(
        self, ranks: Sequence[int], *, thread: bool
    ) -> Iterator["MpiFabric | None"]:
        """Give some ranks a fabric of their own; the others sleep meanwhile.

        They wait for each other as all ranks would.
        """
        from dsgd_bench.fabric.mpi.bare import idle

        part = self._fabric.part(ranks)
        if part is not None:
            part.crowded = self._fabric.crowded
            if thread:
                part.start_progress()
        yield part
        if part is not None:
            part.close()
        idle(self._fabric.comm)

    def _series(
        self, who: str, ranks: Sequence[int], operations: dict[str, Any], stage: Stage
    ) -> dict[str, Series]:
        """Time all operations among some ranks; only those have results."""
        found = {}
        with self._part(ranks, thread=self._thread) as part:
            for name, operation in operations.items():
                with stage(f"{who}: {name}"):
                    if part is not None:
                        found[name] = operation(part, self._options)
        return found

    def _profile(
        self,
        found: Busy,
        series: dict[str, dict[str, Series]],
        times: dict[str, GradientTime],
    ) -> Profile:
        origin = self._fabric.describe()
        family, _ = mpi_bugs.identify(origin["mpi_library"])
        measured = {
            who: {name: one.measured() for name, one in all_.items() if one.samples}
            for who, all_ in series.items()
        }
        among = {
            name: {
                size: measured[f"{size} ranks"][name]
                for size in self._groups
                if measured[f"{size} ranks"]
            }
            for name in AMONG_MANY
        }
        return Profile(
            VERSION,
            origin | provenance.collect() | {"progress_thread": self._thread},
            ranks=self._fabric.size,
            nodes=len(set(self._nodes)),
            ranks_per_node=self._per_node,
            pairs={name: measured[name] for name in self._pairs},
            allreduce=among["allreduce"],
            neighborhood=among["neighborhood"],
            busy_target=BUSY_SECONDS,
            busy=found,
            remedies=busy.remedies(found, family),
            gradients=times,
            timer=gradients.timer(self._fabric.now),
        )


def _nodes(fabric: "MpiFabric") -> list[Any]:
    """Return what tells every rank's node from others; collective.

    A host's name, and who shares memory there: containers, and what
    ``MPIR_CVAR_NUM_CLIQUES`` makes of one host, are nodes of their own.
    """
    return list(zip(fabric.nodes(), fabric.gather(min(fabric.near)), strict=True))


def pairs(nodes: Sequence[Any]) -> dict[str, tuple[int, int]]:
    """Choose rank 0 and the first other rank on its node, and the first one elsewhere.

    Parameters
    ----------
    nodes : sequence
        Every rank's node.
    """
    near = [node == nodes[0] for node in nodes]
    found = {}
    for name, same in ((NEAR, True), (FAR, False)):
        if same in near[1:]:
            found[name] = (0, near.index(same, 1))
    return found


def groups(size: int) -> list[int]:
    """Return how many ranks do together what is done together: 2, 4, 8, ..., all."""
    powers = [2**k for k in range(1, size.bit_length()) if 2**k < size]
    return [*powers, size]
