"""How busy parameter servers are, and how many workers they can feed.

While a server has time to spare, every worker adds its own rate. A server that never
waits has none left: from that number of workers on, the *knee*, the rate stays where it
is and the workers queue (the bounds of a closed queue: J.-Y. Le Boudec, *Performance
Evaluation of Computer and Communication Systems*, 2010, chapter 8).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dsgd_bench.analysis.statistics import median
from dsgd_bench.config import naming

if TYPE_CHECKING:
    from dsgd_bench.trace import Trace

SPARE = 0.1
"""Share of waiting below which the servers count as saturated."""


@dataclass(frozen=True)
class Load:
    """What one trial asked of its servers, or the medians of a point's repeats.

    Attributes
    ----------
    algorithm : str
        Kind and settings, the number of servers aside.
    workers, servers : int
        Ranks that compute gradients, and ranks that serve.
    rate : float
        Gradients per second of all workers together.
    unhindered : float
        The same if computing (injected slowdowns included) were all there is.
    waiting, transfer, update, other : float
        Shares of the servers' time: for messages, on transfers, on the model, the rest.
    bytes_in, bytes_out : float
        Bytes per second of one server, mean over the servers.
    """

    algorithm: str
    workers: int
    servers: int
    rate: float
    unhindered: float
    waiting: float
    transfer: float
    update: float
    other: float
    bytes_in: float
    bytes_out: float

    @property
    def saturated(self) -> bool:
        """Whether the servers have less than `SPARE` of their time to spare."""
        return self.waiting < SPARE


NUMBERS = (
    "rate",
    "unhindered",
    "waiting",
    "transfer",
    "update",
    "other",
    "bytes_in",
    "bytes_out",
)
"""Attributes of `Load` that are measured."""


def load(trace: "Trace") -> Load | None:
    """Return what a trial asked of its servers; None if it has none, or took no steps.

    Parameters
    ----------
    trace : Trace
        A merged trace.
    """
    serves = trace["serves"] > 0
    works = ~serves & (trace["steps_done"] > 0)
    if not serves.any() or not works.any() or not trace["steps_done"][serves].all():
        return None
    steps, elapsed = trace["steps_done"], trace["elapsed"]
    busy = np.nansum(trace["compute"] + trace["injected"], axis=1)
    lasted = np.nansum(trace["duration"][serves])

    def share(span: str) -> float:
        return float(np.nansum(trace[span][serves]) / lasted)

    def flow(name: str) -> float:
        return float(np.mean(np.nansum(trace[name][serves], axis=1) / elapsed[serves]))

    spans = {span: share(span) for span in ("waiting", "transfer", "update")}
    own_paces = steps[works] / np.maximum(busy[works], np.finfo(float).tiny)
    return Load(
        algorithm=_without_servers(trace),
        workers=int((~serves).sum()),
        servers=int(serves.sum()),
        rate=float(np.sum(steps[works] / elapsed[works])),
        unhindered=float(own_paces.sum()),
        other=1.0 - sum(spans.values()),
        bytes_in=flow("bytes_in"),
        bytes_out=flow("bytes_out"),
        **spans,
    )


def points(loads: Sequence[Load]) -> list[Load]:
    """Return the medians over repeats, by algorithm, servers and workers, ascending."""
    found: dict[tuple[str, int, int], list[Load]] = {}
    for each in loads:
        key = (each.algorithm, each.servers, each.workers)
        found.setdefault(key, []).append(each)
    return [
        Load(
            algorithm=algorithm,
            workers=workers,
            servers=servers,
            **{
                name: median([float(getattr(each, name)) for each in same])
                for name in NUMBERS
            },
        )
        for (algorithm, servers, workers), same in sorted(found.items())
    ]


def knee(line: Sequence[Load]) -> float | None:
    """Return the number of workers at which the servers are busy all the time.

    It is the number that would deliver the highest rate reached if nothing but
    computing took time; None where no point is saturated: it lies beyond.

    Parameters
    ----------
    line : sequence of Load
        Points that differ in the number of workers.
    """
    if not any(point.saturated for point in line):
        return None
    best = max(line, key=lambda point: point.rate)
    return best.rate * best.workers / best.unhindered


def _without_servers(trace: "Trace") -> str:
    trial = trace.trial
    words = (f"servers {trial.algorithm.settings.get('servers')}", "")
    return ", ".join(
        word for word in naming.label(trial.algorithm).split(", ") if word not in words
    )
