"""All that is printed goes through here, or through the tables of `display`.

Whatever is printed may hold foreign text, so every line is made safe by
`foreign.plain`; a text of several lines is given line by line. What is printed for
people must never end a measurement: letters that the output cannot take are replaced,
and complaints that nobody can receive are dropped. Standard output is what a command is
for, so that one fails, once, at the end of the command.
"""

import io
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from dsgd_bench.io.escape import plain


def prepare() -> None:
    """Make standard output and error take every letter, and open them if closed.

    A closed one would be the next file that is opened, and receive what others print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    # None: it was closed when Python started
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # standard error does it by itself


def line(text: str = "") -> None:
    """Print one line on standard output.

    Raises
    ------
    BrokenPipeError
        If nobody reads it any more.
    """
    with _until_the_end():
        print(plain(text))


def lines(texts: Iterable[str]) -> None:
    """Print lines on standard output, now: whatever happens next, they were printed.

    Raises
    ------
    BrokenPipeError
        As `line`.
    """
    for text in texts:
        line(text)
    with _until_the_end():
        sys.stdout.flush()


def complain(text: str) -> None:
    """Print one line on standard error, now, if it can be printed at all."""
    try:
        print(plain(text), file=sys.stderr, flush=True)
    except (OSError, ValueError):  # full, or closed meanwhile
        silence(sys.stderr)


def stacks(error: BaseException) -> None:
    """Print the traceback of an error on standard error, line by line."""
    for text in "".join(traceback.format_exception(error)).splitlines():
        complain(text)


@contextmanager
def _until_the_end() -> Iterator[None]:
    """Put off what is wrong with standard output: first the command does its work."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        _lost.append(error)
        silence(sys.stdout)


_lost: list[OSError] = []
"""Why standard output did not take what was printed."""


def flush() -> None:
    """Send off what was printed, at the end of a command.

    Raises
    ------
    OSError
        If standard output did not take it, now or before.
    """
    if _lost:
        raise _lost.pop(0)
    sys.stdout.flush()


def silence(stream: TextIO) -> None:
    """Let a stream that fails go nowhere, or Python fails with it when it ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
