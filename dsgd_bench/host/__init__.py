"""The computer and the job around this process: what is there, what is left behind."""
