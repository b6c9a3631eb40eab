"""What a study would cost: trials, ranks, traffic, memory and time; nothing is run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import msgspec
from msgspec import structs

from dsgd_bench import problems, slowdowns
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.algorithms.base import Algorithm
from dsgd_bench.config import naming
from dsgd_bench.errors import ConfigError
from dsgd_bench.fabric.columns import COLUMNS
from dsgd_bench.graphs import Graph
from dsgd_bench.host import environment
from dsgd_bench.problems.classifier import Classifier
from dsgd_bench.spec import strict
from dsgd_bench.spec.machine import Machine
from dsgd_bench.spec.trial import ProblemSpec, Study, Trial
from dsgd_bench.study import capacity, launch
from dsgd_bench.trial import gradient_time

START_SECONDS = 2.0
"""What starting, warming up, evaluating and merging one trial takes, roughly."""

GIB = 2**30

INTERPRETER_BYTES = 60 * 2**20
"""What a Python process with its libraries takes, roughly."""

LIBRARY_BYTES = {"torch": 200 * 2**20}
"""What a library that only one kind of problem loads takes besides, roughly."""

SIMULATED_VECTORS = 3
"""Vectors of a simulated rank beside its algorithm's and snapshots: to evaluate."""

SIMULATED_RANK_BYTES = 184 * 2**10
"""What a simulated rank takes beside its vectors and records, roughly."""

RECORD_BYTES = 2.5 * 8 * len(COLUMNS)
"""What a step of a simulated rank takes until the trace is written."""

LOOKED_AT = 64
"""Ranks, and gradients of each, of which the longest is looked for."""

TAIL = 20.0
"""Standard deviations above the mean that a drawn gradient time never reaches."""

LARGEST_GAP = 2048
"""Ranks up to which spectral gaps are computed: the time grows with their cube."""


@dataclass(frozen=True)
class Cost:
    """What one trial would cost.

    Attributes
    ----------
    trial : Trial
        The trial.
    model_bytes : int
        Size of the model.
    bytes_per_step : float or None
        Handed over to be sent by one rank per gradient; None if it is a result.
    memory_per_rank : int
        Bytes of one rank: models, snapshots, data, what lies between the
        layers of a network of ours, the interpreter.
    memory : int or None
        Bytes of the one process that simulates all ranks; None on MPI.
    graph : str
        The algorithm's graph; empty if it has none.
    messages_per_step : float or None
        Sent by one rank along that graph per gradient, on average; None without a
        graph, or if it is a result.
    spectral_gap : float or None
        Of that graph; None without one, and with more than `LARGEST_GAP` ranks.
    seconds : float or None
        Estimated duration; None if the budget names no time and compute is measured.
    """

    trial: Trial
    model_bytes: int
    bytes_per_step: float | None
    memory_per_rank: int
    memory: int | None
    graph: str
    messages_per_step: float | None
    spectral_gap: float | None
    seconds: float | None


def cost(trial: Trial) -> Cost:
    """Estimate what one trial costs.

    Raises
    ------
    ConfigError
        If the problem cannot be built as asked, or not dealt out to that many ranks, or
        the algorithm cannot run on the graph.
    """
    algorithm = ALGORITHMS[trial.algorithm.kind]
    problem = _dealt_out(trial, algorithm)
    model = problem.dimension * problem.dtype.itemsize
    settings = trial.algorithm.settings
    sent = algorithm.sent(settings, trial.ranks)
    graph = algorithm.setup(settings, trial.ranks).graph
    seconds = gradient_time.mean(trial.compute)
    per_rank, memory = _memory(trial, problem, algorithm, seconds)
    return Cost(
        trial=trial,
        model_bytes=model,
        bytes_per_step=None if sent is None else sent * model,
        memory_per_rank=per_rank,
        memory=memory,
        graph=graph.name if graph else "",
        messages_per_step=sent if graph else None,
        spectral_gap=_gap(graph) if graph and graph.size <= LARGEST_GAP else None,
        seconds=_seconds(trial, problem.samples, algorithm, seconds),
    )


