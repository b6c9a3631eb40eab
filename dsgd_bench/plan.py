"""What a study would cost: trials, ranks, traffic, memory and time; nothing is run."""

from dataclasses import dataclass
from functools import lru_cache

import msgspec

from dsgd_bench import problems
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.algorithms.base import Algorithm
from dsgd_bench.graphs import Graph
from dsgd_bench.problems.classifier import Classifier
from dsgd_bench.specs import ProblemSpec, Study, Trial

START_SECONDS = 2.0
"""What starting, warming up, judging and merging one trial takes, roughly."""

INTERPRETER_BYTES = 60 * 2**20
"""What a Python process with its libraries takes, roughly."""

LIBRARY_BYTES = {"torch": 200 * 2**20}
"""What a library that only one kind of problem loads takes besides, roughly."""


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
        Bytes of one rank: models, copies for judging, data, what lies between the
        layers of a network of ours, the interpreter.
    graph : str
        The algorithm's graph; empty if it has none.
    messages_per_step : float or None
        Sent by one rank along that graph per gradient, on average; None without a
        graph, or if it is a result.
    spectral_gap : float or None
        Of that graph.
    seconds : float or None
        Estimated duration; None if the budget names no time and compute is measured.
    """

    trial: Trial
    model_bytes: int
    bytes_per_step: float | None
    memory_per_rank: int
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
    problem = _problem(msgspec.json.encode(trial.problem), trial.seed)
    shards = trial.problem.shards
    problems.Batches(
        problem,
        ranks=trial.ranks - algorithm.servers(trial.algorithm.settings, trial.ranks),
        rank=0,
        batch=trial.problem.batch,
        shards_by=shards.by,
        alpha=shards.alpha,
        seed=trial.seed,
    )
    model = problem.dimension * problem.dtype.itemsize
    vectors = algorithm.vectors + trial.measure.copies + bool(trial.optimizer.momentum)
    libraries = INTERPRETER_BYTES + LIBRARY_BYTES.get(trial.problem.kind, 0)
    work = _work_bytes(problem, trial.problem.batch)
    settings = trial.algorithm.settings
    sent = algorithm.sent(settings, trial.ranks)
    graph = algorithm.graphs(settings, trial.ranks).get("graph")
    return Cost(
        trial=trial,
        model_bytes=model,
        bytes_per_step=None if sent is None else sent * model,
        memory_per_rank=vectors * model + problem.data_bytes + work + libraries,
        graph=graph.name if graph else "",
        messages_per_step=sent if graph else None,
        spectral_gap=_gap(graph) if graph else None,
        seconds=_seconds(trial, problem.samples, algorithm),
    )


def _work_bytes(problem: problems.Problem, batch: int) -> int:
    """Return the bytes that a gradient works on; nothing to speak of without layers."""
    return problem.work_bytes(batch) if isinstance(problem, Classifier) else 0


@lru_cache
def _gap(graph: Graph) -> float:
    """Return the spectral gap; the trials of a study share few graphs."""
    return graph.spectral_gap()


@lru_cache(maxsize=1)
def _problem(spec: bytes, seed: int) -> problems.Problem:
    """Build the problem that JSON describes; data of any size only once."""
    return problems.make(msgspec.json.decode(spec, type=ProblemSpec), seed)


def _seconds(trial: Trial, epoch: int, algorithm: Algorithm) -> float | None:
    """Estimate from the budget and the emulated compute, by the analytic model.

    A synchronous round lasts as long as its slowest worker; asynchronous ones each run
    at their own speed (AD-PSGD's T0 / ((n - m)/n + m/(n s))).
    """
    budget, slow = trial.budget, trial.slowdown
    n = trial.ranks - algorithm.servers(trial.algorithm.settings, trial.ranks)
    known = [budget.seconds] if budget.seconds else []
    if trial.compute.seconds:
        rounds = [float(budget.steps)] if budget.steps else []
        if budget.samples:
            rounds.append(budget.samples / (n * trial.problem.batch))
        if budget.epochs:
            rounds.append(budget.epochs * epoch / (n * trial.problem.batch))
        m = len(slow.ranks) or n
        s = slow.factor if slow.kind == "constant" else 1.0
        stretch = s if algorithm.synchronous else 1 / ((n - m) / n + m / (n * s))
        known += [r * trial.compute.seconds * stretch for r in rounds]
    return min(known) + START_SECONDS if known else None


def costs(study: Study) -> list[Cost]:
    """Estimate every trial of a study, in the order in which they would run."""
    by_problem = sorted(study.trials, key=lambda trial: trial.seed)
    found = {trial.id: cost(trial) for trial in by_problem}
    return [found[trial.id] for trial in study.trials]
