"""What a fabric is: the verbs through which ranks meet, on MPI or in virtual time.

`fabric.mpi` measures, `fabric.virtual` simulates and is stricter. Everything built
above windows (the room `exchanges`) exists once and runs on both, so the protocol that
thousands of hostile virtual schedules have tried to break is the one that runs on the
cluster.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.arrays import Array
from dsgd_bench.fabric.ledger import Ledger

BACK_OFF_SECONDS = (0.0, 0.0, 0.0, 5e-6, 10e-6, 20e-6, 50e-6, 100e-6)
"""Seconds between the tries of a rank that wants a lock; the last one repeats."""


class Window(Protocol):
    """Memory of every rank that the others reach one-sidedly, epoch always open.

    What a `VectorWindow` and a `WordWindow` have in common. `get`, `put`, `fetch` and
    `accumulate` only start: their local buffer belongs to the fabric until `flush` of
    that rank. `get` and `put` are atomic for no unit at all, `fetch` and `accumulate`
    are atomic per element. On one element only sums beside fetches, or only
    `WordWindow.compare_and_swap`, may ever be used.
    """

    @property
    def memory(self) -> NDArray[Any]:
        """The part of this rank, where transfers read and write it."""

    def get(self, rank: int, part: slice, out: NDArray[Any]) -> None:
        """Start to copy a part of the memory of `rank` to `out`."""

    def put(self, values: NDArray[Any], rank: int, part: slice) -> None:
        """Start to copy `values` to a part of the memory of `rank`."""

    def fetch(self, rank: int, part: slice, out: NDArray[Any]) -> None:
        """Start a `get` that is atomic per element."""

    def accumulate(self, values: NDArray[Any], rank: int, part: slice) -> None:
        """Start to add `values` to a part of the memory of `rank`."""

    def flush(self, rank: int) -> None:
        """Wait until all that was started on the memory of `rank` is done."""

    def sync(self) -> None:
        """Let this rank see what others have written to its memory."""

    def free(self) -> None:
        """Give the memory back; collective."""


class VectorWindow(Window, Protocol):
    """A window that holds vectors of a model's type, on the host or on a GPU.

    `getting` is a `get` that can be waited for by itself: it returns what waits. The
    vector that `within_reach` returns is exchanged by computing on it, and complete
    after `flush`.
    """

    @property
    def local(self) -> NDArray[Any]:
        """The same as `memory`, as this rank's vectors see it: on the GPU, if there."""

    def within_reach(self, rank: int) -> NDArray[Any] | None:
        """Return the vector of another rank if this one can compute on it."""

    def getting(self, rank: int, part: slice, out: NDArray[Any]) -> Callable[[], None]:
        """Start a `get`; return what waits for it alone."""


class WordWindow(Window, Protocol):
    """A window that holds control words, 64-bit integers on the host: locks, counters.

    `add` and `compare_and_swap` are atomic. `rest` waits between two tries of a word
    that was `seen` to be taken.
    """

    def add(self, value: int, rank: int, index: int) -> int:
        """Add to a word; return what it was before. Complete on return."""

    def read(self, rank: int, index: int) -> int:
        """Return a word."""

    def compare_and_swap(self, old: int, new: int, rank: int, index: int) -> int:
        """Replace a word if it is `old`; return what it was. Complete on return."""

    def rest(self, rank: int, index: int, seen: int, seconds: float) -> None:
        """Wait between two tries of a word that was `seen`, `seconds` by polling."""


class Messages(Protocol):
    """Two-sided messages of vectors; between two ranks they arrive in the order sent.

    `send` and `receive` only start: their buffer belongs to the fabric until `wait`.
    One thread per rank uses one of these at a time.
    """

    def send(self, values: NDArray[Any], rank: int) -> None:
        """Start sending `values` to `rank`."""

    def receive(self, out: NDArray[Any], rank: int) -> None:
        """Start receiving the next message of `rank`, of exactly the size of `out`."""

    def arrive(self) -> None:
        """Wait until all that is to be received is here; sends may be under way."""

    def wait(self) -> None:
        """Wait until all that was started is done; on shared cores, by polling."""

    def take(self, out: NDArray[Any]) -> tuple[int, int]:
        """Wait for the next message of any rank; return that rank and the elements.

        What this rank has started to send meanwhile need not be done.
        """

    def close(self) -> None:
        """Give the channel back; collective."""


