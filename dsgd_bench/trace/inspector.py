"""Reads HDF5 files that may be damaged, in a process that may crash instead of ours.

A process is started once and asked about one file after the other; it reads each in a
child of its own, which has little memory and time. What a child could read, we can.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

MEMORY = 2**29
"""Bytes that reading may take, beside the data themselves."""

SECONDS = 3
"""Of a processor that reading may take, beside one for every 20 MB of the file."""

PACKING = 1100
"""Times that deflate makes data smaller, at most (1032, and what is around them)."""

CHUNK = 2**26
"""Bytes of the largest part of a dataset that is packed for itself."""

ENDED = "reading it makes the HDF5 library crash"


def check(item: Any) -> None:
    """Refuse a dataset that is larger than what the file stores of it.

    Parameters
    ----------
    item : h5py.Dataset
        What was found under a name.

    Raises
    ------
    ValueError
        If it is no dataset of numbers in up to 3 dimensions, or too large.
    """
    kind = getattr(item, "dtype", None)
    if kind is None or kind.kind not in "fiub" or kind.itemsize > 8:
        raise ValueError(f"{_name(item)} does not hold numbers")
    if item.shape is None or len(item.shape) > 3:
        raise ValueError(f"{_name(item)} has a shape that nothing of ours has")
    claimed, stored = item.nbytes, item.id.get_storage_size()
    if item.chunks is not None:
        part = kind.itemsize
        for edge in item.chunks:
            part *= edge
        if part > CHUNK:
            raise ValueError(f"{_name(item)} pretends to have parts of {part} bytes")
        # what is of pairs of ranks is written row by row, and most rows never are
        square = item.chunks[0] == 1 and len(set(item.shape)) == 1
        ranks = item.shape[0] if square else 0
        stored = stored * PACKING + kind.itemsize * ranks**2
    if claimed > stored:
        raise ValueError(f"{_name(item)} pretends to have {claimed} bytes")


def _name(item: Any) -> str:
    return str(getattr(item, "name", None) or "what is there").lstrip("/")


def problem_with(path: Path) -> str:
    """Return why a file cannot be read, or nothing.

    Parameters
    ----------
    path : Path
        An HDF5 file.
    """
    with _lock:
        return _the_inspector().ask(path)


class _Inspector:
    """The process that is asked; `owner` is the process that asks."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        variables = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],  # by its path: it needs nothing of ours
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=variables,
            text=True,
        )
        atexit.register(self.close)

    @property
    def alive(self) -> bool:
        return self.owner == os.getpid() and self._process.poll() is None

    def ask(self, path: Path) -> str:
        asked, answers = self._process.stdin, self._process.stdout
        if asked is None or answers is None:
            return ENDED
        try:
            asked.write(json.dumps(os.fsdecode(path.absolute())) + "\n")
            asked.flush()
            return str(json.loads(answers.readline()))
        except (OSError, ValueError):
            return "the process that should have read it has ended"

    def close(self) -> None:
        if self.owner != os.getpid():
            return
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()


_lock = threading.Lock()
_known: list[_Inspector] = []


def _the_inspector() -> _Inspector:
    if not _known or not _known[0].alive:
        _known[:] = [_Inspector()]
    return _known[0]


def serve() -> None:
    """Answer every line of standard input, a path as JSON, until there are no more."""
    import h5py  # noqa: F401 - once, not in every child

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with who started it
    for line in sys.stdin:
        print(json.dumps(_in_a_child(Path(json.loads(line)))), flush=True)


def _in_a_child(path: Path) -> str:
    into, out = os.pipe()
    child = os.fork()
    if not child:
        os.close(into)
        status = 1
        try:
            seconds = SECONDS + path.stat().st_size / 20e6
            signal.setitimer(signal.ITIMER_PROF, seconds)  # whatever else runs here
            _read_all(path)
            status = 0
        except BaseException as error:  # noqa: BLE001 - all are the file's fault
            said = " ".join(str(error).split())[:500] or type(error).__name__
            said = "it asks for too much memory" if _greedy(error) else said
            os.write(out, said.encode("utf-8", "replace"))
        finally:
            os._exit(status)
    os.close(out)
    with open(into, encoding="utf-8", errors="replace") as pipe:  # noqa: PTH123
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        late = os.WTERMSIG(status) == signal.SIGPROF
        return f"reading it takes more than {SECONDS} s" if late else ENDED
    return said or ("" if status == 0 else ENDED)


def _greedy(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "memory alloc" in str(error).lower()


def _read_all(path: Path) -> None:
    """Read every attribute and dataset of a file, in little memory."""
    import resource

    import h5py

    with suppress(OSError):  # Linux only
        words = Path("/proc/self/statm").read_text(encoding="ascii").split()
        have = int(words[0]) * resource.getpagesize()
        most = have + MEMORY + 2 * PACKING * path.stat().st_size
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with h5py.File(path, "r", locking=False) as opened:
        _visit(opened, depth=0)


def _visit(group: Any, *, depth: int) -> None:
    if depth > 3 or len(group) > 10_000:
        raise ValueError("it has more groups than anything of ours")
    dict(group.attrs)
    for name in group:
        item = group[name]
        if hasattr(item, "shape"):
            check(item)
            _ = item[()]
        else:
            _visit(item, depth=depth + 1)


if __name__ == "__main__":
    serve()
