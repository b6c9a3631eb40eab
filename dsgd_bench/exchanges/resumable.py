"""What one rank must remember to go on after a stop, as if there had been none.

A generator cannot be saved, so it starts anew and finds its arrays filled. Random
streams are addressed by (seed, rank, purpose, number) and need no saving but the number
of draws.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from numpy.typing import NDArray

from dsgd_bench.arrays import copy

Kept = TypeVar("Kept", bound=NDArray[Any])


class State:
    """The named arrays of one rank, and the steps it has taken.

    Parameters
    ----------
    step : int
        Steps that this rank took before the stop; 0 at a first start.
    elapsed : float
        Seconds of the run before the stop.
    saved : mapping of str to array
        What `arrays` was then.

    Attributes
    ----------
    step, elapsed : int, float
        As above: an algorithm counts its steps from here.
    arrays : dict of str to array
        All that was kept; the owners go on changing them in place.
    """

    def __init__(
        self,
        step: int = 0,
        elapsed: float = 0.0,
        saved: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        self.step, self.elapsed = step, elapsed
        self.arrays: dict[str, NDArray[Any]] = {}
        self._saved = saved or {}

    def keep(self, name: str, array: Kept) -> Kept:
        """Return `array`, filled with what it held at the stop, if there was one.

        Parameters
        ----------
        name : str
            Under which it is saved; used once.
        array : array
            Changed in place only, and final once its owner is closed.
        """
        if name in self._saved:
            copy(self._saved[name], array)
        self.arrays[name] = array
        return array
