"""Jobs on the virtual cluster: submit, look, wait, clean up."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dsgd_bench.study import launch

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "jobs" / "emulate" / "slurm.sh"

FAMILY = launch.family(launch.find("mpiexec", sys.executable))
LAUNCHERS = {
    "mpich": {
        "srun": ["srun", "--mpi=pmi2", "-K1", "-n", "{ranks}"],
        "mpiexec": ["mpiexec", "-n", "{ranks}"],
    },
    "openmpi": {"mpirun": ["mpirun", "--bind-to", "none", "-n", "{ranks}"]},
    "intel": {"mpiexec": ["mpiexec", "-n", "{ranks}"]},
}.get(FAMILY, {})
"""Name -> words that start the ranks in an allocation, for this environment's MPI."""

ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "DEADLINE"}
"""States of jobs that will not run any more."""

GOOD = {"0:0", "4:0"}
"""Exit codes of a study that ran; 4: it missed a target, as it may on busy cores."""

TEST_SECONDS = 300  # several times what a test takes on two busy cores
JOB_SECONDS = 120
COMMAND_SECONDS = 60  # Slurm's answer in milliseconds, ours in a second
LOOK_AGAIN = (1, 5)  # seconds after which a question without an answer is asked again

STUDY = """
[study]
ranks = 4
budget = { seconds = 0.5 }

[problem]
kind = "softmax"

[[algorithm]]
kind = "adpsgd"

[compute]
mode = "emulated"
seconds = 0.005
"""

MACHINE = """
launcher = {launcher}
{more}
[env]
"""


def surroundings() -> dict[str, str]:
    """Return this process's environment without a Slurm job it may be part of."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLURM_", "PMI", "OMPI_COMM"))
    }


def script(
    *words: str, check: bool = True, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run the project's script; its words are in the error if it fails."""
    done = subprocess.run(
        [SCRIPT, *words],
        env={**os.environ, **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    if check and done.returncode:
        pytest.fail(f"slurm.sh {' '.join(words)}: {done.stdout}{done.stderr}")
    return done


@dataclass
class Slurm:
    """The cluster as one test sees it: a folder of its own, from which it submits."""

    env: dict[str, str]
    folder: Path

    def __call__(self, *words: object, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the login node; the test judges how it went."""
        return subprocess.run(
            [str(word) for word in words],
            cwd=self.folder,
            env={**self.env, "COLUMNS": "200", **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    def ask(self, *words: object) -> str:
        """Run a command of Slurm that has to work; return what it prints."""
        done = self(*words)
        if done.returncode:
            pytest.fail(described(done))
        return done.stdout

    def look(self, *words: object) -> str:
        """Run a command of Slurm that changes nothing; return what it prints.

        Once in some ten thousand times the controller of a busy machine gives no
        answer, so it is asked again before that counts as one.
        """
        for pause in LOOK_AGAIN:
            done = self(*words)
            if not done.returncode:
                return done.stdout
            time.sleep(pause)
        return self.ask(*words)

    def dsgd_bench(
        self, *words: object, **more: str
    ) -> subprocess.CompletedProcess[str]:
        return self(sys.executable, "-m", "dsgd_bench", *words, **more)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def machine(self, launcher: list[str], more: str = "") -> Path:
        """Write a machine file whose ranks give up their core while they wait."""
        lines = [f'{key} = "{value}"' for key, value in launch.SHARING[FAMILY].items()]
        text = MACHINE.format(launcher=launcher, more=more) + "\n".join(lines)
        return self.write("machine.toml", text + "\n")

    def submit(self, body: str, *options: str, nodes: int = 2) -> str:
        """Submit a batch script for 2 ranks on each of some nodes; return its id.

        ``$PYTHON`` in it is the interpreter that runs the tests.
        """
        words = ["sbatch", "--parsable", f"--nodes={nodes}", "--ntasks-per-node=2"]
        words += ["--time=10", "--open-mode=append", "--output=%x-%j.out", *options]
        text = f"#!/bin/bash\nPYTHON={sys.executable}\n{body}\n"
        return self.ask(*words, self.write("job.sh", text)).strip()

    def show(self, job: str) -> dict[str, str]:
        """Return what the controller knows about a job."""
        text = self.look("scontrol", "--oneliner", "show", "job", job)
        return dict(re.findall(r"(\S+?)=(\S*)", text))

    def wait(
        self, job: str, *states: str, seconds: float = JOB_SECONDS
    ) -> dict[str, str]:
        """Wait until a job is in one of some states (by default: it has ended)."""
        wanted = set(states) or ENDED
        until(lambda: self.show(job)["JobState"] in wanted, seconds, self.report(job))
        return self.show(job)

    def start_now(self, job: str) -> None:
        """Let a requeued job start, which Slurm would hold back for two minutes."""
        self.wait(job, "PENDING", "RUNNING")
        time.sleep(2)  # nodes know by the second until when a job was revoked
        self.ask("scontrol", "update", f"jobid={job}", "StartTime=now")

    def output(self, job: str) -> str:
        """Return what a job has printed until now."""
        return self.printed(f"*-{job}.out")

    def printed(self, files: str = "*.out") -> str:
        """Return what jobs of this test have printed into files of such a name."""
        found = sorted(self.folder.rglob(files))
        return "".join(path.read_text(errors="replace") for path in found)

    def report(self, job: str) -> Callable[[], str]:
        return lambda: f"{self.show(job)}\n{self.output(job)}"

    def jobs(self) -> list[str]:
        """Return the jobs of this test that wait or run."""
        listed = self.look("squeue", "-h", "-o", "%A %Z")
        rows = [line.split() for line in listed.split("\n")]
        return [row[0] for row in rows if row and row[1].startswith(str(self.folder))]

    def end_all(self) -> None:
        if jobs := self.jobs():
            self.ask("scancel", *jobs)
            until(lambda: not self.jobs(), 30)


def described(done: subprocess.CompletedProcess[str]) -> str:
    """Return how a command failed: its words, its status, all that it printed."""
    words = " ".join(map(str, done.args))
    return f"{words}: status {done.returncode}: {done.stdout}{done.stderr}"


def until(
    condition: Callable[[], bool], seconds: float, why: Callable[[], str] = str
) -> None:
    """Poll until something holds; fail, and say `why`, if that takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"nothing happened within {seconds} s: {why()}")
        time.sleep(0.3)  # most conditions start a process
