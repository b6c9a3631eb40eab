"""Whether a finished trial is valid: what theory guarantees, checked on its trace.

Only what cannot fail by chance or by load is checked, from the trace alone, so a check
that fails means that the program, the MPI library or the file is wrong. Tolerances are
those of rounding and of clocks. (What papers *expect* is another matter:
`analysis.expectations`.)
"""

from collections.abc import Callable, Iterator
from math import ceil, inf, sqrt
from typing import TYPE_CHECKING

import numpy as np

from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.algorithms.base import Algorithm
from dsgd_bench.analysis import labels, readings, values
from dsgd_bench.analysis.checks import Check, Verification, at_least, at_most, equal
from dsgd_bench.analysis.rows import SPANS
from dsgd_bench.analysis.values import RESOLUTION
from dsgd_bench.config import naming
from dsgd_bench.config.identity import trial_id
from dsgd_bench.exchanges.termination import COUNT_SHARE

if TYPE_CHECKING:
    from dsgd_bench.trace import Trace

LUCK = 8.0
"""lambda of N. J. Higham and T. Mary (SIAM J. Sci. Comput. 41, 2019): k roundings add
up to at most lambda sqrt(k) units, except with probability 2 exp(-lambda^2/2)."""


def verify(trace: "Trace") -> Verification:
    """Check one finished trial; a diverged one has models that cannot be compared.

    Parameters
    ----------
    trace : Trace
        A merged trace.
    """
    trial = trace.trial
    words = [
        f"{naming.label(trial.algorithm)} on {trial.ranks} ranks",
        labels.slowdown(trial),
    ]
    label = f"{', '.join(words)}, seed {trial.seed}"
    subject = _Subject(trace, ALGORITHMS[trial.algorithm.kind])
    checks: list[Check] = []
    with np.errstate(all="ignore"):  # of what is not even possible, see below
        for find in CHECKS:
            try:
                checks += find(subject)
            except Exception:
                # a variable that cannot be what it is has been named: that explains it
                if all(check.passed for check in checks):
                    raise
    return Verification(trial_id(trial), label, tuple(checks))


class _Subject:
    """A trace, with what several checks want to know of it."""

    def __init__(self, trace: "Trace", algorithm: Algorithm) -> None:
        self.trace, self.trial, self.algorithm = trace, trace.trial, algorithm
        self.works = np.asarray(trace["serves"] == 0.0)
        self.workers = int(self.works.sum())
        self.steps = trace["steps_done"][self.works]
        self.unit = float(np.finfo(trace.trial.problem.dtype).eps) / 2

    @property
    def sound(self) -> bool:
        """Whether the models were finite throughout."""
        losses = self.trace["loss_of_mean"]
        return self.trace.status != "diverged" and bool(np.isfinite(losses).all())

    def carried(self, way: str, *, works: bool | None = None) -> float:
        """Return the bytes of all ranks, or of one kind, with those after the end."""
        every = np.ones_like(self.works)
        ranks = every if works is None else self.works == works
        names = (f"bytes_{way}", f"drain_bytes_{way}")
        return sum(float(np.nansum(self.trace[name][ranks])) for name in names)


def _variables(s: _Subject) -> Iterator[Check]:
    why = "nothing that a run can record is like this: the file is damaged"
    found = tuple(values.impossible(s.trace))
    for name, is_now, can_be in {each[0]: each for each in found}.values():
        yield Check(f"variable {name}", False, is_now, can_be, why)
    if not found:
        told = "every number possible"
        yield Check("variables", True, told, told, "a run recorded them")


def _spans(s: _Subject) -> Iterator[Check]:
    trace = s.trace
    lasted, other = trace["duration"], trace["other"]
    known = np.isfinite(lasted)
    error = np.abs(sum(trace[span] for span in SPANS) - lasted)[known]
    yield at_most(
        "spans add up",
        error.max(initial=0.0),
        RESOLUTION,
        "s",
        "every second of a step is booked on exactly one span",
    )
    yield at_least(
        "no second twice",
        other[known].min(initial=0.0),
        -RESOLUTION,
        "s of 'other'",
        "a second booked on two spans is missing in the rest",
    )
    ends = (trace["start"] + lasted)[:, :-1]
    gaps = (trace["start"][:, 1:] - ends)[np.isfinite(trace["start"][:, 1:])]
    yield at_least(
        "steps follow each other",
        gaps.min(initial=0.0),
        -RESOLUTION,
        "s from one to the next",
        "one thread takes the steps of a rank",
    )


