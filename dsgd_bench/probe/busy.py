"""Is your asynchronous really asynchronous? One-sided operations on busy targets.

For windows as our fabric makes them, and for those of ``MPI_Win_create``, which many
programs use; first with targets that do nothing but compute, then with the progress
thread that runs start where it is needed.
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dsgd_bench.fabric import preflight
from dsgd_bench.fabric.base import VectorWindow, WordWindow
from dsgd_bench.probe.operations import VECTORS, WORDS
from dsgd_bench.spec.machine_profile import (
    ALLOCATED,
    CREATED,
    NEEDS_PROGRESS,
    NONE,
    PASSIVE,
    Answer,
    Busy,
    Verdict,
)

if TYPE_CHECKING:
    from dsgd_bench.fabric.mpi.fabric import MpiFabric

Seconds = dict[str, dict[str, float]]
"""Kind of window -> operation -> what it took."""

LENGTH = 2 * preflight.LENGTH
"""Elements of the vectors: as many bytes as every run's preflight moves."""

OFFERS = {
    "mpich": "set MPIR_CVAR_ASYNC_PROGRESS=1, which keeps a core busy per rank",
    "cray": "set MPICH_ASYNC_PROGRESS=1, which keeps a core busy per rank",
    "intel": "enter MPI now and then, as I_MPI_ASYNC_PROGRESS does not serve windows",
    "openmpi": "enter MPI now and then, as Open MPI has no progress thread of its own",
}
"""Family of an MPI library -> what programs without a thread like ours can do."""

UNKNOWN = "see your MPI library's manual on asynchronous progress"


def times(pair: "MpiFabric") -> Seconds:
    """Time every operation on a target that computes, per kind of window; collective.

    Equal on both ranks.
    """
    from dsgd_bench.fabric.mpi.bare import created
    from dsgd_bench.fabric.mpi.window import MpiVectorWindow, MpiWordWindow, allocated

    found = {}
    for flavor, making in {ALLOCATED: allocated, CREATED: created}.items():
        vectors = MpiVectorWindow(pair, LENGTH, np.dtype(np.float32), making)
        words = MpiWordWindow(pair, 2, making)
        operations = _operations(vectors, words)
        found[flavor] = preflight.answers(pair, operations, origin=0, target=1)
        vectors.free()
        words.free()
    return found


def _operations(vectors: VectorWindow, words: WordWindow) -> preflight.Operations:
    x = np.zeros(LENGTH, np.float32)

    def flushed(name: str) -> None:
        VECTORS[name](vectors, x, 1)
        vectors.flush(1)

    return {
        **{name: partial(flushed, name) for name in VECTORS},
        **{name: partial(operation, words, 1) for name, operation in WORDS.items()},
    }


def answers(alone: Seconds, with_thread: Seconds) -> dict[str, dict[str, Answer]]:
    """Judge every operation by its times without and with the progress thread."""
    return {
        flavor: {
            name: Answer(before, after, _verdict(before, after))
            for name, before, after in (
                (name, before, with_thread[flavor][name])
                for name, before in operations.items()
            )
        }
        for flavor, operations in alone.items()
    }


def _verdict(alone: float, with_thread: float) -> Verdict:
    if not preflight.has_waited(alone):
        return PASSIVE
    return NONE if preflight.has_waited(with_thread) else NEEDS_PROGRESS


def remedies(busy: Busy, family: str) -> tuple[str, ...]:
    """Return sentences on what mends the operations that wait; none if none does.

    Parameters
    ----------
    busy : Busy
        What was found.
    family : str
        Of the MPI library, one of `mpi_bugs.LIBRARIES`.
    """
    said = []
    for pair, flavors in busy.items():
        ours, created = flavors[ALLOCATED], flavors[CREATED]
        if names := _judged(ours, NEEDS_PROGRESS):
            said.append(
                f"{pair}: {_shown(names)} of this suite's windows need a progress "
                'thread: runs start it by themselves (progress = "auto" in the machine '
                f"file); elsewhere {OFFERS.get(family, UNKNOWN)}"
            )
        if names := _judged(ours, NONE):
            said.append(
                f"{pair}: {_shown(names)} wait for the target even with a progress "
                "thread: use another MPI library or a network with RDMA, or algorithms "
                "that do without"
            )
        waiting = _judged(created, NEEDS_PROGRESS, NONE)
        if names := [name for name in waiting if ours[name].verdict == PASSIVE]:
            said.append(
                f"{pair}: {_shown(names)} wait in windows of MPI_Win_create only: make "
                "windows with MPI_Win_allocate, as this suite does"
            )
    return tuple(said)


def _judged(operations: dict[str, Answer], *verdicts: Verdict) -> list[str]:
    return [name for name, answer in operations.items() if answer.verdict in verdicts]


def _shown(names: list[str]) -> str:
    everything = len(names) == len(VECTORS) + len(WORDS)
    return "all operations" if everything else ", ".join(names)
