"""The variables of a trace: their dimensions, units and meaning."""

from dsgd_bench.fabric.columns import ACCOUNTS, OTHER, ROW

SCHEMA = 4
"""Version of the format; it changes whenever a reader would have to."""

STEP, MOMENT, LOCAL, RANK, PAIR = (
    ("rank", "step"),
    ("moment",),
    ("rank", "moment"),
    ("rank",),
    ("rank", "partner"),
)

Variable = tuple[tuple[str, ...], str, str]
"""Dimensions, unit, meaning."""


def _of_steps() -> dict[str, Variable]:
    """Return the variables that every step has: the columns of the ledger's row.

    `OTHER` stands after the accounts, since with them it adds up to the step.
    """
    accounts = ROW.index(ACCOUNTS[-1]) + 1
    columns = (*ROW[:accounts], OTHER, *ROW[accounts:])
    return {
        column.name: (STEP, column.unit, column.doc)
        for column in columns
        if column.stored
    }


VARIABLES: dict[str, Variable] = {
    **_of_steps(),
    "moment_time": (MOMENT, "s", "time of the snapshots, median over the ranks"),
    "moment_samples": (MOMENT, "count", "samples in the snapshots of all ranks"),
    "loss_of_mean": (MOMENT, "1", "training loss of the average model"),
    "accuracy_of_mean": (MOMENT, "1", "held-out accuracy of the average model"),
    "norm_of_mean": (MOMENT, "1", "length ||mean|| of the average model"),
    "consensus_distance": (MOMENT, "1", "root of the mean of ||x_i - mean||^2"),
    "copy_time": (LOCAL, "s", "time of this rank's copy"),
    "local_loss": (LOCAL, "1", "training loss of this rank's model"),
    "local_accuracy": (LOCAL, "1", "held-out accuracy of this rank's model"),
    "serves": (RANK, "1", "1 for a parameter server, 0 for a worker"),
    "node": (RANK, "1", "node of this rank, counted in the order of ranks"),
    "node_rank": (RANK, "1", "number of this rank among those of its node"),
    "node_ranks": (RANK, "count", "ranks on the node of this rank"),
    "shares_core": (RANK, "1", "1 if other ranks may use this rank's cores, too"),
    "steps_done": (RANK, "count", "steps of this rank"),
    "samples_done": (RANK, "count", "samples of this rank"),
    "elapsed": (RANK, "s", "end of the last step on this rank's clock"),
    "clock_offset_start": (RANK, "s", "clock minus rank 0's, before the run"),
    "clock_offset_end": (RANK, "s", "clock minus rank 0's, after the run"),
    "clock_error": (RANK, "s", "uncertainty of the clock offsets"),
    "drain_bytes_out": (RANK, "byte", "as bytes_out, after this rank's last step"),
    "drain_bytes_in": (RANK, "byte", "as bytes_in, after this rank's last step"),
    "link_bytes_out": (
        RANK,
        "byte",
        "bytes sent by the network devices of this rank's host, from the common start"
        " until what was in flight had arrived; ranks of one host see the same",
    ),
    "link_bytes_in": (
        RANK,
        "byte",
        "bytes received by the network devices of this rank's host, likewise",
    ),
    "exchanges": (PAIR, "count", "averagings started by rank with partner"),
}
"""Every variable of a trace: dimensions, unit, meaning."""

FORMER: dict[str, str] = {
    **{old: column.name for column in ROW for old in column.former},
    "replica_distance": "consensus_distance",
}
"""What variables of traces of earlier schemas are called now."""
