"""The variables of a trace: their dimensions, units and meaning."""

SCHEMA = 2
"""Version of the format; it changes whenever a reader would have to."""

STEP, MOMENT, LOCAL, RANK, PAIR = (
    ("rank", "step"),
    ("moment",),
    ("rank", "moment"),
    ("rank",),
    ("rank", "partner"),
)

VARIABLES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "start": (STEP, "s", "start of the step since the common start"),
    "duration": (STEP, "s", "duration of the step: the sum of compute to other"),
    "compute": (STEP, "s", "computing the gradient, emulated time included"),
    "injected": (STEP, "s", "slowdown injected into the gradient, as realized"),
    "moving": (STEP, "s", "moving data on the training thread"),
    "waiting": (STEP, "s", "waiting for other ranks on the training thread"),
    "mixing": (STEP, "s", "arithmetic on models: averaging, updating, copying"),
    "copying": (STEP, "s", "copying the model for judging later"),
    "other": (STEP, "s", "the rest of the step"),
    "hidden": (STEP, "s", "communication beside the gradient, not in duration"),
    "flushing": (STEP, "s", "flushing the trace beside the gradient"),
    "injected_asked": (STEP, "s", "slowdown as asked for"),
    "loss": (STEP, "1", "loss of the mini-batch"),
    "samples": (STEP, "count", "samples of the mini-batch"),
    "staleness": (STEP, "count", "staleness of the step's gradient, by its family"),
    "age": (STEP, "count", "own step minus that of the oldest model mixed in"),
    "changes": (STEP, "count", "changes of the own replica from read to update"),
    "included": (STEP, "count", "gradients of all workers in the model read"),
    "delivered": (STEP, "count", "own gradients that have reached every worker"),
    "weight": (STEP, "1", "push-sum weight after the step"),
    "bytes_out": (STEP, "byte", "bytes handed over to be sent"),
    "bytes_in": (STEP, "byte", "bytes received or fetched"),
    "messages_out": (STEP, "count", "messages handed over to be sent"),
    "messages_in": (STEP, "count", "messages received or fetched"),
    "waited_for": (STEP, "1", "rank that was waited for"),
    "moment_time": (MOMENT, "s", "time of the copies, median over the ranks"),
    "moment_samples": (MOMENT, "count", "samples of all ranks until then"),
    "loss_of_mean": (MOMENT, "1", "training loss of the average model"),
    "accuracy_of_mean": (MOMENT, "1", "held-out accuracy of the average model"),
    "replica_distance": (MOMENT, "1", "root of the mean of ||x_i - mean||^2"),
    "copy_time": (LOCAL, "s", "time of this rank's copy"),
    "local_loss": (LOCAL, "1", "training loss of this rank's model"),
    "local_accuracy": (LOCAL, "1", "held-out accuracy of this rank's model"),
    "serves": (RANK, "1", "1 for a parameter server, 0 for a worker"),
    "steps_done": (RANK, "count", "steps of this rank"),
    "samples_done": (RANK, "count", "samples of this rank"),
    "elapsed": (RANK, "s", "end of the last step on this rank's clock"),
    "clock_offset_start": (RANK, "s", "clock minus rank 0's, before the run"),
    "clock_offset_end": (RANK, "s", "clock minus rank 0's, after the run"),
    "clock_error": (RANK, "s", "uncertainty of the clock offsets"),
    "exchanges": (PAIR, "count", "averagings started by rank with partner"),
}
"""Every variable of a trace: dimensions, unit, meaning."""
