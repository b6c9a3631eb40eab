"""What computing takes here: gradients of every problem, and looking at the clock."""

from collections.abc import Callable
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from dsgd_bench import problems, rng
from dsgd_bench.probe.samples import ProbeOptions, Sample, sampled
from dsgd_bench.spec.machine_profile import GradientTime
from dsgd_bench.spec.trial import ProblemSpec

if TYPE_CHECKING:
    from dsgd_bench.fabric.mpi.fabric import MpiFabric

WITHOUT = ("message", "torch")
"""One computes nothing, the other is whatever its user writes."""

TIMED = tuple(kind for kind in problems.PROBLEMS if kind not in WITHOUT)

BATCH = 32
"""Samples of a gradient."""

BATCHES = 8
"""Different batches that take turns."""

LOOKS = 1000
"""Looks at the clock at a stretch; the quickest of `STRETCHES` counts."""

STRETCHES = 20


def gradient(fabric: "MpiFabric", kind: str, options: ProbeOptions) -> GradientTime:
    """Time gradients of a problem as it is by default; all ranks compute at once."""
    problem = problems.make(ProblemSpec(kind, batch=BATCH), 0)
    x = problem.initial()
    out = np.empty_like(x)
    stream = rng.generator(0, "bench", fabric.rank)
    batches = cycle(
        [stream.integers(problem.samples, size=BATCH) for _ in range(BATCHES)]
    )

    def once() -> Sample:
        begun = fabric.now()
        problem.gradient(x, next(batches), out)
        whole = fabric.now() - begun
        return whole, whole

    fabric.barrier()
    own = sampled(once, options, lambda count: min(fabric.gather(count)))[:, 1]
    p10, median, p90 = np.quantile(fabric.gather(own), (0.1, 0.5, 0.9)).tolist()
    return GradientTime(BATCH, problem.dimension, median, p10, p90)


def timer(now: Callable[[], float]) -> float:
    """Return the seconds that one look at the clock takes."""
    stretches = []
    for _ in range(STRETCHES):
        begun = now()
        for _ in range(LOOKS):
            now()
        stretches.append((now() - begun) / LOOKS)
    return min(stretches)
