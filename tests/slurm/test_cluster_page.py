"""The ten commands of docs/cluster.md, run as they stand there."""

import re
import shutil
import sys
from pathlib import Path

import pytest
from virtual_cluster import FAMILY, GOOD, ROOT, Slurm, until

from dsgd_bench.study import launch

PAGE = ROOT / "docs" / "cluster.md"
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", ".*_cache", "__pycache__", "build", "data", "results"
)


def commands() -> list[str]:
    section = PAGE.read_text().partition("## From login node to report")[2]
    section = section.partition("\n## ")[0]
    return re.findall(r"^    (\S.*)$", section, re.MULTILINE)


class Newcomer:
    """Somebody who types commands on the login node, one after the other."""

    def __init__(self, slurm: Slurm) -> None:
        self.slurm = slurm
        self.folder = slurm.folder / "dsgd-bench"
        self.left = commands()

    def type(self, beginning: str) -> str:
        """Run the next command of the page, which begins so; return what it prints."""
        command = self.left.pop(0)
        assert command.startswith(beginning)
        line = f"cd {self.folder} && source .venv/bin/activate && {command}"
        ours = {"EDITOR": "true", "PYTHONPATH": str(self.folder)}
        done = self.slurm("bash", "-c", line, **ours)
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"{command}\n{said}"
        return said

    def clone_and_install(self) -> None:
        """Do what the first two commands do, with what is here already.

        The clone is a copy, so that changes not committed yet are tested, too. The
        environment is the one that runs the tests: `make install` made it.
        """
        assert self.left.pop(0) == "git clone ADDRESS dsgd-bench && cd dsgd-bench"
        shutil.copytree(ROOT, self.folder, ignore=LEFT_OUT)
        assert self.left.pop(0) == "make install && source .venv/bin/activate"
        bin_ = self.folder / ".venv" / "bin"
        bin_.mkdir(parents=True)
        (bin_ / "activate").write_text(
            f"PATH={bin_}:{Path(sys.executable).parent}:$PATH\n"
        )
        program = bin_ / "dsgd-bench"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m dsgd_bench "$@"\n')
        program.chmod(0o755)


def give_up_cores(machine: Path) -> None:
    """Edit the machine file as a site of two cores needs it: ranks that wait, yield."""
    lines = [f'{name} = "{value}"' for name, value in launch.SHARING[FAMILY].items()]
    machine.write_text("\n".join([machine.read_text(), "[env]", *lines, ""]))


def job_in(said: str) -> str:
    found = re.search(r"^job (\d+):", said, re.MULTILINE)
    assert found, said
    return found[1]


@pytest.mark.skipif(FAMILY != "mpich", reason="the page takes the environment of MPICH")
@pytest.mark.timeout(400, method="signal")
def test_the_ten_commands_lead_from_login_node_to_report(slurm):
    newcomer = Newcomer(slurm)
    assert len(newcomer.left) == 10
    newcomer.clone_and_install()
    newcomer.type("cp jobs/slurm-cpu.toml")
    give_up_cores(newcomer.folder / "jobs" / "mine.toml")
    assert "4 started, 4 in one job" in newcomer.type("salloc")
    assert "trials" in newcomer.type("dsgd-bench plan")
    dry = newcomer.type("dsgd-bench submit")
    assert "#SBATCH --ntasks=4" in dry
    assert "nothing was sent" in dry
    first = job_in(newcomer.type("dsgd-bench submit"))

    # the cluster takes the nodes away as soon as one of the eight trials is finished
    results = newcomer.folder / "results" / "smoke"
    until(lambda: len([*results.glob("*/READY")]) > 0, 60, slurm.report(first))
    slurm.ask("scancel", first)
    assert slurm.wait(first, seconds=30)["JobState"] == "CANCELLED"
    until(lambda: not slurm.jobs(), 30)
    told = newcomer.type("dsgd-bench status")
    assert re.search(r"\d +finished", told)
    finished = len([*results.glob("*/READY")])
    assert 0 < finished < 8

    second = job_in(newcomer.type("dsgd-bench submit"))
    ended = slurm.wait(second, seconds=200)
    assert ended["ExitCode"] in GOOD, slurm.report(second)()
    assert slurm.output(second).count(": finished") == 8 - finished
    assert len([*results.glob("*/READY")]) == 8
    assert "allreduce" in newcomer.type("dsgd-bench report")
    assert (results / "report.html").exists()
    assert newcomer.left == []
