"""Copies of the model for judging later, in memory made before the clock starts.

A copy is due at every multiple of a distance: in steps for synchronous algorithms, so
that all ranks copy the same moments, in seconds for asynchronous ones. When the memory
is full, the distance doubles and every other copy is given up; so a run of unknown
length ends with at least half its slots used, evenly spaced, and the rule is the same
on every rank without a word between them.
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
class Copy:
    """One copy: where it was due, when it was taken, and its slot in the memory."""

    position: float
    time: float
    slot: int


class Copies:
    """The copies of one rank.

    Parameters
    ----------
    like : array of shape (dim,)
        A model, for shape and type.
    capacity : int
        Copies kept at most; at least 2.
    distance : float
        First distance between two copies, in steps or in seconds.
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
        self.taken: list[Copy] = []
        self._due = 0.0

    def take_if_due(self, x: Array, *, step: float, time: float) -> bool:
        """Copy `x` if its moment has come; tell whether it had."""
        position = step if self._by_step else time
        if position < self._due:
            return False
        while not self._free:  # far apart, several doublings may free none
            self._thin_out()
        if position < self._due:
            return False
        slot = self._free.pop()
        arrays.copy(x, self._memory[slot])
        self.taken.append(Copy(position, time, slot))
        self._due = self._after(position)
        return True

    def thin_to(self, distance: float) -> None:
        """Widen the distance to `distance`, another rank's, after the run."""
        while self.distance < distance:
            self._thin_out()

    def nearest(self, position: float, final: tuple[Array, float, float]) -> Sample:
        """Return the model nearest to `position`: a copy, or the final one.

        Parameters
        ----------
        position : float
            Steps or seconds.
        final : (array, float, float)
            The model after the run, its position and its time in seconds.
        """
        best, best_distance = (final[0], final[2]), abs(final[1] - position)
        for copy in self.taken:
            if abs(copy.position - position) < best_distance:
                best = (self._memory[copy.slot], copy.time)
                best_distance = abs(copy.position - position)
        return best

    def pack(self) -> dict[str, NDArray[np.float64] | Array]:
        """Return all that `unpack` needs, by name."""
        taken = sorted(self.taken, key=lambda copy: copy.slot)
        return {
            "models": self._memory[[copy.slot for copy in taken]],
            "moments": np.array([(c.position, c.time) for c in taken]).reshape(-1, 2),
            "due": np.array([self.distance, self._due]),
        }

    def unpack(self, packed: Mapping[str, NDArray[Any]]) -> None:
        """Become what was packed: copies of the same capacity and kind."""
        self.distance, self._due = packed["due"].tolist()
        count = len(packed["models"])
        self._memory[:count] = packed["models"]
        moments: list[list[float]] = packed["moments"].tolist()
        self.taken = [
            Copy(position, time, slot) for slot, (position, time) in enumerate(moments)
        ]
        self.taken.sort(key=lambda copy: copy.position)
        self._free = list(range(count, self.capacity))

    def _after(self, position: float) -> float:
        return (math.floor(position / self.distance) + 1) * self.distance

    def _thin_out(self) -> None:
        """Double the distance; keep the first copy after each remaining moment."""
        self.distance *= 2
        kept: list[Copy] = []
        moment = 0.0
        for copy in self.taken:
            if copy.position >= moment:
                kept.append(copy)
                moment = self._after(copy.position)
            else:
                self._free.append(copy.slot)
        self.taken = kept
        self._due = moment
