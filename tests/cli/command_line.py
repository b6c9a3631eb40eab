"""A command line to test: real subprocesses, real ranks, in a temporary folder."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dsgd_bench.spec.machine import Machine
from dsgd_bench.study import launch

HERE = Path(__file__).parent
SECONDS = 300

STUDY = """
[study]
ranks = 2
budget = { seconds = 0.3 }

[problem]
kind = "softmax"

[[algorithm]]
kind = "adpsgd"

[compute]
mode = "emulated"
seconds = 0.002
"""


@dataclass
class Command:
    """``dsgd-bench`` in a folder of its own."""

    folder: Path

    def study(self, name: str = "tiny", text: str = STUDY) -> Path:
        path = self.folder / f"{name}.toml"
        path.write_text(text)
        return path

    def machine(self, text: str) -> Path:
        path = self.folder / "machine.toml"
        path.write_text(text)
        return path

    def words(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "dsgd_bench", *map(str, words)]

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "COLUMNS": "200", **more}

    def start(self, *words: object, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.words(*words),
            cwd=self.folder,
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # tests that run in the background have inherited that they ignore Ctrl-C;
            # pytest has no other thread here that could hold a lock
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    def __call__(self, *words: object, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(*words),
            cwd=self.folder,
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def in_job(self, ranks: int, *words: object) -> subprocess.CompletedProcess[str]:
        """Run the command on the ranks of an MPI job."""
        python = sys.executable
        return subprocess.run(
            [*launch.starter(ranks, Machine(), python), *self.words(*words)],
            cwd=self.folder,
            env=launch.variables(ranks, Machine(), python, self.environment()),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def sabotage(self, how: str, rank: int, file: Path) -> dict[str, str]:
        """Return the environment in which `rank` breaks once `file` is there."""
        folders = [str(HERE / "sabotage"), os.environ.get("PYTHONPATH", "")]
        return {
            "PYTHONPATH": os.pathsep.join(filter(None, folders)),
            "DSGD_TEST_SABOTAGE": f"{how}:{rank}:{file}",
        }