def _dealt_out(trial: Trial, algorithm: Algorithm) -> problems.Problem:
    """Return the problem of a trial, if its samples can be dealt out to the ranks."""
    spec, shards = trial.problem, trial.problem.shards
    try:
        problem = _problem(msgspec.json.encode(spec), trial.seed)
        servers = algorithm.servers(trial.algorithm.settings, trial.ranks)
        problems.Batches(
            problem,
            ranks=trial.ranks - servers,
            rank=0,
            batch=spec.batch,
            shards_by=shards.by,
            alpha=shards.alpha,
            seed=trial.seed,
        )
        _work_bytes(problem, spec.batch)
    except MemoryError:
        raise ConfigError(
            f"problem.kind {spec.kind} with {strict.show(spec.settings)} and "
            f"problem.batch = {spec.batch} is larger than the memory of this machine: "
            "make it smaller"
        ) from None
    return problem


def _memory(
    trial: Trial, problem: problems.Problem, algorithm: Algorithm, compute: float
) -> tuple[int, int | None]:
    """Return the bytes of one rank, and of the process that simulates all of them."""
    model = problem.dimension * problem.dtype.itemsize
    vectors = algorithm.vectors + trial.measure.copies + bool(trial.optimizer.momentum)
    process = INTERPRETER_BYTES + LIBRARY_BYTES.get(trial.problem.kind, 0)
    process += problem.data_bytes + _work_bytes(problem, trial.problem.batch)
    if trial.network is None:
        return vectors * model + process, None
    steps = _steps(trial, problem.samples, algorithm, compute) or 0.0
    rank = (vectors + SIMULATED_VECTORS) * model + SIMULATED_RANK_BYTES
    rank += int(RECORD_BYTES * steps)
    return rank, trial.ranks * rank + process


def _work_bytes(problem: problems.Problem, batch: int) -> int:
    """Return the bytes that a gradient works on; nothing to speak of without layers."""
    return problem.work_bytes(batch) if isinstance(problem, Classifier) else 0


@lru_cache
def _gap(graph: Graph) -> float:
    """Return the spectral gap; the trials of a study share few graphs."""
    return graph.spectral_gap()


def model_bytes(trial: Trial) -> int:
    """Return the size of a trial's model.

    Raises
    ------
    ConfigError
        If the problem cannot be built as asked.
    """
    problem = _problem(msgspec.json.encode(trial.problem), trial.seed)
    return problem.dimension * problem.dtype.itemsize


@lru_cache(maxsize=1)
def _problem(spec: bytes, seed: int) -> problems.Problem:
    """Build the problem that JSON describes; data of any size only once."""
    return problems.make(msgspec.json.decode(spec, type=ProblemSpec), seed)


def _seconds(
    trial: Trial, epoch: int, algorithm: Algorithm, compute: float
) -> float | None:
    """Estimate from the budget and the emulated compute, by the analytic model.

    A synchronous round lasts as long as its slowest worker; asynchronous ones each run
    at their own speed (AD-PSGD's T0 / ((n - m)/n + m/(n s))).
    """
    budget, slow = trial.budget, trial.slowdown
    n = trial.ranks - algorithm.servers(trial.algorithm.settings, trial.ranks)
    known = [budget.seconds] if budget.seconds else []
    limits = rounds(trial, n, epoch)
    if compute and limits:
        m, kind = len(slow.ranks) or n, slowdowns.kind_of(slow)
        s = kind.slowest(m if algorithm.synchronous else 1)
        stretch = s if algorithm.synchronous else 1 / ((n - m) / n + m / (n * s))
        known += [r * compute * stretch for r in limits]
    return min(known) + START_SECONDS if known else None


def rounds(trial: Trial, workers: int, epoch: int) -> list[float]:
    """Return the steps per worker after which the budget ends, for each of its limits.

    `epoch` is in samples.
    """
    budget, samples = trial.budget, workers * trial.problem.batch
    found = [float(budget.steps)] if budget.steps else []
    found += [budget.samples / samples] if budget.samples else []
    return found + ([budget.epochs * epoch / samples] if budget.epochs else [])


