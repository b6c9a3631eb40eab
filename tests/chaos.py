"""Send random signals to runs at random moments, and see what is left of them.

    python tests/chaos.py [--signals 100] [--seconds 600] [--seed 1] [PYTHON ...]

Signals are KILL, TERM, INT, and STOP with and without CONT; they go to a rank, to the
launcher or to ``dsgd-bench run`` itself. Each study is one short trial of one of ten
algorithms; it is hit up to three times, then it must complete. A violation is a run
that lasts longer than it usually does, plus its watchdog, plus 15 s; a process that
outlives its run; a shard or trace that cannot be read; a traceback of the command or of
a rank; a last run that does not complete; anything more in /dev/shm after it. They are
printed, as are the counts at the end. The exit status is 1 if there was any, or if the
time was over before all signals had been sent.

Each PYTHON is that of an environment with another MPI library; the signals are shared
out among them. Runs mostly wait, so several lanes work side by side, each with one run
at a time. As root, and where it is allowed, a lane has a mount namespace with a
/dev/shm of its own, so that neither other programs nor other lanes can be blamed for
what is in it. Elsewhere the common one is looked at once, when all lanes have ended.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ALGORITHMS = (
    "allreduce",
    "dpsgd",
    "adpsgd",
    "adpsgd-waitfree",
    "sgp",
    "osgp",
    "asgd",
    "easgd",
    "localsgd",
    "swift",
)
TARGETS = ("rank", "launcher", "run")
WAYS = ("KILL", "TERM", "INT", "STOP", "STOP, then CONT")
HITS = 3
"""Signals to one study before it is left alone."""
WATCHDOG = 3.0
"""Seconds of it where a run takes no longer than that."""
FIRST = 60.0
"""Seconds of it until it is known how long a run takes."""
ALLOWED = 15.0
"""Seconds that a run may last longer than its usual time and the watchdog."""
GONE = 10.0
"""Seconds in which the processes of an ended run have to be gone, on a busy machine."""
PAUSE = 1.0
"""Seconds between STOP and CONT, and after which a run that was stopped is killed."""
LANES = 3
"""Lanes for each MPI library."""
MARK = "DSGD_BENCH_CHAOS"
SHM = Path("/dev/shm")

STUDY = """
[study]
ranks = 3
budget = { seconds = 0.7 }
seed = {SEED}

[problem]
kind = "softmax"

[[algorithm]]
kind = "{ALGORITHM}"

