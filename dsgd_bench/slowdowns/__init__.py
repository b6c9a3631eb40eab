"""Slowdowns injected into gradients: their kinds, and when which rank is slow."""

from dsgd_bench.slowdowns.kinds import KINDS, Kind, kind_of
from dsgd_bench.slowdowns.schedule import Slowdown, slow_ranks

__all__ = ["KINDS", "Kind", "Slowdown", "kind_of", "slow_ranks"]
