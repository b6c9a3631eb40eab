"""Windows and messages over slow links: each transfer ends when its link has let it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.fabric.base import Fabric, VectorWindow, Window, WordWindow
from dsgd_bench.fabric.slow_ports import SlowPorts


class SlowWindow:
    """`base.Window` whose transfers with slow ranks take their time until `flush`.

    Parameters
    ----------
    ports : SlowPorts
        The slow links of this rank.
    window : Window
        What really carries everything; freed with this one.
    """

    def __init__(self, ports: SlowPorts, window: Window) -> None:
        self._ports, self._window = ports, window
        self._due: dict[int, float] = {}

    @property
    def memory(self) -> NDArray[Any]:
        return self._window.memory

    def get(self, rank: int, part: slice, out: NDArray[Any]) -> None:
        self._begin(rank, back=out.nbytes)
        self._window.get(rank, part, out)

    def put(self, values: NDArray[Any], rank: int, part: slice) -> None:
        self._begin(rank, there=values.nbytes)
        self._window.put(values, rank, part)

    def fetch(self, rank: int, part: slice, out: NDArray[Any]) -> None:
        self._begin(rank, back=out.nbytes)
        self._window.fetch(rank, part, out)

    def accumulate(self, values: NDArray[Any], rank: int, part: slice) -> None:
        self._begin(rank, there=values.nbytes)
        self._window.accumulate(values, rank, part)

    def _begin(self, rank: int, there: int = 0, back: int = 0) -> None:
        if self._ports.is_slow(rank):
            due = self._ports.round_trip(rank, there, back)
            self._due[rank] = max(due, self._due.get(rank, due))

    def flush(self, rank: int) -> None:
        self._window.flush(rank)
        if rank in self._due:
            self._ports.pause_until(self._due.pop(rank))

    def sync(self) -> None:
        self._window.sync()

    def free(self) -> None:
        self._window.free()


class SlowVectorWindow(SlowWindow):
    """`base.VectorWindow` over slow links, parameters as for `SlowWindow`."""

    def __init__(self, ports: SlowPorts, window: VectorWindow) -> None:
        super().__init__(ports, window)
        self._vectors = window

    @property
    def local(self) -> NDArray[Any]:
        return self._vectors.local

    def within_reach(self, rank: int) -> NDArray[Any] | None:
        # what is computed on directly would not be slow
        return None if self._ports.is_slow(rank) else self._vectors.within_reach(rank)

    def getting(self, rank: int, part: slice, out: NDArray[Any]) -> Callable[[], None]:
        self._begin(rank, back=out.nbytes)
        due, wait = self._due.get(rank), self._vectors.getting(rank, part, out)

        def wait_for_the_link() -> None:
            wait()
            if due is not None:
                self._ports.pause_until(due)

        return wait_for_the_link


class SlowWordWindow(SlowWindow):
    """`base.WordWindow` over slow links, parameters as for `SlowWindow`."""

    def __init__(self, ports: SlowPorts, window: WordWindow) -> None:
        super().__init__(ports, window)
        self._words = window

    def add(self, value: int, rank: int, index: int) -> int:
        with self._word(rank):
            return self._words.add(value, rank, index)

    def read(self, rank: int, index: int) -> int:
        with self._word(rank):
            return self._words.read(rank, index)

    def compare_and_swap(self, old: int, new: int, rank: int, index: int) -> int:
        with self._word(rank):
            return self._words.compare_and_swap(old, new, rank, index)

    def rest(self, rank: int, index: int, seen: int, seconds: float) -> None:
        self._words.rest(rank, index, seen, seconds)

    @contextmanager
    def _word(self, rank: int) -> Iterator[None]:
        """Let an operation on one word take its time; it ends the others before it."""
        self._begin(rank)
        yield
        if rank in self._due:
            self._ports.pause_until(self._due.pop(rank))


class SlowMessages:
    """`base.Messages` that arrive from slow ranks when their link has let them.

    Before every message over a slow link goes a stamp, on a channel of its own: when
    the last byte leaves the sender, on rank 0's clock.
    """

    def __init__(self, ports: SlowPorts, fabric: Fabric) -> None:
        self._ports, self._rank = ports, fabric.rank
        self._offset = fabric.offsets[fabric.rank]
        self._messages, self._stamps = fabric.messages(), fabric.messages()
        self._left: list[NDArray[Any]] = []
        self._sent_until = -np.inf
        self._expected: list[tuple[NDArray[Any], int, int]] = []

    def send(self, values: NDArray[Any], rank: int) -> None:
        if self._ports.is_slow(rank):
            due = self._ports.carry(self._rank, rank, values.nbytes)
            self._sent_until = max(self._sent_until, due)
            self._left.append(np.array([due - self._offset]))
            self._stamps.send(self._left[-1], rank)
        self._messages.send(values, rank)

    def receive(self, out: NDArray[Any], rank: int) -> None:
        if self._ports.is_slow(rank):
            self._expected.append((np.zeros(1), rank, out.nbytes))
            self._stamps.receive(self._expected[-1][0], rank)
        self._messages.receive(out, rank)

    def arrive(self) -> None:
        self._messages.arrive()
        self._stamps.arrive()
        self._ports.pause_until(self._arrived())

    def _arrived(self) -> float:
        """Return when the last expected message is here, those that left first first.

        Each waits for its own link, and for the others in this rank's own port.
        """
        latest = -np.inf
        for stamp, rank, nbytes in sorted(
            self._expected, key=lambda one: one[0].item()
        ):
            sent = stamp.item() + self._offset
            latest = max(latest, self._ports.receive(rank, nbytes, sent))
        self._expected.clear()
        return latest

    def wait(self) -> None:
        self.arrive()
        self._messages.wait()
        self._stamps.wait()
        self._ports.pause_until(self._sent_until)
        self._left.clear()

    def take(self, out: NDArray[Any]) -> tuple[int, int]:
        rank, count = self._messages.take(out)
        if self._ports.is_slow(rank):
            stamp = np.zeros(1)
            self._stamps.receive(stamp, rank)
            self._stamps.arrive()
            nbytes = count * out.itemsize
            sent = stamp.item() + self._offset
            self._ports.pause_until(self._ports.receive(rank, nbytes, sent))
        return rank, count

    def close(self) -> None:
        self._ports.pause_until(self._sent_until)
        self._messages.close()
        self._stamps.close()