def _gradients(s: _Subject) -> Iterator[Check]:
    counted, batch = s.trace["samples_done"], s.trial.problem.batch
    rows = np.isfinite(s.trace["duration"]).sum(axis=1)
    missing = np.abs(rows - s.trace["steps_done"]).max()
    yield at_most(
        "every step recorded", missing, 0.0, "steps", "each step leaves one row"
    )
    wrong = np.abs(counted - np.where(s.works, s.trace["steps_done"] * batch, 0.0))
    yield at_most(
        "every gradient counted",
        wrong.max(),
        0.0,
        "samples",
        f"a worker's step is one gradient of {batch} samples, a server's none",
    )


def _lock_step(s: _Subject) -> Iterator[Check]:
    if s.algorithm.synchronous:
        yield at_most(
            "equal steps",
            s.steps.max() - s.steps.min(),
            0.0,
            "steps apart",
            "a synchronous algorithm: all workers end after the same step",
        )


def _budget(s: _Subject) -> Iterator[Check]:
    """Compare with the limits of `budget.Budget`, as far as they are exact."""
    budget, batch = s.trial.budget, s.trial.problem.batch
    done, n = float(s.steps.sum()), s.workers
    limits = [budget.steps * n] if budget.steps else []
    limits += [ceil(budget.samples / batch)] if budget.samples else []
    if budget.epochs:
        limits.append(ceil(budget.epochs * s.trace.epoch_samples / batch))
    if limits:
        limit = min(limits)
        over = n - 1
        if not s.algorithm.synchronous:  # each reports its steps now and then
            over = n * ceil(max(1.0, COUNT_SHARE * limit / n))
        yield at_most(
            "within the budget",
            done,
            limit + over,
            "gradients",
            f"the budget is {limit} gradients, plus those begun when it was used up",
        )
    if limits and not budget.seconds:
        why = "nothing else ends the run"
        yield at_least("budget used up", done, min(limits), "gradients", why)
    lasted = np.nansum(s.trace["duration"], axis=1)[s.works]
    if budget.seconds and not limits:
        who = lasted[:1] if s.algorithm.synchronous else lasted
        why = "nothing else ends the run"
        least = budget.seconds - RESOLUTION
        yield at_least("budget used up", who.min(), least, "s", why)
    if budget.seconds and not s.algorithm.synchronous:
        last = s.steps.astype(int) - 1
        final = s.trace["duration"][s.works][np.arange(n), last]
        begun = float((lasted - final).max()) if (last >= 0).all() else 0.0
        yield at_most(
            "no step too late",
            begun,
            budget.seconds + RESOLUTION,
            "s before the last step",
            "a worker looks at its clock before it begins a step",
        )


def _replicas(s: _Subject) -> Iterator[Check]:
    """Compare replicas with their mean.

    The mean of n equal numbers has n roundings. Where the same sums arrive in another
    order everywhere, each gradient is one rounding at each replica.
    """
    apart, norm = s.trace["consensus_distance"], s.trace["norm_of_mean"]
    if not s.sound or not apart.size:
        return
    if "identical" in s.algorithm.traits:
        # squares of differences are rounded too, so a little more than n
        far = apart / np.maximum(norm, np.finfo(float).tiny)
        yield at_most(
            "identical replicas",
            far.max(),
            2.0 * (s.trial.ranks + 1) * s.unit,
            "of the model's length apart",
            "all apply the same gradients to the same model; the mean has n roundings",
        )
    if "eventually-identical" in s.algorithm.traits:
        roundings = float(s.steps.sum()) + s.trial.ranks
        largest = float((norm + apart).max()) or 1.0
        yield at_most(
            "equal when drained",
            float(apart[-1]) / largest,
            2.0 * LUCK * sqrt(roundings) * s.unit,
            "of the model's length apart",
            "in the end all have added the same gradients, in another order",
        )


