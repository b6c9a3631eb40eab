"""The same study on the host and on a GPU, through the command line, on two ranks."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from dsgd_bench import trace

pytestmark = pytest.mark.gpu

pytest.importorskip("cupy", reason="CuPy is an extra, and not installed here")

STUDY = """
[study]
ranks = 2
budget = { steps = 30 }
[problem]
kind = "KIND"
dtype = "DTYPE"
data = "digits"
batch = 32
[optimizer]
lr = 0.2
momentum = 0.9
weight_decay = 1e-3
[[algorithm]]
kind = ["allreduce", "dpsgd", "sgp"]
[compute]
device = ["cpu", "cuda"]
"""

Curves = dict[tuple[str, str], list[float]]
Command = Callable[..., CompletedProcess[str]]


def curves(folder: Path) -> Curves:
    """Return the losses at all moments by algorithm and device."""
    found: Curves = {}
    for path in sorted(folder.glob("*/trace.h5")):
        run = trace.open_trace(path)
        loss = run["loss_of_mean"].tolist()
        found[run.trial.algorithm.kind, run.trial.compute.device] = loss
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [
        # 30 steps of a smooth map carry rounding errors of 1e-16, or 6e-8, times the
        # length of the longest sum, some hundred, and grow them by less than 2 a step
        ("softmax", "float64", 1e-10),
        ("softmax", "float32", 1e-3),
        ("mlp", "float64", 1e-8),
    ],
)
def test_host_and_gpu_walk_alike(
    dsgd_bench: Command, tmp_path: Path, kind: str, dtype: str, tolerance: float
) -> None:
    study = STUDY.replace("KIND", kind).replace("DTYPE", dtype)
    (tmp_path / "alike.toml").write_text(study)
    done = dsgd_bench("run", "alike.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    found = curves(tmp_path / "results" / "alike")
    assert len(found) == 6
    for algorithm in ("allreduce", "dpsgd", "sgp"):
        assert found[algorithm, "cuda"] == pytest.approx(
            found[algorithm, "cpu"], rel=tolerance
        )


def test_the_trace_says_on_what_and_how(dsgd_bench: Command, tmp_path: Path) -> None:
    study = STUDY.replace("KIND", "softmax").replace("DTYPE", "float32")
    (tmp_path / "one.toml").write_text(study)
    done = dsgd_bench(
        "run", "one.toml", "--set", "compute.device=cuda", "--set", "algorithm.kind=sgp"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (tmp_path / "results" / "one").glob("*/trace.h5")
    origin = trace.open_trace(path).provenance
    assert len(origin["gpus"]) == 2
    assert origin["gpu_transport"]["windows"] in ("staged", "ipc")
    assert "CuPy" in origin["gpu"][0]
