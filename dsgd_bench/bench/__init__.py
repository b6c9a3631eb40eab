"""Benchmarks of the framework itself: beside bare MPI, the hardware, no recording.

In the manner of the OSU benchmarks: lines that begin with ``#`` say what was used, then
come tables, then a line ``FOM name value unit`` per figure of merit, and at last the
command. What is compared is interleaved in random order, since computers change their
speed over minutes; figures are medians, and ratios carry their interval.
"""