class Helper(Protocol):
    """A helper of the training thread: a thread on MPI, a greenlet in virtual time."""

    def start(self, work: Callable[[], None]) -> None:
        """Begin `work`; the last one must have been joined."""

    def join(self) -> None:
        """Wait for `work` to end; raise what it raised."""

    def check(self) -> None:
        """Raise now what the work raised, if it has failed."""

    def close(self) -> None:
        """Give the thread back."""


class Fabric(Protocol):
    """One rank's way to the others.

    Attributes
    ----------
    kind : str
        ``"mpi"`` (measured) or ``"virtual"`` (simulated).
    rank, size : int
        The number of this rank, from 0, and how many there are.
    ledger : Ledger
        Where the fabric books time and traffic.
    offsets : list of float
        Every rank's clock minus rank 0's in seconds; zeros until `clock_offset`.
    near : frozenset of int
        Ranks whose windows are plain memory for this one, itself among them.
    broken : bool
        Some rank failed: no collective can end any more, and nothing is closed.
    """

    kind: str
    rank: int
    size: int
    ledger: Ledger
    near: frozenset[int]

    @property
    def offsets(self) -> list[float]:
        """Every rank's clock minus rank 0's in seconds."""

    @property
    def broken(self) -> bool:
        """Whether some rank failed, so that no collective can end any more."""

    def now(self) -> float:
        """Return this rank's clock in seconds; only differences mean anything."""

    def pause(self, seconds: float) -> None:
        """Let `seconds` pass without using the processor."""

    def average(self, x: Array) -> None:
        """Replace `x` by its mean over all ranks, in place; everyone waits."""

    def averaging(self, x: Array) -> AbstractContextManager[None]:
        """Start `average` on entry and finish it on exit; `x` is lent meanwhile."""

    def vectors(self, length: int, like: NDArray[Any]) -> VectorWindow:
        """Open a window of a vector of `length` zeros on every rank; collective.

        Its elements are of the type of `like`, and it will be used with vectors that
        lie where `like` does.
        """

    def words(self, count: int) -> WordWindow:
        """Open a window of `count` control words, all 0, on every rank; collective."""

    def messages(self) -> Messages:
        """Open a channel for two-sided messages; collective."""

    def helper(self) -> Helper:
        """Make a helper, which works while the training thread computes."""

    def barrier(self) -> None:
        """Wait for all ranks. For the harness, never while the clock runs."""

    def nodes(self) -> list[str]:
        """Return every rank's host, by rank, two of one name made distinct.

        For the harness.
        """

    def clock_offset(self) -> tuple[float, float]:
        """Return this clock minus rank 0's, and its error, in seconds; collective."""

    @property
    def progress_running(self) -> bool:
        """Whether a thread keeps the library answering while this rank computes."""

    def start_progress(self) -> None:
        """Start that thread."""

    def gather(self, value: object) -> list[Any]:
        """Return the `value` of all ranks, by rank, on every rank. For the harness."""


def ends_well(fabric: Fabric, kind: type[BaseException] | None) -> bool:
    """Tell whether a block that ends with exception `kind` may meet the others.

    A failed rank frees nothing: freeing is collective, and the others would wait.
    """
    return not fabric.broken and (kind is None or issubclass(kind, GeneratorExit))


class Resource:
    """Something that is closed when its ``with`` block ends, on every rank alike."""

    _fabric: Fabric

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if ends_well(self._fabric, kind):
            self.close()

    def close(self) -> None:
        """Give everything back; collective."""
        raise NotImplementedError


def check_vector(x: NDArray[Any]) -> None:
    """Refuse what MPI would read as something else.

    Raises
    ------
    TypeError
        If `x` is not one contiguous vector of float32 or float64.
    """
    if x.ndim != 1 or not x.flags.c_contiguous or x.dtype not in (np.float32, float):
        raise TypeError(
            f"a model is one contiguous vector of float32 or float64, not an array of "
            f"shape {x.shape}, type {x.dtype}"
        )
