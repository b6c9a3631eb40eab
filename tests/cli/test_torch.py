"""A PyTorch module through the command line: ranks of their own, real MPI."""

import json

import numpy as np
import pytest
import xarray

STUDY = """
[study]
ranks = 2
budget = { steps = 40 }
[problem]
kind = "torch"
module = "net.py:Net"
shape = [1, 8, 8]
[optimizer]
lr = 0.2
[[algorithm]]
kind = ["allreduce", "allreduce-bucketed", "adpsgd"]
"""

NET = """
from torch import nn


def Net(shape, classes):
    return nn.Sequential(
        nn.Conv2d(shape[0], 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 9, classes),
    )
"""


def test_a_module_in_a_file_is_trained_by_two_ranks(dsgd_bench):
    pytest.importorskip("torch", reason="PyTorch is an extra, and not installed here")
    (dsgd_bench.folder / "net.py").write_text(NET)
    study = dsgd_bench.study(text=STUDY)
    planned = dsgd_bench("plan", study)
    assert planned.returncode == 0, planned.stderr
    done = dsgd_bench("run", study)
    assert done.returncode == 0, done.stderr
    traces = sorted((dsgd_bench.folder / "results" / "tiny").glob("*/trace.h5"))
    assert len(traces) == 3
    for path in traces:
        with xarray.open_dataset(path, engine="h5netcdf") as data:
            trial = json.loads(data.attrs["dsgd_trial"])
            loss = data["loss_of_mean"].values
        assert trial["problem"]["settings"]["module"] == "net.py:Net"
        # ten classes at the start, and learning from there
        assert loss[0] == pytest.approx(np.log(10), abs=0.3)
        assert loss[-1] < loss[0] / 2


def test_a_module_that_cannot_be_made_is_refused_before_ranks_start(dsgd_bench):
    pytest.importorskip("torch", reason="PyTorch is an extra, and not installed here")
    (dsgd_bench.folder / "net.py").write_text("Net = 7\n")
    done = dsgd_bench("run", dsgd_bench.study(text=STUDY))
    assert done.returncode == 2
    assert "has a int called Net" in done.stderr
    assert not list(dsgd_bench.folder.glob("results/*/*/log.txt"))


def test_without_torch_the_study_is_refused_and_the_extra_named(dsgd_bench):
    absent = dsgd_bench.folder / "absent"
    absent.mkdir()
    (absent / "torch.py").write_text("raise ImportError('No module named torch')\n")
    done = dsgd_bench("run", dsgd_bench.study(text=STUDY), PYTHONPATH=str(absent))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'dsgd-bench[torch]'" in done.stderr


def test_the_benchmark_of_gradients_prints_the_documented_lines(dsgd_bench):
    words = ["--problem", "mlp", "--no-compile", "--no-torch", "--threads", "2"]
    words += ["-i", "2", "-x", "0"]
    done = dsgd_bench("bench", "problems", *words)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("# dsgd-bench problems")
    assert "# Device: cpu, 2 threads, float32" in lines
    assert "# No PyTorch: not asked for" in lines
    figures = [line.split() for line in lines if line.startswith("FOM ")]
    assert [name for _, name, _, _ in figures] == [
        "gradient_mlp_32",
        "gradient_over_floor_mlp_32",
    ]
    assert float(figures[1][2]) > 1, "nothing is faster than its floor"
    assert lines[-1] == "dsgd-bench bench problems " + " ".join(words)


def test_other_problems_never_load_torch(dsgd_bench):
    trap = dsgd_bench.folder / "trap"
    trap.mkdir()
    (trap / "torch.py").write_text("raise SystemExit('torch was loaded')\n")
    done = dsgd_bench("run", dsgd_bench.study(), PYTHONPATH=str(trap))
    assert done.returncode == 0, done.stderr
