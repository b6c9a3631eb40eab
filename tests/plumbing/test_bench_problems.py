"""The benchmark of gradients: its options, its floor, its table; nothing is quoted."""

import json
import math
import sys
from itertools import product

import numpy as np
import pytest

from dsgd_bench.arrays import HOST
from dsgd_bench.bench.cases import CASES, Product, resnet20
from dsgd_bench.bench.floors import Floor
from dsgd_bench.bench.gradient_options import ProblemOptions
from dsgd_bench.bench.gradient_times import (
    DASH,
    Timed,
    gradients,
    interleaved,
    report,
)
from dsgd_bench.errors import DsgdError
from dsgd_bench.fabric.virtual.fabric import World

WHY = "PyTorch is an extra, and not installed here"

FLOOR = Floor(bandwidth=1e10, rate=1e11)


def test_without_words_the_options_are_the_defaults():
    assert ProblemOptions.from_argv([]) == ProblemOptions()
    assert ProblemOptions().names == tuple(CASES)


def test_options_are_read_as_they_are_written():
    words = ["--problem", "mlp,mlp-wide", "--batch", "8,64", "--threads", "2"]
    words += ["--dtype", "float64", "--no-compile", "-i", "3"]
    options = ProblemOptions.from_argv(words)
    assert options.names == ("mlp", "mlp-wide")
    assert options.batches == (8, 64)
    assert (options.threads, options.dtype, options.iterations) == (2, "float64", 3)
    assert options.torch
    assert not options.compiled


@pytest.mark.parametrize(
    "words",
    [["--problem", "vgg"], ["--batch", "0"], ["--batch", "9999"], ["--threads", "0"]],
)
def test_wrong_options_end_the_program_with_status_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        ProblemOptions.from_argv(words)
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_resnet20_multiplies_as_often_as_is_known():
    """4.06e7 a picture: Y. He et al., "Soft filter pruning for accelerating deep
    convolutional neural networks", IJCAI 2018, table 1, as everybody since."""
    total = sum(layer.operations for layer in resnet20((3, 32, 32))) / 2
    assert total == pytest.approx(4.06e7, rel=0.002)


@pytest.mark.parametrize("name", CASES)
def test_a_gradient_has_three_products_for_a_layer_and_two_for_the_first(name):
    case = CASES[name]
    first, *others = (layer.operations for layer in case.products(case.shape))
    assert case.operations(7) == 7 * (2 * first + 3 * sum(others))
    assert Product(5, 3, 2).operations == 5 * (3 * 2) * 2


@pytest.mark.parametrize("name", CASES)
def test_the_layers_that_are_counted_are_those_of_the_problem(name):
    """Weights are the matrices of the layers; the rest is biases and scales."""
    case = CASES[name]
    problem = case.problem("float32", HOST)
    layers = case.products(case.shape)
    weights = sum(layer.n * layer.m for layer in layers)
    outputs = sum(layer.m for layer in layers)
    assert weights < problem.dimension <= weights + 2 * outputs
    samples = case.samples(np.dtype(np.float32))
    assert samples.inputs.shape == (problem.samples, math.prod(case.shape))
    assert np.array_equal(samples.labels, problem.labels)
    expected = 4 * (2 * problem.dimension + 3 * math.prod(case.shape))
    assert case.nbytes(3, problem) == expected


def test_every_form_has_as_many_stretches_and_the_same_batches():
    seen = {"ours": [], "eager": []}

    def form(name):
        def gradient(positions):
            seen[name].append(int(positions[0]))
            return 0.0

        return gradient

    batches = [np.array([k]) for k in range(3)]
    options = ProblemOptions(iterations=4, warm_up=1)
    seconds = interleaved({name: form(name) for name in seen}, batches, options)
    assert {name: len(times) for name, times in seconds.items()} == {
        "ours": 4,
        "eager": 4,
    }
    assert all(took > 0 for times in seconds.values() for took in times)
    assert all(set(found) == {0, 1, 2} for found in seen.values())


def timed(**seconds):
    apart = dict.fromkeys(set(seconds) - {"ours"}, 2e-7)
    return Timed("mlp", 32, 4810, 1e-4, seconds, apart)


