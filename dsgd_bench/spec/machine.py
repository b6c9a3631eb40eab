"""Where trials run: the launcher, the batch system, links and GPUs."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from dsgd_bench.spec.batch import SlurmSpec
from dsgd_bench.spec.ranges import Duration, Few, KnownRate, Rate


class LinksSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """What the links of the hosts can carry, bit/s each way; 0 is unknown.

    `hosts` are those by name whose links differ; case does not matter, a short name
    means the host of any domain, and one that means no host of a trial is refused when
    it starts. It sets nothing: the report compares times per step with what such links
    allow.
    """

    rate: Rate = 0.0
    hosts: dict[str, KnownRate] = {}


class GpuSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """How ranks use their GPUs.

    `transport` is how vectors on a GPU reach other ranks: ``staged`` through pinned
    host memory, ``ipc`` from GPU to GPU on one host, handed to a ``gpu-aware`` MPI
    library as they are, or ``auto``, the best of what proves itself. `memory` is the
    share of a GPU's memory that all ranks on it may take together.
    """

    transport: Literal["auto", "staged", "gpu-aware", "ipc"] = "auto"
    memory: Annotated[float, Meta(gt=0, le=1)] = 0.9


class Machine(Struct, frozen=True, forbid_unknown_fields=True):
    """Where trials run.

    Attributes
    ----------
    launcher : tuple of str
        Words that start the ranks; ``{ranks}`` stands for their number.
    env : dict
        Environment variables for every rank.
    threads_per_rank : int
        Threads of the linear algebra library on each rank.
    watchdog : float
        Seconds without a step after which a trial is ended.
    progress : str
        Who keeps MPI answering during a gradient: a ``thread`` of ours, ``none``, or
        ``auto`` for what the preflight finds necessary.
    stop_margin : float
        Seconds before the end of a batch job at which its ranks stop by themselves.
    when_stopped : str
        What becomes of a trial that was stopped: it can ``resume`` from a checkpoint,
        or ``rerun`` from its start, right for benchmarks of minutes.
    slurm : SlurmSpec or None
        The batch system; None if there is none.
    links : LinksSpec
        What the links of the hosts can carry, as far as known.
    gpu : GpuSpec
        How ranks use their GPUs, where a study computes on them.
    """

    launcher: tuple[str, ...] = ("mpiexec", "-n", "{ranks}")
    env: dict[str, str] = {}
    threads_per_rank: Few = 1
    watchdog: Duration = 120.0
    progress: Literal["auto", "thread", "none"] = "auto"
    stop_margin: Duration = 60.0
    when_stopped: Literal["resume", "rerun"] = "resume"
    slurm: SlurmSpec | None = None
    links: LinksSpec = LinksSpec()
    gpu: GpuSpec = GpuSpec()
