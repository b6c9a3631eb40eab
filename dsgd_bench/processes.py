"""Run a launcher to its end, and leave nothing behind whatever happens.

A process group is not enough for that: MPICH gives every rank a session of its own. So
all processes carry a mark in their environment, by which the stragglers are found.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from dsgd_bench import segments
from dsgd_bench.errors import LaunchError

MARK = "DSGD_BENCH_LAUNCH"
"""Environment variable that all processes of one launch share."""

QUIET_LOOKS = 8
"""Looks, 20 ms apart, that find no process of an ended launch; then there is none."""

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

GLANCE = 0.2
"""Seconds between two looks at the log."""

Listener = Callable[[str], None]


def run(
    command: Sequence[str],
    env: Mapping[str, str],
    log: Path,
    on_line: Listener | None = None,
    *,
    patience: float = 5.0,
) -> int:
    """Run a command to its end and return its exit status (-9: killed by signal 9).

    The command writes into the log itself, so that nothing here can hold it up. When
    this process is interrupted (Ctrl-C, SIGTERM or SIGHUP) or `on_line` raises, all
    processes of the command are ended before the exception goes on.

    Parameters
    ----------
    command : sequence of str
        Program and arguments.
    env : mapping
        The whole environment of the command.
    log : Path
        File that receives its standard output and error; what it held is lost.
    on_line : callable, optional
        Called with every line of the log, without its end, soon after it was written.
    patience : float
        Seconds between asking a command to end and making it.

    Raises
    ------
    LaunchError
        If the log cannot be written or the command cannot be started.
    """
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    process = None
    with _signals_interrupt():
        try:
            process = _start(command, {**env, MARK: mark}, log)
            with log.open(errors="replace") as lines:
                return _follow(process, lines, on_line or (lambda _: None))
        finally:
            _end(process, mark, patience)
            segments.sweep()


def _die_with_parent() -> None:
    """Ask Linux for SIGTERM when dsgd-bench dies, however: then the launcher ends too.

    Runs between fork and exec, so it only calls what was loaded before.
    """
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _start(
    command: Sequence[str], env: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    try:
        with log.open("wb") as sink:
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
        raise LaunchError(
            f"{command[0]} cannot be started with its output in {log}: {error}"
        ) from error


def _follow(process: subprocess.Popen[bytes], lines: TextIO, on_line: Listener) -> int:
    """Pass on complete lines until the process has ended; return its exit status."""
    begun = ""
    status = None
    while status is None:
        with suppress(subprocess.TimeoutExpired):
            status = process.wait(GLANCE)
        *whole, begun = (begun + lines.read()).split("\n")
        for line in whole:
            on_line(line)
    if begun:
        on_line(begun)
    return status


def _end(process: subprocess.Popen[bytes] | None, mark: str, patience: float) -> None:
    """End the command politely, wait, then end firmly whatever carries its mark.

    There is no `process` if it was still being started when the interrupt came.
    """
    try:
        if process and process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(patience)
    except (subprocess.TimeoutExpired, ProcessLookupError):
        pass
    finally:
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
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and only it is interrupted
        return
    before = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup wants to be left alone
            before[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
