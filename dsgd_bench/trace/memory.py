"""The records of ranks that share a process: kept in memory, never in files of theirs.

Thousands of simulated ranks would be thousands of HDF5 files; and what a process that
dies takes with it, the same study and seed give again.
"""

from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.columns import COLUMNS
from dsgd_bench.trace.judgments import Judgments
from dsgd_bench.trace.shard import Facts, Shard


class Packed:
    """Rows of a ledger at 8 bytes a number; a tuple of floats takes four times that."""

    def __init__(self) -> None:
        self._numbers = array("d")

    def append(self, row: Iterable[float]) -> None:
        """Add a row."""
        self._numbers.extend(row)

    def clear(self) -> None:
        """Forget all rows."""
        del self._numbers[:]

    def __len__(self) -> int:
        return len(self._numbers) // len(COLUMNS)

    def table(self) -> NDArray[np.float64]:
        """Return all rows, shape (steps, columns); afterwards none may be added."""
        numbers = np.frombuffer(self._numbers, np.float64)
        return numbers.reshape(-1, len(COLUMNS))


class ShardKeeper:
    """The record of one rank while it runs, in memory; used as `ShardWriter` is.

    Parameters
    ----------
    shards : dict of int to Shard
        Where it is put, by rank, when the run is finished.
    rows : list of Packed
        Where its rows are seen while it runs.
    fabric : Fabric
        This rank; its ledger is what is kept.
    facts : Facts
        The same on every rank.

    Attributes
    ----------
    drained : dict
        `Ledger.drained`, where the run came to its end; set before `finish`.
    """

    def __init__(
        self,
        shards: dict[int, Shard],
        rows: list[Packed],
        fabric: Fabric,
        facts: Facts,
    ) -> None:
        self._shards, self._facts = shards, facts
        self._ledger, self._rank = fabric.ledger, fabric.rank
        self._rows = Packed()
        rows.append(self._rows)
        self.drained: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to close."""

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Keep the rows that the ledger gets in the block."""
        self._ledger.rows = cast(Any, self._rows)
        yield

    def finish(
        self,
        judgments: Judgments,
        offset_start: tuple[float, float],
        offset_end: tuple[float, float],
    ) -> None:
        """Put the shard where it belongs, with what is known after the run."""
        ledger, shards = self._ledger, self._shards
        pairs = np.array(sorted(ledger.exchanges.items()), np.int64)
        data = {each.name: getattr(judgments, each.name) for each in fields(judgments)}
        first = next(iter(shards.values()), None)
        shards[self._rank] = Shard(
            facts=self._facts.table() if first is None else first.facts,
            rows=self._rows.table(),
            data=data | {"exchanges": pairs.reshape(-1, 2)},
            counts=dict(ledger.counts),
            offset_start=offset_start,
            offset_end=offset_end,
            drained=self.drained,
            segments=[(0, ledger.origin)],
        )
