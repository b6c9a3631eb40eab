"""What a simulated network is: numbers in LogGP's vocabulary, and networks by name.

A message of m bytes costs its sender `overhead` seconds (o), passes the port of a node
at `rate` (8 / G bit/s) and arrives `latency` seconds later (L). A one-sided operation
is a request and an answer, so an empty one takes 2 (L + o), unless measured.
"""

from typing import Literal

from msgspec import Struct

from dsgd_bench.errors import ConfigError
from dsgd_bench.spec.ranges import (
    Bytes,
    Period,
    Ranks,
    Rate,
    Seconds,
    Seed,
    Share,
    ShareBelowOne,
)
from dsgd_bench.spec.strict import nearest

Operation = Literal["get", "put", "fetch", "accumulate", "word"]
"""One-sided operations; ``word`` is an atomic one on a single word."""


class OperationSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A one-sided operation as measured: `seconds` for an empty one, then bit/s."""

    seconds: Seconds = 0.0
    rate: Rate = 0.0


class LinkSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """What a message costs; a `rate` of 0 is no limit.

    Attributes
    ----------
    latency : float
        Seconds from leaving the sender's port to arriving at the receiver's.
    overhead : float
        Seconds that one message or operation occupies who starts it.
    rate : float
        Bit/s through a port, each way.
    operations : dict
        One-sided operations that were measured, by name.
    """

    latency: Seconds = 0.0
    overhead: Seconds = 0.0
    rate: Rate = 0.0
    operations: dict[Operation, OperationSpec] = {}


class AllReduceSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """How an all-reduce is done, and how well.

    ``auto`` is the quickest of the three for each size. An empty one takes at least
    `seconds`, and `rate` caps what it gets through, bit/s of the model per all-reduce;
    0 is what the links allow.
    """

    algorithm: Literal["auto", "ring", "recursive-doubling", "rabenseifner"] = "auto"
    seconds: Seconds = 0.0
    rate: Rate = 0.0


class BackgroundSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Traffic of others on the same links.

    In every `period` of seconds each node's port is crowded with the given
    `probability`, and then has only 1 - `share` of its rate for us.
    """

    share: ShareBelowOne = 0.0
    probability: Share = 0.0
    period: Period = 1.0


class NetworkSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A simulated network.

    Attributes
    ----------
    name : str
        Of the preset or the machine profile it began with; for tables.
    far, near : LinkSpec
        Between two nodes, through a port of each; between two ranks of one node.
    ranks_per_node : int
        Ranks that share the port of a node, in blocks of consecutive ranks.
    allreduce : AllReduceSpec
        How an all-reduce is done.
    eager : int
        Bytes up to which a message leaves before a rank has asked for it: the library
        keeps it at the receiver. By default what MPICH has within a node, and Open MPI
        over TCP.
    progress : str
        What answers one-sided operations of other nodes while a rank computes: the
        ``hardware``, a ``thread`` that looks every `poll` seconds, or nothing before
        the rank calls MPI again (``none``).
    poll : float
        Seconds between two looks of that thread.
    background : BackgroundSpec
        Traffic of others.
    wire_bytes : int
        Size of the model on the wire; 0 is its own.
    seed : int
        Of the schedule: another one orders simultaneous events differently.
    """

    name: str = ""
    far: LinkSpec = LinkSpec()
    near: LinkSpec = LinkSpec()
    ranks_per_node: Ranks = 1
    allreduce: AllReduceSpec = AllReduceSpec()
    eager: Bytes = 65_536
    progress: Literal["hardware", "thread", "none"] = "hardware"
    poll: Seconds = 1e-3
    background: BackgroundSpec = BackgroundSpec()
    wire_bytes: Bytes = 0
    seed: Seed = 0


_SHARED_MEMORY = LinkSpec(latency=5e-7, overhead=2e-7, rate=80e9)


def _preset(name: str, rate: float, latency: float, overhead: float) -> NetworkSpec:
    far = LinkSpec(latency=latency, overhead=overhead, rate=rate)
    return NetworkSpec(name=name, far=far, near=_SHARED_MEMORY)


PRESETS = {
    spec.name: spec
    for spec in (
        _preset("ethernet-10", 10e9, 25e-6, 5e-6),
        _preset("ethernet-25", 25e9, 15e-6, 4e-6),
        _preset("ethernet-100", 100e9, 5e-6, 2e-6),
        _preset("infiniband-100", 100e9, 1.3e-6, 4e-7),
        _preset("infiniband-200", 200e9, 1.0e-6, 3e-7),
    )
}
"""Networks by name: nominal rates, and what TCP and RDMA usually take per message."""


def preset(name: str) -> NetworkSpec:
    """Return a network by its name.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError(
            f"there is no network named '{name}': choose one of "
            f"{', '.join(PRESETS)}{nearest(name, PRESETS)}"
        )
    return PRESETS[name]
