"""The command ``dsgd-bench``: each verb parses its words, then calls one function."""

import argparse
import errno
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from dsgd_bench import __version__
from dsgd_bench.cli import (
    bench,
    bench_rank,
    data,
    doctor,
    doctor_rank,
    lists,
    plan,
    probe,
    replay,
    report,
    run,
    simulate,
    status,
    submit,
    worker,
)
from dsgd_bench.cli.verb_parts import FAILED, INTERRUPTED, REFUSED
from dsgd_bench.errors import DsgdError
from dsgd_bench.host import environment
from dsgd_bench.io import printing
from dsgd_bench.io.escape import plain

VERBS = (
    run,
    simulate,
    replay,
    plan,
    submit,
    status,
    report,
    lists,
    data,
    doctor,
    bench,
    probe,
    worker,
    doctor_rank,
    bench_rank,
)
"""One file each, in the order of the help; the last three are those that the suite
itself starts on ranks."""

UNPRINTED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""Why standard output may fail: no room for it, or no place."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status.

    0: all is well; 1: a trial failed, or what is to be printed or written cannot be
    (nobody reads it, the disk is full); 2: the command,
    a study or a machine file asks for something that cannot be; 3: a finished trial
    failed verification; 4: a trial did not reach its target; 75: stopped before the
    end of the job around, to go on later; 130: interrupted. Of several the first in the
    order 130, 2, 75, 1, 3, 4.
    """
    printing.prepare()
    try:
        arguments = parser().parse_args(words)
        environment.check_working_folder()
        code = int(arguments.verb(arguments))
        printing.flush()  # else what is written at the end fails where none sees it
        return code
    except DsgdError as error:
        printing.complain(f"dsgd-bench: {error}")
        return REFUSED
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to interrupt
        printing.complain("dsgd-bench: interrupted; finished trials are kept")
        return INTERRUPTED
    except BrokenPipeError:  # who reads, such as head, has seen enough
        printing.silence(sys.stdout)
        return FAILED
    except OSError as error:
        return _refused_by_system(error)


def _refused_by_system(error: OSError) -> int:
    """Say what the operating system did not do: print, or what is not foreseen."""
    said = error.strerror or str(error)
    if error.filename is not None:
        said = f"{error.filename}: {said}"
    elif error.errno in UNPRINTED:
        printing.silence(sys.stdout)
        said = (
            f"what it prints cannot be written ({said}): make room, or print elsewhere"
        )
    printing.complain(f"dsgd-bench: {said}")
    return FAILED


class _Parser(argparse.ArgumentParser):
    """Shows words that it does not understand without what they may do to a screen."""

    def error(self, message: str) -> NoReturn:
        super().error(plain(message))


def parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    top: argparse.ArgumentParser = _Parser(
        prog="dsgd-bench",
        description="Which distributed SGD algorithm reaches the target first on this "
        "cluster, and why?",
    )
    top.add_argument("--version", action="version", version=__version__)
    verbs = top.add_subparsers(required=True, metavar="VERB")
    for verb in VERBS:
        verb.add(verbs)
    return top
