"""Replays a run in virtual time: the same algorithm and times, no gradients."""

import numpy as np
from msgspec import structs

from dsgd_bench import problems, trace
from dsgd_bench.errors import ConfigError
from dsgd_bench.host import environment
from dsgd_bench.replay.record import Change, Record, seconds_moving
from dsgd_bench.spec.network import LinkSpec, NetworkSpec, OperationSpec, preset
from dsgd_bench.spec.ranges import FASTEST
from dsgd_bench.spec.trial import (
    BudgetSpec,
    ComputeSpec,
    MeasureSpec,
    ProblemSpec,
    SlowdownSpec,
    Trial,
)
from dsgd_bench.study import simulation
from dsgd_bench.trace import Trace
from dsgd_bench.trial.gradient_time import Replayed
from dsgd_bench.trial.run import Run, Together

DIMENSION = 10_000
"""Elements of a model at most; on the wire it is as long as the true one."""

FITS, CLOSE = 8, 0.02
"""Replays in which the network is fitted, at most; how close is close enough."""

STEEPEST = 100.0
"""A fit changes the network by this factor at a time, at most."""


def replay(record: Record, network: NetworkSpec, change: Change) -> Trace:
    """Return the trace of a replay over a network, for as many samples as the run."""
    trial = _trial(record, faster(network, change.network), change)
    problem = problems.make(trial.problem, trial.seed)
    times = [Replayed(record.times(w, change)) for w in range(record.workers)]
    together = Together(problem, replayed=times)
    with environment.scratch_folder() as folder:
        work = Run(
            trial,
            folder,
            record.trace.study,
            progress="none",
            provenance={},
            resumes=False,
            together=together,
        )
        simulation.world_of(trial, problem).run(work)
        return trace.open_trace(trace.write_trace(folder, together.shards))


def _trial(record: Record, network: NetworkSpec, change: Change) -> Trial:
    """Return the trial of a run with messages instead of models."""
    measured, trial = record.trace, record.trace.trial
    size = {"float32": 4, "float64": 8}[trial.problem.dtype]
    settings = {
        "dimension": min(measured.model_bytes // size, DIMENSION),
        "samples": measured.epoch_samples,
    }
    links = trial.slowdown.links
    if change.network != 1.0:
        rate = _rate(links.rate, change.network)
        links = structs.replace(
            links, rate=rate, seconds=links.seconds / change.network
        )
    return structs.replace(
        trial,
        problem=ProblemSpec(
            "message", trial.problem.batch, trial.problem.dtype, settings=settings
        ),
        compute=ComputeSpec("emulated"),
        slowdown=SlowdownSpec(links=links) if change.links else SlowdownSpec(),
        budget=BudgetSpec(samples=int(measured["samples_done"].sum())),
        measure=MeasureSpec(copies=3),
        network=structs.replace(network, wire_bytes=measured.model_bytes),
    )


def faster(network: NetworkSpec, times: float) -> NetworkSpec:
    """Return a network in which everything goes so many times faster."""
    if times == 1.0:
        return network
    found = network.allreduce
    allreduce = structs.replace(
        found, seconds=found.seconds / times, rate=_rate(found.rate, times)
    )
    near, far = _faster(network.near, times), _faster(network.far, times)
    return structs.replace(network, near=near, far=far, allreduce=allreduce)


def _faster(link: LinkSpec, times: float) -> LinkSpec:
    operations = {
        kind: OperationSpec(cost.seconds / times, _rate(cost.rate, times))
        for kind, cost in link.operations.items()
    }
    return structs.replace(
        link,
        latency=link.latency / times,
        overhead=link.overhead / times,
        rate=_rate(link.rate, times),
        operations=operations,
    )


def _rate(rate: float, times: float) -> float:
    return min(rate * times, FASTEST)


def fitted(record: Record) -> NetworkSpec:
    """Return the network of a simulated run, or one that is fitted to a measured one.

    It is a preset, slowed down or sped up until data are on their way for as long per
    step as in the run: one number is fitted, and not to the time of an epoch.
    """
    measured = record.trace
    if measured.trial.network is not None:
        return measured.trial.network
    network = structs.replace(
        preset("ethernet-10"),
        name="fitted to the trace",
        ranks_per_node=_ranks_per_node(record),
    )
    for _ in range(FITS):
        moving = seconds_moving(replay(record, network, Change()))
        ratio = moving / record.moving if record.moving else 1.0
        if not ratio or abs(ratio - 1) < CLOSE:
            break
        network = faster(network, min(max(ratio, 1 / STEEPEST), STEEPEST))
    return network


def _ranks_per_node(record: Record) -> int:
    """Return the ranks of a node, which must be the same on all but the last.

    Where the trace does not know them, every rank is a node.

    Raises
    ------
    ConfigError
        If they are not.
    """
    counts = np.nan_to_num(record.trace["node_ranks"], nan=1.0).astype(int)
    ranks, most = len(counts), int(counts.max())
    last = ranks % most
    if (counts[: ranks - last] != most).any():
        raise ConfigError(
            f"{record.trace.path} has nodes with {counts.min()} to {most} ranks, which "
            "no simulated network has: name a run with as many ranks on each node"
        )
    return most
