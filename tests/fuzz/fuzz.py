"""Damage files on purpose, and see that every command says so in a sentence.

    python tests/fuzz/fuzz.py [--seed N] [--scale X] [--only KIND:NUMBER]

5,000 configurations, 2,000 damaged results folders, 500 checkpoints and shards, and 20
checkpoints that a run with ranks goes on from, times the scale. No traceback, nothing
that takes more than 10 s of a processor or 1 GB, no wrong count. The last lines are
counts per kind; the exit status is 1 if anything was wrong.
"""

import argparse
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before NumPy: processes are forked

# Where PYTHONSAFEPATH is set, as for all that ranks start, it is not there by itself.
sys.path.insert(0, str(Path(__file__).resolve().parent))

import cases  # noqa: E402
import workers  # noqa: E402

SIZES = {"configurations": 5000, "folders": 2000, "pieces": 500, "resumes": 20}
"""Cases of each kind, at scale 1; the last are whole commands with ranks."""

SHOWN = 5


def fuzz(seed: int, kinds: dict[str, range], *, jobs: int) -> list[workers.Failure]:
    """Do cases of some kinds; print how many there were; return those that failed."""
    failures: list[workers.Failure] = []
    with tempfile.TemporaryDirectory(prefix="dsgd-fuzz-") as folder:
        home = Path(folder)
        cases.prepare(home)
        work = {
            "configurations": partial(cases.configuration, home, seed),
            "folders": partial(cases.folder, home, cases.truth(home), seed),
            "pieces": partial(cases.piece, home, seed),
            "resumes": partial(cases.resume, home, seed),
        }
        workers.unlimited()
        for kind, numbers in kinds.items():
            began, worked = time.monotonic(), _worked()
            found = workers.run(kind, numbers, work[kind], jobs)
            failures += found
            print(
                f"{kind}: {len(numbers)} tried, {len(found)} wrong, "
                f"{time.monotonic() - began:.0f} s, {_worked() - worked:.0f} s of a "
                "processor",
                flush=True,
            )
    return failures


def _worked() -> float:
    """Return the seconds that processors have worked for cases so far."""
    return sum(os.times()[2:4])


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", help="some, such as folders:17 or folders:0-25")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args(words)
    kinds = {
        kind: range(max(1, round(size * arguments.scale)))
        for kind, size in SIZES.items()
    }
    if arguments.only:
        kind, _, numbers = arguments.only.partition(":")
        first, _, last = numbers.partition("-")
        kinds = {kind: range(int(first), int(last or int(first) + 1))}
    failures = fuzz(arguments.seed, kinds, jobs=arguments.jobs)
    for failure in sorted(failures, key=lambda each: len(each.why))[:SHOWN]:
        print(
            f"{failure.kind} {failure.number}: {failure.why.strip()}\n"
            f"again: make fuzz SEED={arguments.seed} "
            f"CASE={failure.kind}:{failure.number}"
        )
    if failures:
        names = " ".join(f"{each.kind}:{each.number}" for each in failures)
        print(f"seed {arguments.seed}, wrong: {names}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
