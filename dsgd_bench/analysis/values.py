"""What the variables of a trace can be at all.

There are numbers where there must be some, no counts below zero, no times that run
backwards, nothing after the last step, and no staleness without a gradient. Shapes are
seen to when a trace is opened (`trace.shapes`), sums and limits that depend on the
algorithm by `analysis.verify`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.analysis.readings import UNCOUNTED
from dsgd_bench.errors import TraceError
from dsgd_bench.trace.variables import STEP, VARIABLES

if TYPE_CHECKING:
    from dsgd_bench.trace import Trace

RESOLUTION = 1e-6
"""Seconds by which sums of clock readings may be off: a reading of a clock that has run
for months is rounded to 2 ns, and a step adds up at most some hundred differences."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    """What a variable can be.

    Attributes
    ----------
    low, high : float
        Bounds, included.
    whole : bool
        Whether only whole numbers occur.
    needed : bool
        Whether there is a number everywhere, for variables of steps in every step that
        was taken; else there may be none (NaN).
    infinite : bool
        Whether it may be infinite, as everything that a diverged model is judged by.
    rising : bool
        Whether it never falls, from one moment to the next.
    """

    low: float = 0.0
    high: float = inf
    whole: bool = False
    needed: bool = True
    infinite: bool = False
    rising: bool = False

    def __str__(self) -> str:
        what = "whole numbers" if self.whole else "numbers"
        words = [what] if self.needed else [f"{what} or none"]
        if self.low > -inf:
            words.append(f"from {0.0 if self.low == -RESOLUTION else self.low:g}")
        if self.high < inf:
            words.append(f"up to {self.high:g}")
        return " ".join(words) + (", none below the one before" if self.rising else "")

    def breaks(self, values: Array) -> NDArray[np.bool_]:
        """Return which values cannot be, those that are missing aside."""
        wrong = (values < self.low) | (values > self.high)
        if not self.infinite:
            wrong |= np.isinf(values)
        if self.whole:
            wrong |= values != np.rint(values)
        wrong &= ~np.isnan(values)
        if self.rising and values.size:
            behind = np.maximum.accumulate(np.nan_to_num(values, nan=-inf), axis=-1)
            wrong |= values < behind - RESOLUTION
        return np.asarray(wrong)


LONGEST = 1e10
"""Seconds that nothing takes: three centuries."""

TIME = Rule(low=-RESOLUTION, high=LONGEST)
COUNT = Rule(high=UNCOUNTED, whole=True)
NOTED = Rule(whole=True, needed=False)
FREE = Rule(low=-inf, needed=False, infinite=True)
SIZE = Rule(needed=False, infinite=True)
SHARE = Rule(high=1.0, needed=False)
SWITCH = Rule(high=1.0, whole=True)

RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            *("start", "duration", "compute", "injected", "transfer", "waiting"),
            *("update", "snapshot", "other", "overlapped", "flushing"),
            "injected_asked",
        ),
        TIME,
    ),
    "loss": FREE,
    "samples": COUNT,
    "staleness": Rule(low=-inf, needed=False),  # below 0: `verify` has a check for it
    "age": Rule(low=-inf, needed=False),
    "changes": NOTED,
    "included": NOTED,
    "delivered": NOTED,
    "weight": Rule(needed=False),
    **dict.fromkeys(("bytes_out", "bytes_in"), Rule()),
    **dict.fromkeys(("messages_out", "messages_in"), COUNT),
    "waited_for": NOTED,
    "moment_time": Rule(low=-RESOLUTION, high=LONGEST, rising=True),
    "moment_samples": Rule(high=UNCOUNTED, rising=True),
    "loss_of_mean": FREE,
    "accuracy_of_mean": SHARE,
    "norm_of_mean": SIZE,
    "consensus_distance": SIZE,
    "copy_time": Rule(low=-RESOLUTION, high=LONGEST, rising=True),
    "local_loss": FREE,
    "local_accuracy": SHARE,
    "serves": SWITCH,
    "node": NOTED,
    "node_rank": NOTED,
    "node_ranks": Rule(low=1.0, whole=True, needed=False),
    "shares_core": Rule(high=1.0, whole=True, needed=False),
    "steps_done": COUNT,
    "samples_done": COUNT,
    "elapsed": Rule(low=-RESOLUTION, high=LONGEST, needed=False),
    "clock_offset_start": Rule(low=-inf),
    "clock_offset_end": Rule(low=-inf),
    "clock_error": Rule(),
    **dict.fromkeys(("drain_bytes_out", "drain_bytes_in"), Rule(needed=False)),
    **dict.fromkeys(("link_bytes_out", "link_bytes_in"), Rule(needed=False)),
    "exchanges": COUNT,
}
"""What every variable can be."""


def impossible(trace: "Trace") -> Iterator[tuple[str, str, str]]:
    """Yield every variable that is what it cannot be: name, what it is, what it can be.

    Parameters
    ----------
    trace : Trace
        A merged trace of a finished trial; its variables fit each other in shape.
    """
    try:
        done = trace["steps_done"]
        steps = np.arange(trace["duration"].shape[1])
    except TraceError as error:
        yield "steps_done and duration", str(error), "in every trace"
        return
    taken = steps < done[:, None]
    for name, (dimensions, _, _) in VARIABLES.items():
        try:
            values = trace[name]
        except TraceError:
            yield name, "missing", "in every trace"
            continue
        wrong = _broken(values, RULES[name], taken if dimensions == STEP else None)
        if wrong:
            yield name, wrong, str(RULES[name])
    yield from _unfit(trace, taken)


def _broken(values: Array, rule: Rule, taken: NDArray[np.bool_] | None) -> str:
    """Say where a variable first breaks its rule, and how; nothing if it does not."""
    # thousands of ranks squared fit into memory once, not twice: row by row
    for rank, row in enumerate(np.atleast_2d(values)):
        wrong = rule.breaks(row)
        if rule.needed:
            wrong |= np.isnan(row) if taken is None else np.isnan(row) & taken[rank]
        if taken is not None:
            wrong |= ~np.isnan(row) & ~taken[rank]
        if wrong.any():
            at = int(wrong.argmax())
            value = "no number" if np.isnan(row[at]) else f"{row[at]:.6g}"
            return f"{value} at {at}" + (f" of rank {rank}" if values.ndim > 1 else "")
    return ""


Unfit = tuple[str, NDArray[np.bool_], str]
"""A variable, where it does not fit the others, what it should be."""


def _unfit(trace: "Trace", taken: NDArray[np.bool_]) -> Iterator[tuple[str, str, str]]:
    """Yield every variable that other ones deny."""
    for rule in (_of_steps, _of_ranks):
        try:
            found = list(rule(trace, taken))
        except TraceError:
            continue  # one is missing, which was said above
        for name, wrong, expected in found:
            if wrong.any():
                at = np.unravel_index(int(wrong.argmax()), wrong.shape)
                value = trace[name][at] if trace[name].shape == wrong.shape else "it"
                where = ", ".join(map(str, map(int, at)))
                yield name, f"{value:.6g} at {where}", expected


def _of_steps(trace: "Trace", taken: NDArray[np.bool_]) -> Iterator[Unfit]:
    ranks = len(taken)
    gradients = taken & (trace["samples"] > 0)
    known = np.isfinite(trace["staleness"])
    if trace.staleness == "none":
        yield "staleness", known, "none, as the algorithm has none"
    yield "staleness", known & ~gradients, "only where there is a gradient"
    yield "waited_for", trace["waited_for"] >= ranks, f"a rank below {ranks}"
    done = trace["elapsed"]
    spent = np.nansum(trace["duration"], axis=1)
    off = (done < spent - RESOLUTION * (1 + trace["steps_done"])) & taken.any(axis=1)
    yield "elapsed", off, "not less than the steps of the rank took together"
    yield (
        "elapsed",
        np.isnan(done) & taken.any(axis=1),
        "known of every rank that took a step",
    )


def _of_ranks(trace: "Trace", taken: NDArray[np.bool_]) -> Iterator[Unfit]:
    ranks, width = taken.shape
    yield (
        "steps_done",
        trace["steps_done"] > width,
        f"at most {width}, the steps recorded",
    )
    serves = trace["serves"]
    order = np.append(False, np.diff(serves) < 0)
    yield "serves", order, "0 of the first ranks, 1 of the last"
    yield "serves", np.full(ranks, bool((serves == 1).all())), "0 of one rank at least"
    yield "node", trace["node"] >= ranks, f"below {ranks}"
    crowded = (trace["node_rank"] >= trace["node_ranks"]) | (
        trace["node_ranks"] > ranks
    )
    yield "node_ranks", crowded, f"above node_rank, and at most {ranks}"
    most = trace["samples_done"].sum()
    over = trace["moment_samples"] > most
    yield "moment_samples", over, f"at most {most:g}, the samples of all ranks"
