"""Snapshots of the model for evaluation later, in memory made before the clock starts.

One is due at every multiple of a distance: in steps for synchronous algorithms, so that
all ranks take them at the same points, in seconds for asynchronous ones. When the
memory is full, the distance doubles and every other snapshot is given up; so a run of
unknown length ends with at least half its slots used, evenly spaced, and the rule is
the same on every rank without a message between them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsgd_bench import arrays
from dsgd_bench.arrays import Array

Sample = tuple[Array, float]
"""A model and when it was whole, in seconds on its rank's clock."""


@dataclass(frozen=True)
class Snapshot:
    """One snapshot: where it was due, when it was taken, and its slot in the memory."""

    position: float
    time: float
    slot: int


class Snapshots:
    """The snapshots of one rank.

    Parameters
    ----------
    like : array of shape (dim,)
        A model, for shape and type.
    capacity : int
        Snapshots kept at most; at least 2.
    distance : float
        First distance between two snapshots, in steps or in seconds.
    by_step : bool
        Whether positions are steps (else seconds).
    """

    def __init__(
        self, like: Array, *, capacity: int, distance: float, by_step: bool
    ) -> None:
        self._memory = np.zeros((capacity, like.size), like.dtype)
        self._free = list(range(capacity))
        self._by_step = by_step
        self.capacity = capacity
        self.distance = distance
        self.taken: list[Snapshot] = []
        self._due = 0.0

    def take_if_due(self, x: Array, *, step: float, time: float) -> bool:
        """Copy `x` if a snapshot is due; return whether one was."""
        position = step if self._by_step else time
        if position < self._due:
            return False
        while not self._free:  # far apart, several doublings may free none
            self._thin_out()
        if position < self._due:
            return False
        slot = self._free.pop()
        arrays.copy(x, self._memory[slot])
        self.taken.append(Snapshot(position, time, slot))
        self._due = self._after(position)
        return True

    def thin_to(self, distance: float) -> None:
        """Widen the distance to `distance`, another rank's, after the run."""
        while self.distance < distance:
            self._thin_out()

    def nearest(self, position: float, final: tuple[Array, float, float]) -> Sample:
        """Return the model nearest to `position`: a snapshot, or the final one.

        Parameters
        ----------
        position : float
            Steps or seconds.
        final : (array, float, float)
            The model after the run, its position and its time in seconds.
        """
        best, best_distance = (final[0], final[2]), abs(final[1] - position)
        for one in self.taken:
            if abs(one.position - position) < best_distance:
                best = (self._memory[one.slot], one.time)
                best_distance = abs(one.position - position)
        return best

    def pack(self) -> dict[str, NDArray[np.float64] | Array]:
        """Return all that `unpack` needs, by name."""
        taken = sorted(self.taken, key=lambda one: one.slot)
        return {
            "models": self._memory[[one.slot for one in taken]],
            "moments": np.array([(one.position, one.time) for one in taken]).reshape(
                -1, 2
            ),
            "due": np.array([self.distance, self._due]),
        }

    def unpack(self, packed: Mapping[str, NDArray[Any]]) -> None:
        """Become what was packed: snapshots of the same capacity and kind."""
        self.distance, self._due = packed["due"].tolist()
        count = len(packed["models"])
        self._memory[:count] = packed["models"]
        moments: list[list[float]] = packed["moments"].tolist()
        self.taken = [
            Snapshot(position, time, slot)
            for slot, (position, time) in enumerate(moments)
        ]
        self.taken.sort(key=lambda one: one.position)
        self._free = list(range(count, self.capacity))

    def _after(self, position: float) -> float:
        return (math.floor(position / self.distance) + 1) * self.distance

    def _thin_out(self) -> None:
        """Double the distance; keep the first snapshot after each multiple of it."""
        self.distance *= 2
        kept: list[Snapshot] = []
        due = 0.0
        for one in self.taken:
            if one.position >= due:
                kept.append(one)
                due = self._after(one.position)
            else:
                self._free.append(one.slot)
        self.taken = kept
        self._due = due
