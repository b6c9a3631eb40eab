"""Run the tests in three parts: without MPI, on 3 ranks, and the commands.

    python tests/run.py [serial] [mpi] [cli] [-- options for pytest]
    python tests/run.py [slow] [mpi-slow] [cli-slow] [-- options]
    python tests/run.py [kernels] [gpu] [slurm] [hosts] [-- options]
    python tests/run.py [mpi-library] [cli-library] [slurm-library] [-- options]

Without a name those of the first line are run; those of the second are what they leave
out. Kernels compiles the GPU's kernels and runs them on the host, gpu needs one, slurm
and hosts emulate a cluster and a network on this machine. Those of the last line are
what another MPI library can change, of the parts without that word: sentences and exit
statuses are checked once. All parts are run even if one fails. A test that runs on
several ranks counts once per launch, with its worst outcome. The last line is
``N passed, N failed, N skipped``, and the exit status is 1 if anything failed. Reports
of all ranks are left in build/tests.

The same file is the program of every rank: ``python tests/run.py rank N FOLDER``. It
stops unless there are N ranks: pytest-mpi skips where there are too few, so a launcher
that does not belong to the library would look like success.
"""

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "build" / "tests"
CONTRACTS, ON_MPI = "tests/contracts", "tests/mpi"
PROMISES = "tests/contracts/test_algorithms.py"
ON_RANKS = {3: [CONTRACTS, ON_MPI], 2: [PROMISES, ON_MPI], 4: [PROMISES, ON_MPI]}
"""What is run on how many ranks. 3 finds what holds for powers of two only, and with 4
there is a rank that is no neighbor; virtual time has larger numbers. What needs one
rank only is run in the first launch, which is the one that is not slow."""
ON_DEVICE = [PROMISES, "tests/contracts/test_device.py"]
STAND_IN = {
    "stand-in:staged": [*ON_DEVICE, "tests/contracts/test_servers.py"],
    "stand-in:ipc": [
        *ON_DEVICE,
        "tests/contracts/test_dasgd.py",
        "tests/contracts/test_swift.py",
    ],
}
"""Where models lie, and what is run there: on a stand-in for a GPU, on 3 ranks."""
ON_GPU = {way.replace("stand-in", "cuda"): where for way, where in STAND_IN.items()}
"""The same on a real one."""
DEVICE = "DSGD_BENCH_TEST_DEVICE"
ALONE = ("slurm", "slurm-library", "hosts", "gpu")
"""Parts whose tests run one after the other: they share a cluster, links, or a GPU."""
FOLDERS = {
    "serial": ["tests/contracts", "tests/plumbing"],
    "slow": ["tests/contracts", "tests/plumbing"],
    "gpu": ["tests/gpu", "tests/kernels"],
    "cli-slow": ["tests/cli"],
    "cli-library": ["tests/cli"],
    "slurm-library": ["tests/slurm"],
}
"""What a part runs, where that is not the folder of its name."""
MARKED = {
    "serial": ["-m", "not slow"],
    "slow": ["--timeout=600", "-m", "slow"],
    "cli-slow": ["--timeout=600", "-m", "slow"],
    "kernels": ["-m", "not gpu"],
    "gpu": ["-m", "gpu"],
    # whole runs, beside whatever else this machine does
    "cli": ["--timeout=600", "-m", "not slow"],
    "cli-library": ["--timeout=600", "-m", "library"],
    "slurm-library": ["-m", "library"],
}
"""What of its folders a part runs, where that is not everything."""
LAUNCH_SECONDS = 300
"""A launch of ranks may take that long."""
PART_SECONDS = 1800
"""So may a part without; its tests have limits of their own, which come first."""
WORST = ("passed", "skipped", "failed")


def main(words: list[str]) -> int:
    if words[:1] == ["rank"]:
        return as_rank(int(words[1]), Path(words[2]), words[3:])
    cut = words.index("--") if "--" in words else len(words)
    parts, options = words[:cut] or ["serial", "mpi", "cli"], words[cut + 1 :]
    total: Counter[str] = Counter()
    for part in parts:
        if part in ("mpi", "mpi-slow", "mpi-library"):
            for size, where in launches(part):
                total += on_ranks(size, where, options)
            for device, where in STAND_IN.items() if part == "mpi-slow" else ():
                total += on_ranks(3, where, options, device)
        else:
            total += plain(part, options)
        if part == "gpu" and has_gpu():
            for device, where in ON_GPU.items():
                total += on_ranks(3, where, options, device)
    print(summary(total))
    return 1 if total["failed"] else 0


def launches(part: str) -> list[tuple[int, list[str]]]:
    """Return on how many ranks a part is run, and what of it."""
    first, *others = ON_RANKS.items()
    return {"mpi": [first], "mpi-slow": others}.get(part, [first, *others])


def has_gpu() -> bool:
    """Tell whether models can lie on a GPU here; say why not."""
    from dsgd_bench import arrays
    from dsgd_bench.errors import ConfigError

    try:
        arrays.device("cuda")
    except ConfigError as error:
        print(f"contracts on a GPU: skipped, since {error}", flush=True)
        return False
    return True


def summary(total: Counter[str]) -> str:
    return ", ".join(
        f"{total[word]} {word}" for word in ("passed", "failed", "skipped")
    )


