"""Cases in processes that have little memory and time, and may die."""

import json
import os
import resource
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SECONDS, PATIENCE, MEMORY, BATCH = 10, 300, 2**30, 100
"""Limits of a command: of a processor's time, and of time where the machine is busy
with something else; of memory in bytes. Cases of a process."""


@dataclass(frozen=True)
class Failure:
    """A case that went wrong, and how."""

    kind: str
    number: int
    why: str


Work = Callable[[int], str]
"""Does one case; says what was wrong, or nothing. Whatever it raises is wrong, too."""


def limited() -> None:
    """Give the next part of a case its time."""
    signal.alarm(PATIENCE)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)


def unlimited() -> None:
    """Let the next part of a case take any time."""
    signal.alarm(0)
    signal.setitimer(signal.ITIMER_PROF, 0)


def run(kind: str, numbers: Iterable[int], work: Work, jobs: int) -> list[Failure]:
    """Do cases in some processes at a time; return those that went wrong."""
    left = list(numbers)
    batches = [left[at : at + BATCH] for at in range(0, len(left), BATCH)]
    failures: list[Failure] = []
    running: dict[int, tuple[list[int], Path]] = {}
    with tempfile.TemporaryDirectory(prefix="fuzz-notes-") as folder:
        while batches or running:
            while batches and len(running) < jobs:
                batch = batches.pop(0)
                notes = Path(folder) / f"{batch[0]}"
                running[_start(batch, work, notes)] = batch, notes
            process, status = os.wait()
            if process not in running:
                continue
            batch, notes = running.pop(process)
            lines = (
                notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []
            )
            found = list(_failures(kind, lines))
            done = [json.loads(line)[0] for line in lines]
            if status and (rest := [n for n in batch if n not in done]):
                found.append(Failure(kind, rest[0], _death(status)))
                batches.insert(0, rest[1:])
                batches = [each for each in batches if each]
            for one in found:
                print(f"{kind}:{one.number} {one.why.strip()[-200:]}", flush=True)
            failures += found
    return failures


def _failures(kind: str, lines: list[str]) -> Iterator[Failure]:
    for number, why in map(json.loads, lines):
        if why:
            yield Failure(kind, number, why)


def _death(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGPROF:
            return f"it took more than {SECONDS} s of a processor"
        if number == signal.SIGALRM:
            return f"it did not end within {PATIENCE} s"
        return f"killed by signal {number}"
    return f"ended with status {os.WEXITSTATUS(status)}"


def _start(batch: list[int], work: Work, notes: Path) -> int:
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        words = Path("/proc/self/statm").read_text(encoding="ascii").split()
        most = int(words[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        with notes.open("w", encoding="utf-8") as file:
            for number in batch:
                limited()
                print(json.dumps([number, _one(work, number)]), file=file, flush=True)
                unlimited()
        status = 0
    finally:
        os._exit(status)


def _one(work: Work, number: int) -> str:
    try:
        return work(number)
    except BaseException:  # noqa: BLE001 - whatever it is, it is what is looked for
        return traceback.format_exc()[-3000:]
