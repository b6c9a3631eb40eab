"""`make show-gpu`: what it runs, what it says where it cannot; programs are stubs."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"

pytestmark = pytest.mark.skipif(
    shutil.which("make") is None, reason="make is not installed"
)

BENCH = """
echo "$@" >>asked
case "$1 $2" in
"run "*) name=$(basename $2 .toml); mkdir -p $6/$name; echo new >$6/$name/summary.csv
    test $name != papers || exit 4;;
"bench problems") exit 1;;
*) echo new; echo new >$6;;
esac
"""
"""Does what the command would leave behind; one study misses its target, which is a
result, and one benchmark fails."""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Return a function that runs make in a folder where everything is installed."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(MAKEFILE, tmp_path)
    for name in ("CUDA", "MAKEFLAGS", "MAKELEVEL", "MPI"):  # of a make around this
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for folder in (".venv/bin", "results/gpu"):
        Path(folder).mkdir(parents=True)
    for name in ("setup.cfg", ".venv/installed", ".venv/cuda13", ".venv/torch"):
        Path(name).touch()
    program(".venv/bin/python", 'echo "$@" >>asked')
    program(".venv/bin/dsgd-bench", BENCH)

    def run(*words: str, gpus: str) -> subprocess.CompletedProcess[str]:
        program("nvidia-smi", f"echo '{gpus}'")
        return subprocess.run(
            ["make", "show-gpu", *words],
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def program(name: str, text: str) -> None:
    path = Path(name)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_without_a_gpu_it_stops_at_once_and_says_what_to_do(make):
    done = make("CUDA=13", gpus="No devices found.")
    assert done.returncode != 0
    said, *_ = done.stderr.splitlines()
    assert "there is no GPU here" in said
    assert "run make show-gpu CUDA=12|13 on a machine with an NVIDIA GPU" in said
    assert not Path("asked").exists()


@pytest.mark.parametrize("words", [(), ("CUDA=11",)])
def test_the_cuda_that_it_needs_is_asked_for(make, words):
    done = make(*words, gpus="GPU 0: NVIDIA H200")
    assert done.returncode != 0
    assert "say CUDA=12 or CUDA=13" in done.stderr
    assert not Path("asked").exists()


def test_a_part_that_fails_stops_no_other_and_is_named_at_the_end(make):
    for name in ("problems.txt", "kernels.txt"):
        Path("results/gpu", name).write_text("old\n")
    done = make("CUDA=13", gpus="GPU 0: NVIDIA H200")
    assert done.returncode != 0
    *_, said, _ = done.stderr.splitlines()  # the last word is make's own
    assert said == "show-gpu: failed: bench-problems"
    asked = [line.split() for line in Path("asked").read_text().splitlines()]
    assert asked[0] == ["tests/run.py", "gpu"]
    studies = [Path(words[1]).stem for words in asked if words[0] == "run"]
    assert studies == ["smoke", "straggler", "papers"]
    benches = [words[1] for words in asked if words[0] == "bench"]
    assert benches == ["kernels", "problems", "transports"]
    assert all("cuda" in " ".join(words) for words in asked[1:])
    written = {path.name: path.read_text() for path in Path("results/gpu").iterdir()}
    assert written.pop("problems.txt") == "old\n"
    assert set(written.values()) == {"new\n"}
    assert {"kernels.json", "transports.txt", "papers.csv"} <= set(written)
