"""The benchmark of gradients on a GPU: ours and torch's agree; nothing is quoted."""

import pytest

from dsgd_bench.bench.cases import CASES
from dsgd_bench.bench.gradient_options import ProblemOptions
from dsgd_bench.bench.gradient_times import APART, gradients
from dsgd_bench.fabric.virtual.fabric import World

pytestmark = pytest.mark.gpu

cupy = pytest.importorskip("cupy", reason="CuPy is an extra, and not installed here")


@pytest.fixture(autouse=True, scope="module")
def device() -> None:
    if not cupy.cuda.is_available():
        pytest.skip("there is no CUDA device here")


def lines_of(capsys, **options):
    short = {"iterations": 2, "warm_up": 1, "compiled": False, "device": "cuda"}
    asked = ProblemOptions(**{**short, **options})
    World(1).run(lambda fabric: gradients(fabric, asked))
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [
        ("float64", "float32"),
        ("float32", "float32"),
        ("float32", "tf32"),
        ("float32", "bfloat16"),
    ],
)
def test_torch_computes_the_same_gradient_and_nothing_is_below_its_floor(
    capsys, dtype, precision
):
    torch = pytest.importorskip("torch", reason="PyTorch is an extra")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch is not built for CUDA, or sees no device")
    lines = lines_of(capsys, dtype=dtype, precision=precision)
    rows = [line.split() for line in lines if line.split()[0] in CASES]
    assert [row[0] for row in rows] == list(CASES)
    kind = precision if precision != "float32" else dtype
    for row in rows:
        assert float(row[10]) <= APART[kind]
        assert float(row[5]) > 0.9, "a floor is measured, too: a tenth is its noise"
