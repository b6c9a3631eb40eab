"""What is found out about the models of a trial once its clock has stopped."""

from dataclasses import dataclass

from dsgd_bench.arrays import Array


@dataclass
class Judgments:
    """What one rank knows of every evaluation point; arrays of shape (points,).

    The evaluated model is the average of the workers' models, or the center where ranks
    serve one.

    Attributes
    ----------
    copy_time : array
        Seconds when this rank's copy was taken.
    local_loss, local_accuracy : array
        Of this rank's own model; NaN on a server, and where it was not evaluated.
    loss_of_mean, accuracy_of_mean, norm_of_mean : array
        Of the evaluated model; NaN where another rank evaluated it.
    distance_squared : array
        ||x_i - mean||^2 of this rank's model from the evaluated one; NaN on a server.
    """

    copy_time: Array
    local_loss: Array
    local_accuracy: Array
    loss_of_mean: Array
    accuracy_of_mean: Array
    norm_of_mean: Array
    distance_squared: Array