def _weights(s: _Subject) -> Iterator[Check]:
    weights = s.trace["weight"][s.works]
    if "push-sum" not in s.algorithm.traits or not np.isfinite(weights).any():
        return
    yield Check(
        "positive weights",
        passed=bool(np.nanmin(weights) > 0.0),
        found=f"{np.nanmin(weights):.4g}",
        expected="above 0",
        why="a rank keeps a part of its weight in every step, and receives only more",
    )
    if s.algorithm.synchronous:
        steps = np.flatnonzero(np.isfinite(weights).all(axis=0))
        off = np.abs(weights[:, steps].sum(axis=0) / s.workers - 1.0)
        # per step a weight is split into, and put together from, at most n parts
        allowed = 2.0 * (s.workers + 1) * s.unit * (steps + 1.0)
        worst = int((off / allowed).argmax())
        yield at_most(
            "weights add up to n",
            off[worst],
            allowed[worst],
            f"of n in step {steps[worst]}",
            "what one rank gives, another gets; every step rounds each part once",
        )


def _bytes(s: _Subject) -> Iterator[Check]:
    """Compare the two sides' accounts, what was still under way at the end included."""
    out, into = s.carried("out"), s.carried("in")
    if s.trial.ranks > s.workers:
        for way, sent, got in (
            ("to servers", s.carried("out", works=True), s.carried("in", works=False)),
            (
                "from servers",
                s.carried("out", works=False),
                s.carried("in", works=True),
            ),
        ):
            why = "each side books what it hands over and what it receives"
            yield equal(f"bytes {way}", got, sent, "bytes received", why)
    elif s.algorithm.loses_messages:
        why = "a message is booked by the rank that reads it, and some are never read"
        yield at_most("nothing from nowhere", into, out, "bytes received", why)
    else:
        why = "both ends book every transfer, those that end after the run, too"
        yield equal("bytes in and out", into, out, "bytes received", why)


def _clocks(s: _Subject) -> Iterator[Check]:
    # Traces from before hosts were told apart by their kernel know names only.
    clocks = labels.fact(s.trace.provenance, "clocks")
    clocks = clocks or labels.fact(s.trace.provenance, "hosts")
    error = s.trace["clock_error"]
    offsets = np.abs(
        np.stack([s.trace["clock_offset_start"], s.trace["clock_offset_end"]])
    )
    same = np.zeros(s.trial.ranks, bool)
    same[0] = True
    if isinstance(clocks, list) and len(clocks) == s.trial.ranks:
        same = np.array([clock == clocks[0] for clock in clocks])
    yield at_most(
        "one host, one clock",
        (offsets - error)[:, same].max(),
        0.0,
        "s beyond the error",
        "ranks on the running kernel of rank 0 share its clock",
    )


def _moments(s: _Subject) -> Iterator[Check]:
    times = s.trace["copy_time"]
    if times.size:
        yield at_least(
            "evaluation points in order",
            np.diff(times, axis=1).min(initial=0.0),
            0.0,
            "s from one to the next",
            "snapshots are evaluated in the order in which they were taken",
        )
    met = bool(readings.at_target(s.trace).any())
    stated = s.trace.status == "reached"
    if s.sound:
        yield Check(
            "status",
            passed=met == stated,
            found=s.trace.status,
            expected="reached" if met else "not reached",
            why="the evaluated losses and accuracies show it",
        )


def _staleness(s: _Subject) -> Iterator[Check]:
    stale = s.trace["staleness"][s.works]
    stale = stale[np.isfinite(stale)]
    if not stale.size:
        return
    setup = s.algorithm.setup(s.trial.algorithm.settings, s.trial.ranks)
    high = s.algorithm.stale(setup)[1]
    if s.trace.interruptions and not s.algorithm.synchronous:
        high = inf  # nobody waits for a rank that has stopped: others are ahead then
    yield Check(
        "staleness",
        passed=bool(stale.min() >= 0.0 and stale.max() <= high),
        found=f"{stale.min():g} to {stale.max():g}",
        expected="at least 0" if high == inf else f"0 to {high:g}",
        why="no gradient is applied before it is taken"
        + ("" if high == inf else ", and the rule waits for what would be older"),
    )


CHECKS: tuple[Callable[[_Subject], Iterator[Check]], ...] = (
    _variables,
    _spans,
    _gradients,
    _lock_step,
    _budget,
    _replicas,
    _weights,
    _bytes,
    _clocks,
    _moments,
    _staleness,
)
"""All there are; each yields those that apply to a trial."""