[compute]
mode = "emulated"
seconds = 0.004
"""


@dataclass
class Process:
    pid: int
    words: list[str]

    @property
    def role(self) -> str:
        """Return which target this is, or nothing."""
        name = Path(self.words[0]).name if self.words else ""
        if "worker" in self.words:
            return "rank" if name.startswith("python") else "launcher"
        if name.startswith(("mpiexec", "mpirun", "hydra", "prte", "orte")):
            return "launcher"
        return ""


def marked(folder: Path) -> Iterator[Process]:
    """Yield the processes that carry the mark of a lane in their environment."""
    wanted = f"{MARK}={folder}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if wanted not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            words = (entry / "cmdline").read_bytes().decode(errors="replace")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue  # it has ended meanwhile
        if state != "Z":
            yield Process(int(entry.name), words.strip("\0").split("\0"))


@dataclass
class Counts:
    """What a lane has done.

    Attributes
    ----------
    sent, ends, algorithms : Counter
        Signals, exit statuses of runs, and signals to runs of each algorithm.
    violations : list of str
        What was wrong.
    """

    sent: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    algorithms: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def add(self, lane: dict[str, Any]) -> None:
        """Add the counts of a lane."""
        self.sent.update(lane["sent"])
        self.ends.update(lane["ends"])
        self.algorithms.update(lane["algorithms"])
        self.violations += lane["violations"]


@dataclass
class Lane:
    """One run at a time, again and again.

    Attributes
    ----------
    random : Random
        Draws targets, ways and moments.
    folder : Path
        Of this lane; it exists.
    signals : int
        Descriptor of a pipe that holds one byte for every signal that is to be sent;
        lanes of one library share it.
    apart : bool
        Whether no other lane and program uses this /dev/shm.
    end : float
        When to stop, on the monotonic clock.
    """

    random: random.Random
    folder: Path
    signals: int
    apart: bool
    end: float
    counts: Counts = field(default_factory=Counts)
    durations: list[float] = field(default_factory=list)
    algorithm: str = ""
    empty: bool = False

    def work(self, first: int, step: int) -> None:
        """Make studies, hit and complete them, until time or signals are used up."""
        self.undisturbed(self.make(first))
        number = first
        while not self.over():
            number += step
            study, before = self.make(number), shared()
            for _ in range(HITS):
                if self.over() or any(study.parent.glob("results/chaos/*/READY")):
                    break
                self.hit(study)
            self.complete(study, before)
            shutil.rmtree(study.parent)

    def over(self) -> bool:
        return self.empty or time.monotonic() >= self.end

    @property
    def watchdog(self) -> float:
        """The seconds that a rank may be silent: on a busy machine it starts slowly."""
        return max([WATCHDOG, *self.durations]) if self.durations else FIRST

    @property
    def limit(self) -> float:
        """The seconds that a run may take."""
        return max(self.durations) + self.watchdog + ALLOWED

    def make(self, number: int) -> Path:
        """Write a study in a folder of its own."""
        self.algorithm = ALGORITHMS[number % len(ALGORITHMS)]
        folder = self.folder / f"{number:03d}-{self.algorithm}"
        folder.mkdir()
        text = STUDY.replace("{SEED}", str(number))
        (folder / "chaos.toml").write_text(text.replace("{ALGORITHM}", self.algorithm))
        (folder / "machine.toml").write_text(f"watchdog = {self.watchdog}\n")
        return folder / "chaos.toml"

    def start(self, study: Path) -> subprocess.Popen[str]:
        program = [sys.executable, "-P", "-m", "dsgd_bench", "run", str(study)]
        program += ["--machine", str(study.parent / "machine.toml")]
        program += ["--results", str(study.parent / "results")]
        with (study.parent / "output.txt").open("w") as output:
            return subprocess.Popen(
                program,
                cwd=study.parent,
                env={**os.environ, MARK: str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                # what runs in the background may have inherited that it ignores Ctrl-C
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
            )

    def blame(self, study: Path, what: str) -> None:
        kept = self.folder.with_name(
            f"{self.folder.name}-{study.parent.name}-{len(self.counts.violations)}"
        )
        shutil.copytree(study.parent, kept)
        self.counts.violations.append(f"{study.parent.name}: {what} (see {kept})")
        print(f"VIOLATION: {self.counts.violations[-1]}", flush=True)

    def undisturbed(self, study: Path) -> None:
        """Run a study without a signal; note how long it took."""
        began = time.monotonic()
        limit = self.limit if self.durations else 2 * FIRST
        status = self.wait(self.start(study), study, limit, "being left alone")
        if status:
            self.blame(study, f"left alone, it ended with {status}")
        self.durations.append(time.monotonic() - began)

    def wait(
        self, run: subprocess.Popen[str], study: Path, limit: float, what: str
    ) -> int:
        """Wait for a run, and for all of its processes."""
        try:
            status = run.wait(limit)
        except subprocess.TimeoutExpired:
            self.blame(study, f"hangs for {limit:.0f} s after {what}")
            run.kill()
            status = run.wait()
        self.counts.ends[str(status)] += 1
        end = time.monotonic() + GONE
        while (left := list(marked(self.folder))) and time.monotonic() < end:
            time.sleep(0.05)
        if left:
            orphans = "; ".join(f"{p.pid} {' '.join(p.words)[:80]}" for p in left)
            self.blame(study, f"left alive after {what}: {orphans}")
            self.clear()
        return status

    def clear(self) -> None:
        """End what is left of a run."""
        for process in marked(self.folder):
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(process.pid, signal.SIGKILL)

    def hit(self, study: Path) -> None:
        """Start a run, send it one signal at a random moment, and look at it."""
        target, way = self.random.choice(TARGETS), self.random.choice(WAYS)
        share = 1.0 if target == "run" else 0.5  # the others live for a part of it
        moment = self.random.uniform(0.0, share * statistics.median(self.durations))
        run = self.start(study)
        self.victim(run, target)  # as soon as there is one
        time.sleep(moment)
        victim = self.victim(run, target)
        what = f"{way} to {target} after {moment:.2f} s"
        if victim is not None and self.take_signal():
            self.counts.sent[f"{way} to {target}"] += 1
            self.counts.algorithms[self.algorithm] += 1
            self.send(victim, way)
            if target == "run" and way == "STOP":
                time.sleep(PAUSE)
                run.kill()
        self.wait(run, study, self.limit, what)
        self.look(study, what)

    def take_signal(self) -> bool:
        """Take one of the signals that are to be sent; tell whether there was one."""
        try:
            self.empty = not os.read(self.signals, 1)
        except BlockingIOError:
            self.empty = True
        return not self.empty

    def victim(self, run: subprocess.Popen[str], target: str) -> int | None:
        """Return a process of that kind as soon as there is one; None if too late."""
        while run.poll() is None:
            if target == "run":
                return run.pid
            found = [p.pid for p in marked(self.folder) if p.role == target]
            if found:
                return self.random.choice(sorted(found))
            time.sleep(0.02)
        return None

    def send(self, pid: int, way: str) -> None:
        name, _, then = way.partition(", then ")
        with suppress(ProcessLookupError):  # it ended by itself at that moment
            os.kill(pid, getattr(signal, f"SIG{name}"))
            if then:
                time.sleep(PAUSE)
                os.kill(pid, getattr(signal, f"SIG{then}"))

    def look(self, study: Path, what: str) -> None:
        """See that whatever the run has left can be read."""
        from dsgd_bench.errors import TraceError
        from dsgd_bench.trace import open_trace
        from dsgd_bench.trace.shard import Shard

        for path in study.parent.glob("results/chaos/*/*.h5"):
            try:
                if path.name == "trace.h5":
                    open_trace(path)
                elif path.stat().st_size and not path.name.startswith("."):
                    Shard.read(path)
            except (OSError, KeyError, ValueError, TraceError) as error:
                self.blame(study, f"{path} cannot be read after {what}: {error}")
        logs = study.parent.glob("results/chaos/*/log.txt")
        for path in (study.parent / "output.txt", *logs):
            if "Traceback" in path.read_text(errors="replace"):
                self.blame(study, f"a traceback in {path.name} after {what}")

    def complete(self, study: Path, before: set[str]) -> None:
        """Run a study to its end, and see that it is whole."""
        self.undisturbed(study)
        if not any(study.parent.glob("results/chaos/*/READY")):
            self.blame(study, "did not complete")
        if self.apart and (left := shared() - before):
            size = sum((SHM / name).stat().st_size for name in left)
            names = ", ".join(sorted(left))
            self.blame(study, f"left in {SHM}, {size} bytes: {names}")
            for name in left:
                (SHM / name).unlink()


def shared() -> set[str]:
    return {path.name for path in SHM.iterdir()} if SHM.is_dir() else set()


def lane(options: argparse.Namespace) -> None:
    """Be one lane, and leave the counts in its folder."""
    number, signals = options.lane
    mine = Lane(
        random.Random(f"{options.seed}-{options.folder.name}"),
        options.folder,
        signals,
        options.apart,
        time.monotonic() + options.seconds,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        mine.work(number, LANES)
    finally:
        mine.clear()
        text = json.dumps(vars(mine.counts))
        (options.folder / "counts.json").write_text(text)


def mount() -> list[str]:
    """Return the words that give a program a /dev/shm of its own, or none."""
    if os.geteuid() or shutil.which("unshare") is None:
        return []
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    words.append(f'mount -t tmpfs tmpfs {SHM} && exec "$0" "$@"')
    tried = subprocess.run([*words, "true"], check=False, capture_output=True)
    return words if tried.returncode == 0 else []


def start_lanes(
    python: Path, place: int, options: argparse.Namespace, apart: list[str]
) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """Start the lanes of one library, with their share of the signals to be sent."""
    share = len(range(place, options.signals, len(options.pythons)))
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.write(writing, bytes(share))
    os.close(writing)
    for number in range(LANES):
        folder = options.folder / f"{place}-{number}"
        folder.mkdir()
        words = [*apart, str(python), "-P", __file__, "--seed", str(options.seed)]
        words += ["--seconds", str(options.seconds), "--folder", str(folder)]
        words += ["--lane", str(number), str(reading)]
        words += ["--apart"] if apart else []
        yield folder, subprocess.Popen(words, pass_fds=[reading])
    os.close(reading)


def conduct(options: argparse.Namespace) -> int:
    """Start all lanes, add up what they have done, and print it."""
    began, before, total = time.monotonic(), shared(), Counts()
    options.folder = Path(tempfile.mkdtemp(prefix="dsgd-bench-chaos-"))
    apart, shares = mount(), []
    started = [
        list(start_lanes(python, place, options, apart))
        for place, python in enumerate(options.pythons)
    ]
    for python, lanes in zip(options.pythons, started, strict=True):
        so_far = total.sent.total()
        for folder, process in lanes:
            if status := process.wait():
                total.violations.append(f"lane {folder} ended with status {status}")
            if (path := folder / "counts.json").exists():
                total.add(json.loads(path.read_text()))
        shares.append(f"{total.sent.total() - so_far} with {python}")
    if not apart and (left := shared() - before):
        total.violations.append(f"left in {SHM}: {', '.join(sorted(left))}")
    for title, counts in vars(total).items():
        if title != "violations":
            show(title, counts)
    print(
        f"chaos: seed {options.seed}, {total.sent.total()} of {options.signals} "
        f"signals sent ({', '.join(shares)}), {len(total.violations)} violations, "
        f"{time.monotonic() - began:.0f} s, {SHM} {'apart' if apart else 'common'}"
    )
    short = total.sent.total() < options.signals
    if short:
        print("chaos fell short of its signals: it needs more time (TIME=)")
    if not total.violations:
        shutil.rmtree(options.folder)
    return 1 if short or total.violations else 0


def show(title: str, counts: Counter[str]) -> None:
    words = [f"{count} {what}" for what, count in sorted(counts.items())]
    print(f"{title}: {counts.total()}: {', '.join(words)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pythons", nargs="*", type=Path, default=[Path(sys.executable)])
    parser.add_argument("--signals", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lane", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.lane is None:
        return conduct(options)
    lane(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
