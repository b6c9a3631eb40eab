"""The command before it is a command, and what surrounds it: Ctrl-C, folders, names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsgd_bench.errors import LaunchError
from dsgd_bench.host import environment
from dsgd_bench.spec.machine import Machine
from dsgd_bench.study import launch

INTERRUPTED = """
import sys
class Interrupts:
    def find_spec(self, name, *_):
        if name == {name!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupts())
sys.argv = ["dsgd-bench", "list"]
from dsgd_bench.__main__ import main
sys.exit(main())
"""


def run(*words: str, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        **more,
    )


@pytest.mark.parametrize(
    "name", ["dsgd_bench.cli", "argparse", "dsgd_bench.cli.console"]
)
def test_ctrl_c_while_libraries_are_loaded_is_a_sentence(name):
    done = run("-c", INTERRUPTED.format(name=name))
    assert done.returncode == 130
    assert done.stderr.startswith("dsgd-bench: interrupted")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["random", "numpy", "queue", "copy", "argparse"])
def test_shadowed_modules_in_the_working_folder_are_no_part_of_the_program(
    tmp_path, name
):
    (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the user')\n")
    done = run("-m", "dsgd_bench", "list", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    words = launch.program(sys.executable, "list")[1:]
    done = run(*words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), "as ranks are started"


def test_what_ranks_start_does_not_look_into_the_working_folder_either():
    machine = Machine(launcher=("srun", "-n", "{ranks}"))
    variables = launch.variables(2, machine, sys.executable, {})
    assert variables["PYTHONSAFEPATH"] == "1"


def test_every_way_in_which_ranks_are_started_leaves_the_working_folder_out():
    """Scripts, documents and templates too: ``-m`` never without ``-P``."""
    root = Path(__file__).resolve().parents[2]
    files = [
        root / "README.md",
        *(root / "jobs").rglob("*"),
        *(root / "docs").glob("*.md"),
    ]
    files += [*(root / "contrib").rglob("*.py"), *(root / "dsgd_bench").rglob("*.py")]
    for path in files:
        if path.is_file() and path.name != "__main__.py":
            for line in path.read_text(encoding="utf-8").splitlines():
                if "-m mpi4py" in line or "-m dsgd_bench run" in line:
                    assert "-P -m" in line or "..." in line or "``" in line, path


def test_a_working_folder_that_was_deleted_is_a_sentence(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    code = (
        "import os, sys; os.rmdir(os.getcwd()); sys.argv = ['dsgd-bench', 'list'];"
        "from dsgd_bench.__main__ import main; sys.exit(main())"
    )
    done = run("-P", "-c", code, cwd=gone)
    assert done.returncode == 2
    assert "the working folder is gone" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_temporary_folder_is_a_sentence(monkeypatch):
    def refuses(**_: str) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuses)
    with (
        pytest.raises(LaunchError, match="no temporary folder can be made"),
        environment.scratch_folder(),
    ):
        pass


def test_open_mpi_is_not_started_with_a_temporary_folder_it_cannot_write(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(launch, "family", lambda _: "openmpi")
    monkeypatch.setattr(os, "access", lambda path, _: str(path) != str(tmp_path))
    machine = Machine(launcher=("mpiexec", "-n", "{ranks}"))
    variables = {"TMPDIR": str(tmp_path)}
    with pytest.raises(LaunchError, match=f"TMPDIR is {tmp_path}, which cannot be"):
        launch.variables(2, machine, sys.executable, variables)
