"""Work on a GPU recorded once, then started as a whole: CUDA graphs.

Launching a kernel from Python takes longer than most kernels of a small network run. A
recorded step is started by one call, however many kernels it has.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from dsgd_bench.arrays import Array, Host
from dsgd_bench.io import printing

KEPT = 512
"""Recordings kept: algorithms alternate between a few models and gradients, and a
gradient in parts has as many recordings as layers."""


class Recorder:
    """Does work that is a function of the arrays it reads and writes, and repeats it.

    Parameters
    ----------
    device : Host
        Where the work is done; on the host it is simply done.
    enabled : bool
        Whether to record at all.
    """

    def __init__(self, device: Host, *, enabled: bool = True) -> None:
        self._enabled = enabled and device.kind == "cuda"
        self._recorded: OrderedDict[tuple[Hashable, int, int], Any] = OrderedDict()
        self._warm: set[Hashable] = set()

    @property
    def recordings(self) -> int:
        """How many recordings there are."""
        return len(self._recorded)

    def __call__(
        self, name: Hashable, x: Array, out: Array, work: Callable[[], None]
    ) -> None:
        """Do `work`, or start its recording.

        Parameters
        ----------
        name : hashable
            Which work it is. The first time nothing is recorded: kernels are compiled
            then, and memory is made.
        x, out : Array
            What it reads and writes besides memory that stays the same.
        work : callable
            Starts kernels on the thread's stream; allocates, copies to the host and
            waits for nothing.
        """
        if not self._enabled or name not in self._warm:
            work()
            self._warm.add(name)
            return
        from dsgd_bench.arrays import cuda
        from dsgd_bench.arrays.kernels import address

        key = (name, address(x), address(out))
        if key not in self._recorded:
            try:
                self._recorded[key] = cuda.record(work)
            except cuda.RecordingError as error:
                self._enabled = False
                printing.complain(f"GPU work is not recorded, only slower: {error}")
                work()
                return
            if len(self._recorded) > KEPT:
                self._recorded.popitem(last=False)
        self._recorded.move_to_end(key)
        cuda.replay(self._recorded[key])