def _steps(
    trial: Trial, epoch: int, algorithm: Algorithm, compute: float
) -> float | None:
    """Return the steps per worker that a simulated trial takes at most, if known."""
    workers = trial.ranks - algorithm.servers(trial.algorithm.settings, trial.ranks)
    limits = rounds(trial, workers, epoch)
    if trial.budget.seconds and compute:
        limits.append(trial.budget.seconds / compute)
    return min(limits, default=None)


def check_memory(costs: Sequence[Cost]) -> None:
    """Refuse simulated trials that this machine's memory cannot hold.

    Raises
    ------
    ConfigError
        Naming the first of them, what it needs and what there is.
    """
    available = environment.available_memory()
    for cost in costs:
        if available is not None and (cost.memory or 0) > available:
            raise ConfigError(
                f"{naming.description(cost.trial)} needs about "
                f"{(cost.memory or 0) / GIB:.1f} GiB in one process, and this machine "
                f"has {available / GIB:.1f} GiB left: take fewer ranks, a smaller "
                "model, fewer measure.copies or a shorter budget"
            )


def lacks(study: Study, machine: Machine) -> list[str]:
    """Say in sentences what this machine has too little of for a study's ranks.

    Of cores, quotas counted, and of shared memory; only where the machine file lets all
    ranks run here, and nothing of studies in virtual time.
    """
    trials = [trial for trial in study.trials if trial.network is None]
    several = (environment.number("SLURM_JOB_NUM_NODES") or 1) > 1
    if not trials or several or launch.goes_elsewhere(machine):
        return []
    largest = max(trials, key=lambda trial: trial.ranks)
    sentences = (
        capacity.crowding(largest.ranks, machine),
        capacity.too_little_shared_memory(largest.ranks, model_bytes(largest)),
    )
    return [sentence for sentence in sentences if sentence]


def check_patience(study: Study, machine: Machine) -> None:
    """Refuse a watchdog that would end ranks which are only as slow as they should be.

    What is drawn at random, and not bounded below the watchdog, is looked at for the
    first `LOOKED_AT` gradients of each rank, as the run will draw it.

    Raises
    ------
    ConfigError
        Naming the first trial with such a step, and how long it takes.
    """
    for trial in study.trials:
        if trial.network is None and (longest := _longest(trial, machine.watchdog)):
            raise ConfigError(
                f"{study.path}: a step of {naming.description(trial)} is made to take "
                f"{longest:.4g} s, but the watchdog ends ranks that do not move for "
                f"{machine.watchdog:g} s: set watchdog in the machine file to more "
                f"than {longest:.4g}"
            )


def _longest(trial: Trial, watchdog: float) -> float:
    """Return what the longest emulated step takes, if that is too much; else 0."""
    spec, slow = trial.compute, trial.slowdown
    most = slowdowns.kind_of(slow).longest
    bound = spec.seconds * (1 + TAIL * spec.variation) * most + slow.links.seconds
    if bound < watchdog and spec.mode != "resampled":
        return 0.0
    steps = min(trial.budget.steps or LOOKED_AT, LOOKED_AT)
    longest = 0.0
    for rank in range(min(trial.ranks, LOOKED_AT)):
        times = gradient_time.of(spec, seed=trial.seed, rank=rank)
        factors = slowdowns.Slowdown(slow, seed=trial.seed, rank=rank)
        taken = (times.seconds(step) * factors.factor(step) for step in range(steps))
        longest = max(longest, *taken)
    longest += slow.links.seconds
    return longest if longest >= watchdog else 0.0


def costs(study: Study) -> list[Cost]:
    """Estimate every trial of a study, in the order in which they would run.

    Repeats differ in their seed alone, and cost the same.
    """
    alike = [structs.replace(t, seed=0, repeat=0).to_json() for t in study.trials]
    by_problem = sorted(
        zip(alike, study.trials, strict=True),
        key=lambda pair: msgspec.json.encode(pair[1].problem),
    )
    found: dict[str, Cost] = {}
    for key, trial in by_problem:
        if key not in found:
            found[key] = cost(trial)
    return [
        replace(found[key], trial=trial)
        for key, trial in zip(alike, study.trials, strict=True)
    ]
