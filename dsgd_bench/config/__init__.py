"""What to run and where, read from TOML: study file -> trials, machine file."""

from dsgd_bench.config.checks import check
from dsgd_bench.config.machine import read_machine
from dsgd_bench.config.study import (
    check_measured,
    listed,
    on_ranks,
    over,
    read_study,
)

__all__ = [
    "check",
    "check_measured",
    "listed",
    "on_ranks",
    "over",
    "read_machine",
    "read_study",
]
