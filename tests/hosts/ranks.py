"""What the ranks of these tests do: ``python -m mpi4py ranks.py ANSWER NAME [WORDS]``.

Every function gets the fabric and its words; rank 0 writes all results, by rank.
"""

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dsgd_bench.fabric import preflight
from dsgd_bench.fabric.mpi.fabric import world
from dsgd_bench.host import network_counters

SETTLING = 0.2
"""Seconds until the last acknowledgments are under way."""


def meet(fabric: Any, nbytes: str) -> dict[str, Any]:
    """Average a vector; say who this is and what crossed this host's devices."""
    x = np.full(int(nbytes) // 8, float(fabric.rank))
    fabric.average(x.copy())  # connects
    fabric.barrier()
    time.sleep(SETTLING)
    before = network_counters.read()
    fabric.barrier()
    fabric.average(x)
    time.sleep(SETTLING)
    after = network_counters.read()
    return {
        "host": socket.gethostname(),
        "nodes": fabric.nodes(),
        "crowded": fabric.crowded,
        "mean": [float(x.min()), float(x.max())],
        "sent": after[0] - before[0],
        "received": after[1] - before[1],
        "offset": fabric.clock_offset(),
    }


def there_and_back(fabric: Any, nbytes: str, times: str) -> list[float]:
    """Send vectors between ranks 0 and 1, 2 and 3; return the seconds of both."""
    partner = fabric.rank ^ 1
    vector, messages, seconds = np.ones(int(nbytes) // 8), fabric.messages(), []
    for _ in range(int(times) + 1):
        fabric.barrier()
        started = fabric.now()
        for sender in (0, 1):
            if fabric.rank % 2 == sender:
                messages.send(vector, partner)
            else:
                messages.receive(vector, partner)
            messages.wait()
        seconds.append(fabric.now() - started)
    messages.close()
    return seconds[1:]  # the first one connects


def answering(fabric: Any, mode: str, busy: str) -> dict[str, Any]:
    """Measure whether a busy target answers, with busy phases of so many seconds."""
    preflight.BUSY_SECONDS = float(busy)
    return msgspec.to_builtins(preflight.preflight(fabric, mode))


def fail(fabric: Any) -> None:
    """Let one rank raise while the others wait for it."""
    if fabric.rank == fabric.size - 1:
        raise RuntimeError("this rank was told to fail")
    fabric.barrier()


def main(answer: str, name: str, *words: str) -> None:
    fabric = world()
    results = fabric.gather(globals()[name](fabric, *words))
    if fabric.rank == 0:
        Path(answer).write_text(json.dumps(results))
    fabric.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
