"""Run a launcher to its end, and leave nothing behind whatever happens.

A process group is not enough for that: MPICH gives every rank a session of its own. So
all processes carry a mark in their environment, by which the stragglers are found.
"""

import codecs
import ctypes
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self

from dsgd_bench.errors import HangError, LaunchError
from dsgd_bench.host import shared_memory

MARK = shared_memory.LAUNCH
"""Environment variable that all processes of one launch share."""

QUIET_LOOKS = 8
"""Looks, 20 ms apart, that find no process of an ended launch; then there is none."""

HUNG = 2.0
"""Seconds of patience with a command that hangs."""

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

KEEP_SIZE, PUNCH_HOLE = 1, 2
"""Modes of fallocate."""

GLANCE = 0.2
"""Seconds between two looks at the log."""

CHUNK = 2**20
"""Bytes of output that are read at a time."""

Listener = Callable[[str], None]


def run(
    command: Sequence[str],
    env: Mapping[str, str],
    log: Path,
    on_line: Listener | None = None,
    *,
    on_glance: Callable[[], None] | None = None,
    patience: float = 5.0,
) -> int:
    """Run a command to its end and return its exit status (-9: killed by signal 9).

    The command writes into a file in memory, so that nothing here can hold it up and
    its last words are heard even if the disk is full; from there the log is written,
    as far as it goes. When this process is interrupted (Ctrl-C, SIGTERM or SIGHUP) or
    `on_line` or `on_glance` raises, all processes of the command are ended before the
    exception goes on; a second interrupt only shortens that.

    Parameters
    ----------
    command : sequence of str
        Program and arguments.
    env : mapping
        The whole environment of the command.
    log : Path
        File that receives its standard output and error; what it held is lost.
    on_line : callable, optional
        Called with every line of its output, without its end, soon after it was
        written.
    on_glance : callable, optional
        Called several times a second; raises `HangError` if the command hangs.
    patience : float
        Seconds between asking a command to end and making it.

    Raises
    ------
    LaunchError
        If the log cannot be written or the command cannot be started.
    HangError
        If `on_glance` raises it.
    """
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    process = None
    with _signals_interrupt(), _Output(command[0], log) as output:
        try:
            process = _start(command, {**env, MARK: mark}, output.sink)
            return _follow(process, output, on_line or _nothing, on_glance or _nothing)
        except HangError:
            patience = min(patience, HUNG)
            raise
        finally:
            _end(process, mark, patience)
            shared_memory.sweep()
            if process:
                shared_memory.end_session(process.pid, env.get("TMPDIR", ""))


def _die_with_parent() -> None:
    """Ask Linux for SIGTERM when dsgd-bench dies, however: then the launcher ends too.

    Runs between fork and exec, so it only calls what was loaded before.
    """
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class _Output:
    """What a command prints: in memory, and from there into its log.

    Parameters
    ----------
    name : str
        Of the command, for the error.
    log : Path
        The log; what it held is lost.

    Attributes
    ----------
    sink : int
        Descriptor that the command writes to.

    Raises
    ------
    LaunchError
        If the log cannot be made.
    """

    def __init__(self, name: str, log: Path) -> None:
        try:
            self._log = log.open("wb", buffering=0)
        except OSError as error:
            raise LaunchError(
                f"{name} cannot be started with its output in {log}: {error}"
            ) from error
        self._file = _in_memory()
        self.sink = self._file.fileno()
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        self._place = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.read()  # what was printed while the command was ended
        self._file.close()
        self._log.close()

    def read(self) -> str:
        """Return what was written since the last time, and copy it into the log."""
        parts = []
        # at a place, as the descriptor's own place is where the command writes
        while part := os.pread(self.sink, CHUNK, self._place):
            self._place += len(part)
            parts.append(self._decoder.decode(part))
            with suppress(OSError):  # it is full: then `on_line` at least hears it
                self._log.write(part)
        if parts and LIBC is not None:  # give the memory back
            begin, length = ctypes.c_long(0), ctypes.c_long(self._place)
            LIBC.fallocate(self.sink, PUNCH_HOLE | KEEP_SIZE, begin, length)
        return "".join(parts)


def _in_memory() -> BinaryIO:
    """Return a file without a name, in memory where the system can do that."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("dsgd_bench_log"), "w+b")
    return tempfile.TemporaryFile()


def _start(
    command: Sequence[str], env: Mapping[str, str], sink: int
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 (see there)
        )
    except OSError as error:
        raise LaunchError(f"{command[0]} cannot be started: {error}") from error


def _nothing(*_: object) -> None:
    pass


def _follow(
    process: subprocess.Popen[bytes],
    lines: _Output,
    on_line: Listener,
    on_glance: Callable[[], None],
) -> int:
    """Pass on complete lines until the process has ended; return its exit status."""
    begun = ""
    status = None
    while status is None:
        with suppress(subprocess.TimeoutExpired):
            status = process.wait(GLANCE)
        *whole, begun = (begun + lines.read()).split("\n")
        for line in whole:
            on_line(line)
        if status is None:
            on_glance()
    if begun:
        on_line(begun)
    return status


def _end(process: subprocess.Popen[bytes] | None, mark: str, patience: float) -> None:
    """End the command politely, wait, then end firmly whatever carries its mark.

    There is no `process` if it was still being started when the interrupt came. One
    that was stopped learns of SIGTERM only when it goes on.
    """
    try:
        if process and process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            os.killpg(process.pid, signal.SIGCONT)
            process.wait(patience)
    except (subprocess.TimeoutExpired, ProcessLookupError):
        pass
    finally:  # also where Ctrl-C came once more, and ended the patience
        with _signals_wait():
            _kill_marked(mark)
            if process:
                process.kill()  # for systems without /proc; nothing if it has ended
                process.wait()


def _kill_marked(mark: str) -> None:
    # Again and again, until none has been seen for a while: a process may have started
    # another meanwhile, and shows no environment while it becomes another program. Not
    # forever: one that hangs in a system call ends only when the system lets it.
    looks = 0
    for _ in range(100):
        strays = _marked(mark)
        looks = 0 if strays else looks + 1
        if looks == QUIET_LOOKS:
            return
        for pid in strays:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _marked(mark: str) -> list[int]:
    """Return the processes on this host that carry the mark (none without /proc)."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        # Processes of other users cannot be read; others end while one looks.
        with suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt, as SIGINT does."""
    with _handlers(signal.default_int_handler, signal.SIGTERM, signal.SIGHUP):
        yield


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Let signals interrupt when the block is done: nothing is left half killed."""
    came: list[int] = []
    note = lambda number, _: came.append(number)  # noqa: E731
    with _handlers(note, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        yield
    if came:
        raise KeyboardInterrupt


@contextmanager
def _handlers(handler: "signal._HANDLER", *numbers: int) -> Iterator[None]:
    """Handle some signals in another way during a ``with`` block."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and only it is interrupted
        return
    before = {}
    for number in numbers:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup wants to be left alone
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
