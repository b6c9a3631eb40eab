"""Commands in Slurm's place whose answers a test writes; jobs have names here."""

import os
import shutil
from pathlib import Path

import pytest

from dsgd_bench import cli
from dsgd_bench.batch.slurm import records

JOBS = Path(__file__).parents[2] / "jobs"

STUDY = """
[study]
ranks = 2
repeats = 3
budget = { steps = 100 }
[problem]
kind = "quadratic"
[algorithm]
kind = "allreduce"
"""

MACHINE = """
launcher = ["true", "-n", "{ranks}"]
[slurm]
template = "mpich.sbatch.j2"
time = "01:00:00"
ranks_per_node = 2
"""

HEAD = """#!/bin/bash
env >{0}/environment-$(basename $0)
echo "$@" >>{0}/asked-$(basename $0)
"""

COMMANDS = {
    "sbatch": """
for word; do case $word in --job-name=*) name=${{word#--job-name=}}; esac; done
job=$((100 + $(wc -l <{0}/asked-sbatch)))
queued() {{ echo "$job|PENDING|$name" >>{0}/queue; }}
if [ -e {0}/answer ]; then . {0}/answer; exit; fi
queued; echo $job""",
    "squeue": """
if [ -e {0}/queue-says ]; then . {0}/queue-says; exit; fi
cat {0}/queue""",
    "sacct": """
if [ ! -e {0}/accounts ]; then echo "accounting is disabled" >&2; exit 1; fi
case $* in
*--name=*) sed -n 's/|\\([^|]*\\)$/|\\1/p' {0}/accounts ;;
*) cut -d'|' -f1,2 {0}/accounts ;;
esac""",
    "scontrol": """
echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1""",
}
"""Name -> what it does; {0} is a folder in which tests say and read things."""


class FakeSlurm:
    """A folder that the commands read, with a study in the working folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = Path("results/study")

    def answers(self, body: str) -> None:
        """Let sbatch run this; `queued` puts the job, whose number is $job, in."""
        (self.folder / "answer").write_text(body)

    def submit(self, *words: str, study: str = "study.toml") -> int:
        """Submit and return the exit status."""
        return cli.main(["submit", study, "--machine", "machine.toml", *words])

    def sent(self) -> int:
        """Return how often sbatch was called."""
        path = self.folder / "asked-sbatch"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def saw(self, command: str) -> dict[str, str]:
        """Return the environment of the last call of a command."""
        lines = (self.folder / f"environment-{command}").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def queue(self, state: str) -> None:
        """Let all jobs be in this state."""
        path = self.folder / "queue"
        lines = [line.split("|") for line in path.read_text().splitlines()]
        path.write_text("".join(f"{job}|{state}|{name}\n" for job, _, name in lines))

    def records(self) -> dict[Path, records.Record]:
        """Return what is kept of jobs."""
        return records.read(self.results / "jobs")


def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """Put the commands on the PATH, and a study and a machine where we work."""
    folder, programs, place = (tmp_path / name for name in ("slurm", "bin", "work"))
    for path in (folder, programs, place):
        path.mkdir()
    for name, body in COMMANDS.items():
        path = programs / name
        path.write_text((HEAD + body).format(folder) + "\n")
        path.chmod(0o755)
    (folder / "queue").touch()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for name in list(os.environ):
        if name.startswith(("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(place)
    for path in JOBS.glob("*.j2"):
        shutil.copy(path, place)
    Path("study.toml").write_text(STUDY)
    Path("machine.toml").write_text(MACHINE)
    return FakeSlurm(folder)
