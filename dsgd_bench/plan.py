"""What a study would cost: trials, ranks, traffic, memory and time; nothing is run."""

from dataclasses import dataclass
from functools import lru_cache

import msgspec

from dsgd_bench import graphs, problems
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.specs import ProblemSpec, Study, Trial

START_SECONDS = 2.0
"""What starting, warming up, judging and merging one trial takes, roughly."""

INTERPRETER_BYTES = 60 * 2**20
"""What a Python process with its libraries takes, roughly."""


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
        Bytes of one rank: models, copies for judging, data, the interpreter.
    spectral_gap : float or None
        Of the algorithm's graph, if it has one.
    seconds : float or None
        Estimated duration; None if the budget names no time and compute is measured.
    """

    trial: Trial
    model_bytes: int
    bytes_per_step: float | None
    memory_per_rank: int
    spectral_gap: float | None
    seconds: float | None


def cost(trial: Trial) -> Cost:
    """Estimate what one trial costs.

    Raises
    ------
    ConfigError
        If the problem cannot be built as asked, or not dealt out to that many ranks.
    """
    algorithm = ALGORITHMS[trial.algorithm.kind]
    problem = _problem(msgspec.json.encode(trial.problem), trial.seed)
    shards = trial.problem.shards
    problems.Batches(
        problem,
        ranks=trial.ranks,
        rank=0,
        batch=trial.problem.batch,
        shards_by=shards.by,
        alpha=shards.alpha,
        seed=trial.seed,
    )
    model = problem.dimension * problem.dtype.itemsize
    vectors = algorithm.vectors + trial.measure.copies + bool(trial.optimizer.momentum)
    sent = algorithm.models_sent
    if trial.ranks == 1:
        sent = 0
    gap = None
    if "graph" in algorithm.settings:
        name = trial.algorithm.settings.get("graph", algorithm.settings["graph"][1])
        gap = graphs.make(name, trial.ranks).spectral_gap()
    return Cost(
        trial,
        model,
        None if sent is None else sent * model,
        vectors * model + problem.data_bytes + INTERPRETER_BYTES,
        gap,
        _seconds(trial, problem.samples, synchronous=algorithm.synchronous),
    )


@lru_cache(maxsize=1)
def _problem(spec: bytes, seed: int) -> problems.Problem:
    """Build the problem that JSON describes; data of any size only once."""
    return problems.make(msgspec.json.decode(spec, type=ProblemSpec), seed)


def _seconds(trial: Trial, epoch: int, *, synchronous: bool) -> float | None:
    """Estimate from the budget and the emulated compute, by the analytic model.

    A synchronous round lasts as long as its slowest rank; asynchronous ranks each run
    at their own speed (AD-PSGD's T0 / ((n - m)/n + m/(n s))).
    """
    budget, slow, n = trial.budget, trial.slowdown, trial.ranks
    known = [budget.seconds] if budget.seconds else []
    if trial.compute.seconds:
        rounds = [float(budget.steps)] if budget.steps else []
        if budget.samples:
            rounds.append(budget.samples / (n * trial.problem.batch))
        if budget.epochs:
            rounds.append(budget.epochs * epoch / (n * trial.problem.batch))
        m = len(slow.ranks) or n
        s = slow.factor if slow.kind == "constant" else 1.0
        stretch = s if synchronous else 1 / ((n - m) / n + m / (n * s))
        known += [r * trial.compute.seconds * stretch for r in rounds]
    return min(known) + START_SECONDS if known else None


def costs(study: Study) -> list[Cost]:
    """Estimate every trial of a study, in the order in which they would run."""
    by_problem = sorted(study.trials, key=lambda trial: trial.seed)
    found = {trial.id: cost(trial) for trial in by_problem}
    return [found[trial.id] for trial in study.trials]
