"""The benchmarks by name: what `dsgd-bench bench NAME` runs on every rank."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dsgd_bench.bench.averaging import AverageOptions, average
from dsgd_bench.bench.gradient_options import ProblemOptions
from dsgd_bench.bench.gradient_times import gradients
from dsgd_bench.bench.kernel_floor import KernelOptions, kernels
from dsgd_bench.bench.record import RecordingOptions, recording
from dsgd_bench.bench.simulator import SimulatorOptions, simulator
from dsgd_bench.bench.transports import TransportOptions, transports


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: its options, and what every rank runs.

    Attributes
    ----------
    options : type
        Has ``from_argv(words)``; the result says on how many ``ranks``, and may say
        with how many ``threads`` each.
    rank : callable
        ``rank(fabric, options)``, collective; rank 0 prints.
    summary : str
        What it is for, in one line.
    """

    options: type[Any]
    rank: Callable[[Any, Any], None]
    summary: str


BENCHMARKS = {
    "average": Benchmark(
        AverageOptions, average, "pairwise averaging and steps against bare MPI calls"
    ),
    "kernels": Benchmark(
        KernelOptions, kernels, "operations on models and layers against the hardware"
    ),
    "recording": Benchmark(
        RecordingOptions, recording, "what the trace costs, and whether it adds up"
    ),
    "problems": Benchmark(
        ProblemOptions, gradients, "gradients against the floor and PyTorch"
    ),
    "simulator": Benchmark(
        SimulatorOptions, simulator, "worker-steps and events per second, and memory"
    ),
    "transports": Benchmark(
        TransportOptions, transports, "models from GPU to GPU, every way that works"
    ),
}
"""Every benchmark by its name."""