def plain(part: str, options: list[str]) -> Counter[str]:
    """Run the tests that start without MPI in one ordinary process."""
    words = [sys.executable, "-m", "pytest"]
    folders = FOLDERS.get(part, [f"tests/{part}"])
    if part not in ALONE:
        # one more than cores: virtual time does not care, and ranks are waited for
        words += ["-n", str(len(os.sched_getaffinity(0)) + 1), "--dist", "worksteal"]
    return judge(part, words, folders, MARKED.get(part, []) + options, ranks=1)


def on_ranks(
    size: int, where: list[str], options: list[str], device: str = ""
) -> Counter[str]:
    """Run the tests in some folders or files on `size` ranks, models on `device`.

    What needs one rank only is left out where it has been run before.
    """
    from dsgd_bench.spec.machine import Machine
    from dsgd_bench.study import launch

    words = launch.starter(size, Machine(), sys.executable)
    words += [sys.executable, "-m", "mpi4py", __file__, "rank", str(size)]
    again = size != next(iter(ON_RANKS)) and not device
    alone = ["-k", "not mpi-1"] if again and not options else []
    name = f"{size}-ranks-{device}".replace(":", "-") if device else f"{size}-ranks"
    os.environ[DEVICE] = device
    try:
        return judge(name, words, where, [*alone, *options], ranks=size)
    finally:
        del os.environ[DEVICE]


def judge(
    name: str, words: list[str], folders: list[str], options: list[str], *, ranks: int
) -> Counter[str]:
    """Run one launch, say how it went, and count its tests."""
    folders = [
        folder
        for folder in folders
        if (ROOT / folder).is_file() or any((ROOT / folder).rglob("test_*.py"))
    ]
    reports = REPORTS / name
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    print(f"== {name}: {' '.join(folders)}", flush=True)
    if not folders:
        return Counter()
    if words[-2:] == ["rank", str(ranks)]:
        words = [*words, str(reports)]
    else:
        words = [*words, f"--junit-xml={reports / 'rank-0.xml'}"]
    words = [*words, "--continue-on-collection-errors", *folders, *options]
    status = follow(words, ranks)
    results = [reports / f"rank-{rank}.xml" for rank in range(ranks)]
    count = tally(worst(path for path in results if path.exists()))
    silent = [rank for rank, path in enumerate(results) if not path.exists()]
    if silent or (status != 0 and not count["failed"]):
        count["failed"] += 1
        print(f"{name} ended with status {status}; no report from ranks {silent}")
    if count["failed"]:
        show_others(reports)
    print(f"-- {name}: {summary(count)}", flush=True)
    return count


def follow(words: list[str], ranks: int) -> int:
    """Run a command, its output on ours, and return its exit status."""
    from dsgd_bench.spec.machine import Machine
    from dsgd_bench.study import launch

    env = launch.variables(ranks, Machine(), sys.executable)
    env.setdefault("MPIEXEC_TIMEOUT", str(LAUNCH_SECONDS))
    try:
        # The launcher's own limit comes first; this one is for a launcher that hangs.
        # A part without ranks is one process for all of its tests.
        return subprocess.run(
            words,
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            timeout=PART_SECONDS if ranks == 1 else 2 * LAUNCH_SECONDS,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        return 124


def worst(reports: Iterable[Path]) -> dict[str, str]:
    """Return the outcome of every test, the worst over the given JUnit files."""
    outcomes: dict[str, str] = {}
    for report in reports:
        for case in ElementTree.parse(report).iter("testcase"):
            test = f"{case.get('classname')}::{case.get('name')}"
            kinds = {child.tag for child in case}
            outcome = (
                "failed"
                if kinds & {"failure", "error"}
                else "skipped"
                if "skipped" in kinds
                else "passed"
            )
            outcomes[test] = max(outcomes.get(test, outcome), outcome, key=WORST.index)
    return outcomes


def tally(outcomes: dict[str, str]) -> Counter[str]:
    return Counter(outcomes.values())


def show_others(reports: Path) -> None:
    """Print the end of what the ranks beside 0 wrote."""
    for path in sorted(reports.glob("rank-*.txt")):
        lines = path.read_text(errors="replace").splitlines()
        print(f"-- {path.stem}, last lines", *lines[-40:], sep="\n")


def as_rank(size: int, reports: Path, words: list[str]) -> int:
    """Run the tests as one rank; only rank 0 prints."""
    import pytest
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    if world.size != size:
        from dsgd_bench.host import environment

        print(
            f"launched {size} ranks, but this one sees {world.size}: the launcher does "
            f"not belong to the MPI library {environment.libmpi()}; take the mpiexec "
            "of that library",
            file=sys.stderr,
        )
        return 2
    if world.rank:
        # The file descriptors, so that a stack dump of a hanging test goes there too.
        sink = os.open(reports / f"rank-{world.rank}.txt", os.O_WRONLY | os.O_CREAT)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
    status = pytest.main(
        [
            "--with-mpi",
            "--timeout=60",
            "--timeout-method=thread",
            "-p",
            "no:cacheprovider",
            "--capture=sys",  # what a rank says before it aborts the job is not lost
            "--color=no",
            f"--junit-xml={reports / f'rank-{world.rank}.xml'}",
            *words,
        ]
    )
    # The first rank that ends with an error takes the others with it: end together.
    return world.allreduce(int(status), op=MPI.MAX)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
