"""``python -m dsgd_bench``, and the command ``dsgd-bench``.

Nearly nothing is imported before Ctrl-C is understood: a command may be interrupted
while it still loads its libraries.
"""

import os
import sys


def main() -> int:
    """Run the command; return its exit status, see `dsgd_bench.cli.main`."""
    try:
        from dsgd_bench import cli

        return cli.main()
    except KeyboardInterrupt:
        import signal

        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to interrupt
        print("dsgd-bench: interrupted before it began", file=sys.stderr)
        return 130


def forget_working_folder() -> None:
    """Take the working folder off the path of modules, where ``-m`` put it.

    A ``random.py`` or ``numpy.py`` there is no part of the program; the program itself
    may be, where it was not installed.
    """
    home = __file__.rpartition(os.sep)[0].rpartition(os.sep)[0]
    try:
        here = os.getcwd()  # noqa: PTH109 (pathlib imports much, perhaps from here)
    except OSError:
        return  # it is gone, which `cli.main` says
    if not sys.flags.safe_path and sys.path[0] == here != home:
        del sys.path[0]


if __name__ == "__main__":
    forget_working_folder()
    sys.exit(main())
