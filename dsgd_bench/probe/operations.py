"""Every operation of the fabric, timed the way that algorithms use it.

Between two ranks: messages there and back, of which half counts, and one-sided
operations of rank 0, each complete before the next one; rank 1 waits in MPI meanwhile.
Among all ranks: one after the other without a pause, so each begins when the last one
is over, and the mean of all ranks counts.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dsgd_bench import graphs
from dsgd_bench.exchanges.neighbors import Exchange
from dsgd_bench.fabric.base import VectorWindow, WordWindow
from dsgd_bench.probe.samples import (
    ProbeOptions,
    Sample,
    Series,
    by_length,
    sampled,
)

if TYPE_CHECKING:
    from dsgd_bench.fabric.mpi.fabric import MpiFabric

Vector: TypeAlias = NDArray[np.float32]

VECTORS: dict[str, Callable[[VectorWindow, Vector, int], None]] = {
    "put": lambda window, x, rank: window.put(x, rank, slice(0, x.size)),
    "get": lambda window, x, rank: window.get(rank, slice(0, x.size), x),
    "accumulate": lambda window, x, rank: window.accumulate(x, rank, slice(0, x.size)),
    "get_accumulate": lambda window, x, rank: window.fetch(rank, slice(0, x.size), x),
}
"""One-sided operations on vectors by their names in MPI; they only start."""

WORDS: dict[str, Callable[[WordWindow, int], object]] = {
    "fetch_and_op": lambda window, rank: window.add(1, rank, 0),
    "compare_and_swap": lambda window, rank: window.compare_and_swap(0, 0, rank, 1),
}
"""Those on one word, each on a word of its own; complete on return."""

WORD = 8


def send_receive(pair: "MpiFabric", options: ProbeOptions) -> Series:
    """Time messages from rank to rank, one way; the same on both."""
    longest = max(options.lengths)
    out, into = np.ones(longest, np.float32), np.empty(longest, np.float32)
    messages = pair.messages()

    def ping(length: int) -> Sample:
        messages.receive(into[:length], 1)
        begun = pair.now()
        messages.send(out[:length], 1)
        started = pair.now()
        messages.wait()
        return started - begun, (pair.now() - begun) / 2

    def pong(length: int) -> Sample:
        begun = pair.now()
        messages.receive(into[:length], 0)
        messages.wait()
        messages.send(out[:length], 0)
        messages.wait()
        return 0.0, (pair.now() - begun) / 2

    once = pong if pair.rank else ping
    found = by_length(
        options.lengths,
        lambda length: sampled(partial(once, length), options, _fewest(pair)),
    )
    messages.close()
    return found


def on_vectors(name: str, pair: "MpiFabric", options: ProbeOptions) -> Series:
    """Time one of `VECTORS` and its flush; only rank 0 knows."""
    operation, longest = VECTORS[name], max(options.lengths)
    window = pair.vectors(longest, np.empty(0, np.float32))
    found = Series((), [])

    def once(part: Vector) -> Sample:
        begun = pair.now()
        operation(window, part, 1)
        started = pair.now()
        window.flush(1)
        return started - begun, pair.now() - begun

    if pair.rank == 0:
        x = np.ones(longest, np.float32)
        found = by_length(
            options.lengths, lambda n: sampled(partial(once, x[:n]), options)
        )
    pair.barrier()
    window.free()
    return found


def on_words(name: str, pair: "MpiFabric", options: ProbeOptions) -> Series:
    """Time one of `WORDS`; only rank 0 knows."""
    operation = WORDS[name]
    window = pair.words(2)
    found = Series((), [])

    def once() -> Sample:
        begun = pair.now()
        operation(window, 1)
        whole = pair.now() - begun
        return whole, whole

    if pair.rank == 0:
        found = Series((WORD,), [sampled(once, options)])
    pair.barrier()
    window.free()
    return found


def allreduce(group: "MpiFabric", options: ProbeOptions) -> Series:
    """Time the mean over all ranks; the same on all."""
    x = np.ones(max(options.lengths), np.float32)
    return _together(group, options, lambda n: group.average(x[:n]))


def neighborhood(group: "MpiFabric", options: ProbeOptions) -> Series:
    """Time exchanging vectors with both neighbors on a ring; the same on all ranks."""
    longest = max(options.lengths)
    neighbors = graphs.make("ring", group.size).neighbors[group.rank]
    out = np.ones(longest, np.float32)
    into = {rank: np.empty(longest, np.float32) for rank in neighbors}
    with Exchange(group) as exchange:

        def run(n: int) -> None:
            sends = [(out[:n], rank) for rank in neighbors]
            exchange.run(sends, [(into[rank][:n], rank) for rank in neighbors])

        return _together(group, options, run)


def _together(
    group: "MpiFabric", options: ProbeOptions, run: Callable[[int], None]
) -> Series:
    """Time what all ranks do at once and that is complete on return."""

    def once(length: int) -> Sample:
        begun = group.now()
        run(length)
        whole = group.now() - begun
        return whole, whole

    def time(length: int) -> NDArray[np.float64]:
        group.barrier()
        own = sampled(partial(once, length), options, _fewest(group))
        mean: NDArray[np.float64] = np.mean(group.gather(own), axis=0)
        return mean

    return by_length(options.lengths, time)


def _fewest(group: "MpiFabric") -> Callable[[int], int]:
    """Return what makes the count of every rank that of the most hurried one."""
    return lambda count: min(group.gather(count))


BETWEEN_TWO: dict[str, Callable[["MpiFabric", ProbeOptions], Series]] = {
    "send_receive": send_receive,
    **{name: partial(on_vectors, name) for name in VECTORS},
    **{name: partial(on_words, name) for name in WORDS},
    "allreduce": allreduce,
    "neighborhood": neighborhood,
}
"""What is timed for every class of pairs."""

AMONG_MANY = {"allreduce": allreduce, "neighborhood": neighborhood}
"""What is timed for several numbers of ranks."""
