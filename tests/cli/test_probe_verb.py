"""The probe as users start it: on ranks, its tables, its profile in a simulation."""

import subprocess
import sys
from pathlib import Path

import pytest

from dsgd_bench.spec import machine_profile
from dsgd_bench.spec.machine import Machine
from dsgd_bench.study import launch

SHORT = ("-m", "8:4K", "-i", "5", "-x", "1")


def probe(dsgd_bench, ranks: int, *words: str) -> subprocess.CompletedProcess[str]:
    python = sys.executable
    return subprocess.run(
        [
            *launch.starter(ranks, Machine(), python),
            *(python, "-m", "mpi4py", "-m", "dsgd_bench", "probe", *words),
        ],
        cwd=dsgd_bench.folder,
        env=launch.variables(ranks, Machine(), python, dsgd_bench.environment()),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def nothing_written(folder: Path) -> bool:
    return not list(folder.glob("*.json*"))


@pytest.mark.slow
@pytest.mark.library
def test_a_profile_is_measured_and_simulated_with(dsgd_bench):
    done = probe(dsgd_bench, 2, *SHORT, "-f", "-z", "90")
    assert done.returncode == 0, done.stderr
    path = dsgd_bench.folder / "profile.json"
    found = machine_profile.read(path)
    assert found.ranks == 2
    assert {"mlp", "resnet20", "quadratic"} <= set(found.gradients)
    assert done.stdout.startswith("# dsgd-bench probe")
    assert "Is your asynchronous really asynchronous?" in done.stdout
    assert "# two ranks of one node: put" in done.stdout
    assert "Latency P90" in done.stdout
    assert done.stdout.rstrip().endswith("wrote profile.json")
    assert "near: get_accumulate: finished" in done.stderr

    study = dsgd_bench.study()
    simulated = dsgd_bench("simulate", study, "--profile", path)
    assert simulated.returncode == 0, simulated.stderr
    assert "tiny, simulated" in simulated.stdout
    refused = dsgd_bench("simulate", study, "--profile", path, "--ranks", "3")
    assert refused.returncode == 2
    assert "'profile' was measured on one node with 2 ranks" in refused.stderr


def test_one_rank_is_refused(dsgd_bench):
    done = dsgd_bench("probe", *SHORT)
    assert done.returncode == 2
    assert done.stderr.startswith("dsgd-bench: probe measures between ranks")
    assert done.stderr.count("\n") == 1
    assert nothing_written(dsgd_bench.folder)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-m", "4K"), "ask for two at least"),
        ((*SHORT, "-o", "none/p.json"), "none/p.json cannot be written"),
    ],
)
def test_what_cannot_be_is_refused_once_for_all_ranks(dsgd_bench, words, said):
    done = probe(dsgd_bench, 2, *words)
    assert done.returncode == 2
    assert done.stderr.count("dsgd-bench: ") == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert nothing_written(dsgd_bench.folder)
