"""How a run ends without a collective: a shared count and an announced last step."""

import numpy as np

from dsgd_bench.fabric.base import Fabric, Resource

COUNT_SHARE = 0.01
"""Share of a budget of gradients after which an asynchronous rank adds to the count."""

COUNT, LAST_STEP = 0, 1
NEVER = np.iinfo(np.int64).max


class Board(Resource):
    """Two words per rank; collective to open and to close.

    Parameters
    ----------
    fabric : Fabric
        This rank's fabric.
    counted : int
        Gradients of all ranks that were counted before this run was stopped.
    """

    def __init__(self, fabric: Fabric, counted: int = 0) -> None:
        self.counted = counted
        self._fabric = fabric
        self.rank, self.size = fabric.rank, fabric.size
        self._words = fabric.words(2)
        self._words.memory[LAST_STEP] = NEVER
        self._words.memory[COUNT] = counted
        self._words.sync()
        fabric.barrier()

    def count(self, gradients: int) -> int:
        """Add to the count of all ranks' gradients, kept by rank 0; return the sum."""
        return self._words.add(gradients, 0, COUNT) + gradients

    def announce(self, last_step: int) -> None:
        """Announce to every rank which step is the last; only one rank may do so."""
        word = slice(LAST_STEP, LAST_STEP + 1)
        # a sum onto NEVER, since on one word only sums may meet fetches
        change = np.array([last_step - NEVER], np.int64)
        for rank in range(self.size):
            self._words.accumulate(change, rank, word)
        for rank in range(self.size):
            self._words.flush(rank)

    def last_step(self) -> int:
        """Return what was announced here, or `NEVER`; no traffic."""
        return self._words.read(self.rank, LAST_STEP)

    def close(self) -> None:
        """Free the words; collective."""
        self._fabric.barrier()
        self._words.free()
