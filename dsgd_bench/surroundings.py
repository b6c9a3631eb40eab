"""What this process finds around it: looked at before anything heavy is imported."""

import os

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that tell linear algebra libraries how many threads to start."""

STARTED_AS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
"""Variables in which launchers tell how many ranks they started; the surest first."""


def started_ranks() -> int | None:
    """Return how many ranks the launcher says it started; None outside MPI jobs.

    An interactive shell in a Slurm job is a step of one task; it is no MPI job.
    """
    for name in STARTED_AS:
        count = os.environ.get(name, "")
        shell = count == "1" and "SLURM_JOB_ID" in os.environ and "OMPI" not in name
        if count.isdigit() and not shell:
            return int(count)
    return None


def limit_threads() -> None:
    """Let each rank start one thread of linear algebra, unless the user said more.

    Libraries read this when they are loaded, so it must come before NumPy.
    """
    for name in THREADS:
        os.environ.setdefault(name, "1")
