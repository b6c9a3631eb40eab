"""Breaks one rank of a real job in the middle of its run, for tests/cli.

Python imports this at start-up where its folder is on PYTHONPATH. DSGD_TEST_SABOTAGE is
``HOW:RANK:FILE``: as soon as FILE has been written to by the run, the process that is
RANK raises an exception in its main thread (raise), is killed (kill), stops answering
(stop), or finds its disk full (full: its files may not grow any more). One that stops
when it takes leave of the others (stop-leaving) or before its first trial, in a job
around all trials (stop-between), does not wait for FILE.
"""

import ctypes
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK")
WITH_ROWS = 50_000  # bytes: room for rows is made when the first are flushed


def stop_in(method: str) -> None:
    while (
        module := sys.modules.get("dsgd_bench.fabric.mpi.fabric")
    ) is None or not hasattr(module, "MpiFabric"):
        time.sleep(0.01)
    stop = lambda *_: os.kill(os.getpid(), signal.SIGSTOP)  # noqa: E731
    setattr(module.MpiFabric, method, stop)


def act(how: str, file: Path) -> None:
    if how.startswith("stop-"):
        stop_in({"stop-leaving": "leave", "stop-between": "part"}[how])
        return
    while not file.exists():
        time.sleep(0.02)
    while any(p.stat().st_size < WITH_ROWS for p in file.parent.glob("rank-*.h5")):
        time.sleep(0.02)
    if how == "raise":
        error = ctypes.py_object(ArithmeticError)
        main = ctypes.c_ulong(threading.main_thread().ident)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(main, error)
    elif how == "full":
        size = file.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    else:
        number = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[how]
        os.kill(os.getpid(), number)


if "DSGD_TEST_SABOTAGE" in os.environ:
    how, rank, file = os.environ["DSGD_TEST_SABOTAGE"].split(":")
    if any(os.environ.get(name) == rank for name in RANKS):
        threading.Thread(target=act, args=(how, Path(file)), daemon=True).start()
