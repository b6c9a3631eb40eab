"""Studies as jobs of the batch system Slurm: scripts, submission, queue, status."""
