"""Judging after the clock has stopped: how good the models were at each moment.

Collective and slow, and therefore never part of a run: copies were taken on the way.
"""

import math
from dataclasses import dataclass

import numpy as np

from dsgd_bench.arrays import Array
from dsgd_bench.copies import Copies
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.problems import Problem


@dataclass
class Judgments:
    """What one rank knows about every moment; arrays of shape (moments,).

    Attributes
    ----------
    copy_time : array
        Seconds when this rank's copy was taken.
    local_loss, local_accuracy : array
        Of this rank's own model.
    loss_of_mean, accuracy_of_mean : array
        Of the average model; NaN where another rank judged it.
    distance_squared : array
        ||x_i - mean||^2 of this rank's model.
    """

    copy_time: Array
    local_loss: Array
    local_accuracy: Array
    loss_of_mean: Array
    accuracy_of_mean: Array
    distance_squared: Array


def judge(
    problem: Problem,
    fabric: Fabric,
    copies: Copies,
    final: tuple[Array, float, float],
) -> Judgments:
    """Judge the average model and this rank's own at every common moment.

    Parameters
    ----------
    problem : Problem
        What is minimized.
    fabric : Fabric
        Used for one average per moment; every rank must call this.
    copies : Copies
        What this rank kept.
    final : (array of shape (dim,), float, float)
        The model after the run, the position (steps or seconds) where this rank ended,
        and when the model was whole, in seconds.
    """
    facts = fabric.gather((copies.distance, final[1]))
    last = max(position for _, position in facts)
    # no more moments than copies, where long steps left the first distance as it was
    copies.thin_to(max(last / copies.capacity, *(distance for distance, _ in facts)))
    moments = [
        k * copies.distance for k in range(math.floor(last / copies.distance) + 1)
    ]
    if moments[-1] < last:
        moments.append(last)
    result = Judgments(*(np.full(len(moments), np.nan) for _ in range(6)))
    mean = np.empty_like(final[0])
    difference = np.empty_like(final[0])
    for m, moment in enumerate(moments):
        model, result.copy_time[m] = copies.nearest(moment, final)
        with np.errstate(all="ignore"):  # a diverged model is a result
            own = problem.evaluate(model)
            np.copyto(mean, model)
            fabric.average(mean)
            np.subtract(model, mean, out=difference)
            result.distance_squared[m] = float(difference @ difference)
            result.local_loss[m], result.local_accuracy[m] = own.loss, own.accuracy
            if m % fabric.size == fabric.rank:
                best = problem.evaluate(mean)
                result.loss_of_mean[m] = best.loss
                result.accuracy_of_mean[m] = best.accuracy
    return result
