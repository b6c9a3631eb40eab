"""Evaluation after the clock has stopped: how good the models were, point by point.

Collective and slow, and therefore never part of a run: snapshots were taken on the way.
"""

import math
from dataclasses import fields

import numpy as np

from dsgd_bench.arrays import Array, copy
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.problems import Problem
from dsgd_bench.trace.judgments import Judgments
from dsgd_bench.trial.snapshots import Snapshots


def evaluate(
    problem: Problem,
    fabric: Fabric,
    snapshots: Snapshots,
    final: tuple[Array, float, float],
    *,
    servers: int = 0,
    every: int = 1,
) -> Judgments:
    """Evaluate the average model, or the center, and this rank's own at common points.

    Parameters
    ----------
    problem : Problem
        What is minimized.
    fabric : Fabric
        Used for one average per point; every rank must call this.
    snapshots : Snapshots
        What this rank kept.
    final : (array of shape (dim,), float, float)
        The model after the run, the position (steps or seconds) where this rank ended,
        and when the model was whole, in seconds.
    servers : int
        Ranks, the last ones, that hold the center in parts, zeros elsewhere.
    every : int
        The models of ranks 0, `every`, 2 `every`, ... are evaluated themselves: where
        one process has thousands of ranks, all would take too long.
    """
    serves = fabric.rank >= fabric.size - servers
    points = _points(fabric, snapshots, final[1])
    result = Judgments(*(np.full(len(points), np.nan) for _ in fields(Judgments)))
    there = problem.initial()

    def placed(model: Array) -> Array:
        copy(model, there)
        return there

    mean = np.empty_like(final[0])
    difference = np.empty_like(final[0])
    for m, point in enumerate(points):
        model, result.copy_time[m] = snapshots.nearest(point, final)
        with np.errstate(all="ignore"):  # a diverged model is a result
            if serves or not servers:
                np.copyto(mean, model)
            else:
                mean.fill(0.0)
            fabric.average(mean)
            if servers:  # the parts add up to the center
                mean *= fabric.size
            if not serves and fabric.rank % every == 0:
                own = problem.evaluate(placed(model))
                result.local_loss[m], result.local_accuracy[m] = own.loss, own.accuracy
            if not serves:
                np.subtract(model, mean, out=difference)
                result.distance_squared[m] = float(difference @ difference)
            if m % fabric.size == fabric.rank:
                best = problem.evaluate(placed(mean))
                result.loss_of_mean[m] = best.loss
                result.accuracy_of_mean[m] = best.accuracy
                result.norm_of_mean[m] = float(np.linalg.norm(mean))
    return result


def _points(fabric: Fabric, snapshots: Snapshots, end: float) -> list[float]:
    """Return the positions that all ranks evaluate; this one ended at `end`."""
    last = max(fabric.gather(end))
    distance = max(fabric.gather(snapshots.distance))
    # no more points than snapshots, where long steps left the first distance as it was
    snapshots.thin_to(max(last / snapshots.capacity, distance))
    points = [
        k * snapshots.distance for k in range(math.floor(last / snapshots.distance) + 1)
    ]
    if points[-1] < last:
        points.append(last)
    return points
