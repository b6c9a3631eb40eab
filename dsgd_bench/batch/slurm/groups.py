"""Trials by size: what one job, or one array of jobs, is asked to run.

Trials on equally many ranks share an allocation that fits them, one after the other, in
the study's shuffled order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsgd_bench.errors import ConfigError
from dsgd_bench.spec.batch import SlurmSpec
from dsgd_bench.spec.machine import Machine
from dsgd_bench.spec.trial import Study, Trial
from dsgd_bench.study.plan import Cost

JOBS = "jobs"
"""Folder beside the trials of a study, where its jobs are kept."""


@dataclass(frozen=True)
class Order:
    """A study that is to be run as jobs.

    Attributes
    ----------
    study : Study
        What is run.
    changes : tuple of str
        Made to the study file when it was read, as ``--set`` has them.
    machine : Machine
        Where.
    machine_file : Path
        What `machine` was read from.
    results : Path
        Where results go, absolute.
    """

    study: Study
    changes: tuple[str, ...]
    machine: Machine
    machine_file: Path
    results: Path

    @property
    def folder(self) -> Path:
        """Where the study's results are."""
        return self.results / self.study.name

    @property
    def slurm(self) -> SlurmSpec:
        """What the machine file asks of Slurm.

        Raises
        ------
        ConfigError
            If it does not ask for anything.
        """
        if self.machine.slurm is None:
            raise ConfigError(
                f"{self.machine_file} has no table [slurm], so there is nothing to "
                "submit to: take a machine file like jobs/slurm-cpu.toml, or start the "
                "study with `dsgd-bench run`"
            )
        return self.machine.slurm

    @property
    def most_nodes(self) -> int:
        """Nodes of the study's largest trial."""
        ranks = max(trial.ranks for trial in self.study.trials)
        return math.ceil(ranks / self.slurm.ranks_per_node)


@dataclass(frozen=True)
class Group:
    """Trials of one size and the allocation that fits them.

    Attributes
    ----------
    trials : tuple of Trial
        In the order in which they are run.
    seconds : float or None
        Estimated, all together; None if that is not known of each.
    slurm : SlurmSpec
        What the machine file asks for.
    cores_per_rank : int
        Cores of one rank.
    """

    trials: tuple[Trial, ...]
    seconds: float | None
    slurm: SlurmSpec
    cores_per_rank: int

    @property
    def ranks(self) -> int:
        """Ranks of each trial."""
        return self.trials[0].ranks

    @property
    def nodes(self) -> int:
        """As few nodes as the machine file allows."""
        return math.ceil(self.ranks / self.slurm.ranks_per_node)

    @property
    def ranks_per_node(self) -> int:
        """Ranks on one node, dealt as evenly as they can be."""
        return math.ceil(self.ranks / self.nodes)

    @property
    def jobs(self) -> int:
        """Identical jobs that share the trials, never more than there are trials."""
        return min(self.slurm.array, len(self.trials))

    @property
    def cores(self) -> int:
        """Cores that one job is charged for; of nodes of its own, at least these."""
        exclusive = self.nodes * self.slurm.ranks_per_node
        ranks = exclusive if self.slurm.exclusive else self.ranks
        return ranks * self.cores_per_rank

    @property
    def core_hours(self) -> float | None:
        """Estimated core-hours of all trials, however many jobs share them."""
        return None if self.seconds is None else self.seconds * self.cores / 3600

    @property
    def most_core_hours(self) -> float:
        """Core-hours if every job, never restarted, runs into its time limit."""
        return self.jobs * self.slurm.seconds * self.cores / 3600

    def warning(self, stop_margin: float) -> str:
        """Say that the trials cannot end within the time limit, if that is so."""
        starts = self.jobs * (1 + self.slurm.restarts)
        if self.seconds is None or self.seconds <= starts * (
            self.slurm.seconds - stop_margin
        ):
            return ""
        return (
            f"the {len(self.trials)} trials on {self.ranks} ranks take about "
            f"{self.seconds:.0f} s together, more than {starts} x {self.slurm.seconds} "
            f"s less {stop_margin:g} s each to stop in: raise slurm.time, slurm.array "
            "or slurm.restarts, or submit again for what is left"
        )


def grouped(order: Order, costs: Sequence[Cost]) -> list[Group]:
    """Put trials together by their number of ranks, the smallest first.

    Parameters
    ----------
    order : Order
        The study and the machine.
    costs : sequence of Cost
        Of the trials that are to be run, in their order.

    Raises
    ------
    ConfigError
        If the machine file asks nothing of Slurm.
    """
    slurm = order.slurm
    by_ranks: dict[int, list[Cost]] = {}
    for cost in costs:
        by_ranks.setdefault(cost.trial.ranks, []).append(cost)
    groups = []
    for _, members in sorted(by_ranks.items()):
        known = [cost.seconds for cost in members if cost.seconds is not None]
        groups.append(
            Group(
                trials=tuple(cost.trial for cost in members),
                seconds=sum(known) if len(known) == len(members) else None,
                slurm=slurm,
                cores_per_rank=slurm.cores_per_rank or order.machine.threads_per_rank,
            )
        )
    return groups
