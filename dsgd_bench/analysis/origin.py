"""What a report reads of the provenance of a run, which any version may have written.

A provenance is JSON that is shown as it is; what is reckoned with must be of a kind, or
one odd trace would end the report of all others.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from dsgd_bench.analysis.labels import fact
from dsgd_bench.host.placement import Arranged


class Gpu(msgspec.Struct, frozen=True):
    """The GPU of one rank: how many ranks compute on it, and whether at once."""

    ranks: int
    mps: bool


class Origin(msgspec.Struct, frozen=True):
    """Where a run ran, as far as its trace tells.

    Attributes
    ----------
    oversubscribed : bool
        Whether ranks share cores.
    cores, cores_allowed : int, float or None
        That the ranks of a node have together, by its quotas; that rank 0 may use.
    cpu_quota : int, float or None
        Cores that a control group allows rank 0; None without a limit.
    placement : list of Arranged
        Where every rank runs, by rank; empty in simulations.
    gpus : list of Gpu
        Of every rank, by rank; empty for models on hosts.
    known_bugs : list of str
        A sentence for each that the MPI library could have met.
    """

    oversubscribed: bool = False
    cores: int | float | None = None
    cores_allowed: int | float | None = None
    cpu_quota: int | float | None = None
    placement: list[Arranged] = []
    gpus: list[Gpu] = []
    known_bugs: list[str] = []

    @classmethod
    def of(cls, provenance: Mapping[str, Any]) -> "Origin":
        """Return what a provenance tells, wherever it is nested.

        Raises
        ------
        msgspec.ValidationError
            If a value is of another kind.
        """
        found = {name: fact(provenance, name) for name in cls.__struct_fields__}
        known = {name: value for name, value in found.items() if value is not None}
        return msgspec.convert(known, cls)
