"""Hosts that this machine emulates, and programs that run on them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dsgd_bench.config import read_machine
from dsgd_bench.host import processes
from dsgd_bench.spec.machine import Machine
from dsgd_bench.study import launch

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "jobs/emulate/hosts.sh"
CANNOT = 77
SECONDS = 100
"""Far more than any job here takes; a hang ends the test."""


@dataclass
class Hosts:
    """The hosts of one prefix; those of others on this machine are not touched."""

    prefix: str

    def script(self, *words: object, check: bool = True) -> str:
        """Run hosts.sh; return what it printed, complaints included."""
        done = self.attempt(*words)
        if check and done.returncode:
            pytest.fail(f"hosts.sh {words}: {done.stdout}")
        return done.stdout

    def attempt(
        self, *words: object, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SCRIPT, "--prefix", self.prefix, *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
            **options,
        )

    def namespaces(self) -> list[str]:
        paths = Path("/run/netns").glob(f"{self.prefix}*")
        return sorted(path.name for path in paths)

    def processes(self) -> list[int]:
        """Return whatever runs in any of the namespaces."""
        return [
            int(pid)
            for name in self.namespaces()
            for pid in subprocess.run(
                ["ip", "netns", "pids", name],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()
        ]

    def empty(self) -> bool:
        return eventually(lambda: not self.processes())

    @property
    def machine(self) -> Machine:
        """The machine file that users have, from whatever folder."""
        machine = read_machine(ROOT / "jobs/emulated-hosts.toml")
        # mpi4py puts the folder of a script in the place of the first
        path = os.pathsep.join((str(Path(__file__).parent), str(ROOT)))
        ours = {"DSGD_BENCH_HOSTS": self.prefix, "PYTHONPATH": path}
        return msgspec.structs.replace(
            machine,
            launcher=(str(SCRIPT), *machine.launcher[1:]),
            env=machine.env | ours,
        )

    def machine_file(self, folder: Path) -> Path:
        """Write it for the command line."""
        machine = self.machine
        lines = [f"launcher = {json.dumps(machine.launcher)}", "[env]"]
        lines += [f"{name} = {json.dumps(text)}" for name, text in machine.env.items()]
        path = folder / "machine.toml"
        path.write_text("\n".join(lines))
        return path

    def start(self, ranks: int, words: list[str], log: Path) -> int:
        """Run a Python program on `ranks` hosts; return the exit status."""
        python, machine = sys.executable, self.machine
        command = [*launch.starter(ranks, machine, python), python, "-m", "mpi4py"]
        return processes.run(
            ["timeout", str(SECONDS), *command, *words],
            launch.variables(ranks, machine, python),
            log,
        )


def eventually(happened: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not (done := happened()) and time.monotonic() < end:
        time.sleep(0.05)
    return done


def up(hosts: Hosts, *words: object) -> None:
    done = hosts.attempt("up", *words)
    if done.returncode == CANNOT:
        pytest.skip(done.stdout.strip())
    if done.returncode:
        pytest.fail(done.stdout)
