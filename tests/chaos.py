"""Send random signals to runs at random moments, and see what is left of them.

    python tests/chaos.py [--signals 50] [--seconds 300] [--seed 1]

Signals are KILL, TERM, INT, and STOP with and without CONT; they go to a rank, to the
launcher or to ``dsgd-bench run`` itself. Each study is one short trial of one of ten
algorithms; it is hit up to three times, then it must complete. A violation is a run
that lasts longer than it usually does, plus its watchdog, plus 15 s; a process that
outlives its run; a shard or trace that cannot be read; a traceback of the command; a
last run that does not complete; anything more in /dev/shm after it. They are printed,
as are the counts at the end, and the exit status is 1 if there was any.

As root, and where it is allowed, all of that happens in a mount namespace with a
/dev/shm of its own, so that other programs cannot be blamed.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

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
ALLOWED = 15.0
"""Seconds that a run may last longer than its usual time and the watchdog."""
GONE = 10.0
"""Seconds in which the processes of an ended run have to be gone, on a busy machine."""
PAUSE = 1.0
"""Seconds between STOP and CONT, and after which a run that was stopped is killed."""
MARK = "DSGD_BENCH_CHAOS"
SHM = Path("/dev/shm")
APART = "DSGD_BENCH_CHAOS_APART"

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


def marked(mark: str) -> Iterator[Process]:
    """Yield the processes that carry a mark in their environment."""
    wanted = f"{MARK}={mark}".encode()
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
class Chaos:
    random: random.Random
    folder: Path
    usual: float = 0.0
    sent: Counter[str] = field(default_factory=Counter)
    ends: Counter[int] = field(default_factory=Counter)
    studies: int = 0
    violations: list[str] = field(default_factory=list)

    def start(self, study: Path) -> subprocess.Popen[str]:
        program = [sys.executable, "-P", "-m", "dsgd_bench", "run", str(study)]
        program += ["--machine", str(self.folder / "machine.toml")]
        program += ["--results", str(study.parent / "results")]
        with (study.parent / "output.txt").open("w") as output:
            return subprocess.Popen(
                program,
                cwd=study.parent,
                env={**os.environ, MARK: str(study.parent)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                # what runs in the background may have inherited that it ignores Ctrl-C
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
            )

    def blame(self, study: Path, what: str) -> None:
        kept = study.parent.with_name(f"{study.parent.name}-{len(self.violations)}")
        shutil.copytree(study.parent, kept)
        self.violations.append(f"{what} (see {kept})")
        print(f"VIOLATION: {self.violations[-1]}", flush=True)

    def make(self, number: int) -> Path:
        """Write a study in a folder of its own."""
        algorithm = ALGORITHMS[number % len(ALGORITHMS)]
        folder = self.folder / f"{number:03d}-{algorithm}"
        folder.mkdir()
        text = STUDY.replace("{SEED}", str(number)).replace("{ALGORITHM}", algorithm)
        (folder / "chaos.toml").write_text(text)
        self.studies += 1
        return folder / "chaos.toml"

    def undisturbed(self, study: Path) -> float:
        """Run a study without a signal; return how long it took."""
        began = time.monotonic()
        run = self.start(study)
        status = self.wait(run, study, 120.0, "a run that was left alone")
        self.ends[status] += 1
        if status:
            self.blame(
                study, f"{study.parent.name}: left alone, it ended with {status}"
            )
        return time.monotonic() - began

    def wait(
        self, run: subprocess.Popen[str], study: Path, limit: float, what: str
    ) -> int:
        """Wait for a run, and for all of its processes."""
        try:
            status = run.wait(limit)
        except subprocess.TimeoutExpired:
            self.blame(study, f"{study.parent.name}: hangs for {limit:.0f} s: {what}")
            run.kill()
            status = run.wait()
        end = time.monotonic() + GONE
        while (left := list(marked(str(study.parent)))) and time.monotonic() < end:
            time.sleep(0.05)
        if left:
            orphans = "; ".join(f"{p.pid} {' '.join(p.words)[:80]}" for p in left)
            self.blame(
                study, f"{study.parent.name}: left alive after {what}: {orphans}"
            )
            for process in left:
                os.kill(process.pid, signal.SIGKILL)
        return status

    def hit(self, study: Path) -> None:
        """Start a run, send it one signal at a random moment, and look at it."""
        target, way = self.random.choice(TARGETS), self.random.choice(WAYS)
        share = 1.0 if target == "run" else 0.5  # the others live for a part of it
        moment = self.random.uniform(0.0, share * self.usual)
        run = self.start(study)
        self.victim(run, study, target)  # as soon as there is one
        time.sleep(moment)
        victim = self.victim(run, study, target)
        what = f"{way} to {target} after {moment:.2f} s"
        if victim is not None:
            self.sent[f"{way} to {target}"] += 1
            self.send(victim, way)
            if target == "run" and way == "STOP":
                time.sleep(PAUSE)
                run.kill()
        status = self.wait(run, study, self.usual + WATCHDOG + ALLOWED, what)
        self.ends[status] += 1
        self.look(study, what, target)

    def victim(
        self, run: subprocess.Popen[str], study: Path, target: str
    ) -> int | None:
        """Return a process of that kind as soon as there is one; None if too late."""
        while run.poll() is None:
            if target == "run":
                return run.pid
            found = [p.pid for p in marked(str(study.parent)) if p.role == target]
            if found:
                return self.random.choice(sorted(found))
            time.sleep(0.02)
        return None

    def send(self, pid: int, way: str) -> None:
        name, _, then = way.partition(", then ")
        try:
            os.kill(pid, getattr(signal, f"SIG{name}"))
            if then:
                time.sleep(PAUSE)
                os.kill(pid, getattr(signal, f"SIG{then}"))
        except ProcessLookupError:
            pass  # it ended by itself at that moment

    def look(self, study: Path, what: str, target: str) -> None:
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
        output = (study.parent / "output.txt").read_text(errors="replace")
        if target == "run" and "Traceback" in output:
            self.blame(study, f"{study.parent.name}: a traceback after {what}")

    def complete(self, study: Path, before: set[str]) -> None:
        """Run a study to its end, and see that it is whole."""
        self.usual = max(self.usual, min(self.undisturbed(study), 2 * self.usual))
        if not any(study.parent.glob("results/chaos/*/READY")):
            self.blame(study, f"{study.parent.name}: did not complete")
        if left := shared() - before:
            size = sum((SHM / name).stat().st_size for name in left)
            names = ", ".join(sorted(left))
            self.blame(study, f"left in {SHM}, {size} bytes: {names}")
            for name in left if os.environ.get(APART) else ():
                (SHM / name).unlink()


def shared() -> set[str]:
    return {path.name for path in SHM.iterdir()} if SHM.is_dir() else set()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--signals", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    folder = Path(tempfile.mkdtemp(prefix="dsgd-bench-chaos-"))
    (folder / "machine.toml").write_text(f"watchdog = {WATCHDOG}\n")
    chaos = Chaos(random.Random(options.seed), folder)
    first = chaos.make(0)
    chaos.usual = max(chaos.undisturbed(first), 2.0)
    number = 0
    while chaos.sent.total() < options.signals and time.monotonic() < end:
        number += 1
        study, before = chaos.make(number), shared()
        for _ in range(HITS):
            if any(study.parent.glob("results/chaos/*/READY")):
                break
            if chaos.sent.total() < options.signals:
                chaos.hit(study)
        chaos.complete(study, before)
        shutil.rmtree(study.parent)
    for what, count in sorted(chaos.sent.items()):
        print(f"{count:4d}  {what}")
    statuses = ", ".join(f"{count} with {s}" for s, count in sorted(chaos.ends.items()))
    print(f"{chaos.studies} studies; runs ended: {statuses}")
    print(
        f"chaos in {sys.prefix}: seed {options.seed}, {chaos.sent.total()} of "
        f"{options.signals} signals sent, {len(chaos.violations)} violations"
    )
    if not chaos.violations:
        shutil.rmtree(folder)
    return 1 if chaos.violations else 0


def apart() -> None:
    """Become a process with a /dev/shm of its own, where that is possible."""
    if APART in os.environ or os.geteuid() or shutil.which("unshare") is None:
        return
    mount = f'mount -t tmpfs tmpfs {SHM} && exec "$0" "$@"'
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    if subprocess.run([*words, mount, "true"], check=False).returncode == 0:
        os.environ[APART] = "yes"
        program = [sys.executable, "-P", *sys.argv]
        os.execvp("unshare", [*words, mount, *program])


if __name__ == "__main__":
    apart()
    sys.exit(main())