def test_the_table_says_how_much_longer_torch_takes_and_how_far_it_is_apart():
    times = {"ours": [0.001] * 9, "eager": [0.002] * 9, "compiled": [0.0005] * 9}
    heading, line, *figures = report([timed(**times)], ProblemOptions(words=("-f",)))
    assert heading.startswith("# Problem")
    assert "Eager/ours" in heading
    cells = line.split()
    assert cells[:6] == ["mlp", "32", "4810", "1", "0.1", "10"]
    assert cells[6:11] == ["2", "2.000", "2.000", "2.000", "2.0e-07"]
    assert cells[11:13] == ["0.5", "0.500"]
    assert "FOM gradient_over_floor_mlp_32 10 1" in figures
    assert "FOM torch_eager_over_ours_mlp_32 2 1" in figures
    assert figures[-1] == "dsgd-bench bench problems -f"


def test_what_torch_could_not_do_is_a_dash():
    heading, line, *figures = report([timed(ours=[0.001] * 9)], ProblemOptions())
    assert line.split()[6:] == [DASH] * 10
    assert len(heading.split("  ")) > 1
    assert not [figure for figure in figures if "torch" in figure]


@pytest.fixture
def bench(monkeypatch, capsys):
    """Return a function that runs the benchmark, its floor made up, and its lines."""
    monkeypatch.setattr(
        "dsgd_bench.bench.gradient_times.measured_floor", lambda device, options: FLOOR
    )

    def run(**options):
        short = {"names": ("mlp",), "iterations": 2, "warm_up": 0, "compiled": False}
        asked = ProblemOptions(**{**short, **options})
        World(1).run(lambda fabric: gradients(fabric, asked))
        return capsys.readouterr().out.splitlines()

    return run


def test_without_torch_ours_is_timed_and_the_reason_said(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "dsgd_bench.bench.torch_forms", None)
    lines = bench()
    assert any(line.startswith("# No PyTorch: cannot be loaded") for line in lines)
    (row,) = [line for line in lines if line.startswith("mlp ")]
    assert row.split()[6:] == [DASH] * 10


def test_all_numbers_are_written_where_they_are_wanted(bench, tmp_path):
    words = ["--no-torch", "--json", str(tmp_path / "new" / "out.json")]
    options = ProblemOptions.from_argv(words)
    lines = bench(torch=False, json=options.json, words=options.words)
    written = json.loads(options.json.read_text())
    assert written["command"] == lines[-1]
    assert written["provenance"]["host"]
    assert f"# PyTorch: {written['device']['No PyTorch']}" in [
        line.replace("No PyTorch", "PyTorch") for line in lines
    ]
    (row,) = written["rows"]
    assert row["name"] == "mlp"
    assert len(row["seconds"]["ours"]) == 2


@pytest.mark.parametrize(
    ("name", "dtype"), list(product(CASES, ["float64", "float32"]))
)
def test_torch_computes_the_same_gradient(bench, name, dtype):
    pytest.importorskip("torch", reason=WHY)
    lines = bench(names=(name,), dtype=dtype, batches=(16,), iterations=1)
    (row,) = [line for line in lines if line.startswith(f"{name} ")]
    # what rounding leaves; in float32 it may turn a unit near 0 on or off
    assert float(row.split()[10]) < {"float64": 1e-10, "float32": 1e-2}[dtype]


def test_another_gradient_than_ours_is_refused(bench, monkeypatch):
    pytest.importorskip("torch", reason=WHY)
    from dsgd_bench.bench.torch_forms import TorchForms

    monkeypatch.setattr(TorchForms, "take", lambda self, x: None)  # its own first model
    with pytest.raises(DsgdError, match="report this as an error of dsgd-bench"):
        bench()


def test_a_compiler_that_fails_leaves_a_dash_and_its_reason(bench, monkeypatch):
    pytest.importorskip("torch", reason=WHY)
    from dsgd_bench.bench.torch_forms import TorchForms

    def fail(self, positions):
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC.")

    monkeypatch.setattr(TorchForms, "compiled", fail)
    lines = bench(compiled=True)
    said = "# No compiled mlp: RuntimeError: Failed to find C compiler. Please specify"
    assert any(line.startswith(said) for line in lines)
    (row,) = [line for line in lines if line.startswith("mlp ")]
    assert row.split()[11:] == [DASH] * 5
    assert DASH not in row.split()[:11]
