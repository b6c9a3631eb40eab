"""The simulated fabric: many ranks in one process, in virtual time."""
