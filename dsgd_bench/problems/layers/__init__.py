"""Layers of networks, bound to memory made before, on the host or on a GPU."""

from dsgd_bench.problems.layers.convolution import Convolution
from dsgd_bench.problems.layers.dense import Dense
from dsgd_bench.problems.layers.maps import Maps, Room, Shape
from dsgd_bench.problems.layers.network import Builder, Network, Unit
from dsgd_bench.problems.layers.normalization import Normalization, Shortcut
from dsgd_bench.problems.layers.pooling import Flattening, GlobalAverage, Pooling
from dsgd_bench.problems.layers.strided import StridedConvolution
from dsgd_bench.problems.layers.team import Team, team

__all__ = [
    "Builder",
    "Convolution",
    "Dense",
    "Flattening",
    "GlobalAverage",
    "Maps",
    "Network",
    "Normalization",
    "Pooling",
    "Room",
    "Shape",
    "Shortcut",
    "StridedConvolution",
    "Team",
    "Unit",
    "team",
]
