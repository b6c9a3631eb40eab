"""Promises of a problem that is a PyTorch module, beyond those of every problem."""

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from dsgd_bench.errors import ConfigError
from dsgd_bench.problems import make
from dsgd_bench.problems.mlp import MLP
from dsgd_bench.spec.trial import ProblemSpec

WHY = "PyTorch is an extra of its own, [torch], and not installed here"

SMALL: dict[str, Any] = {
    "data": "generated",
    "samples": 60,
    "features": 12,
    "classes": 4,
}

MODULES = '''
import random

import numpy as np
import torch
from torch import nn


class Smooth(nn.Module):
    """Convolution, batch norm and a loss without kinks: differences are exact."""

    def __init__(self, shape, classes):
        super().__init__()
        self.one = nn.Conv2d(shape[0], 3, 2)
        self.norm = nn.BatchNorm2d(3)
        self.two = nn.LazyLinear(classes)
        self.two(torch.zeros(1, 3 * (shape[1] - 1) * (shape[2] - 1)))

    def forward(self, images):
        return self.two(torch.tanh(self.norm(self.one(images))).flatten(1))


def dropped(shape, classes):
    return nn.Sequential(
        nn.Linear(shape[0], 30), nn.Dropout(0.5), nn.Linear(30, classes)
    )


def normed(shape, classes):
    return nn.Sequential(
        nn.Linear(shape[0], 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, classes)
    )


def tied(classes):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(12, 12, bias=False)
            self.two = nn.Linear(12, 12, bias=False)
            self.two.weight = self.one.weight
            self.unused = nn.Parameter(torch.ones(3))
            self.frozen = nn.Parameter(torch.ones(5), requires_grad=False)

        def forward(self, inputs):
            return self.two(torch.tanh(self.one(inputs)))

    return Tied()


def drawn_by_others(shape, classes):
    module = nn.Linear(shape[0], classes)
    with torch.no_grad():
        module.weight.fill_(random.random())
        module.bias.fill_(float(np.random.random()))
    return module


def fails(shape):
    raise RuntimeError("there is no such layer")


def no_module():
    return 7


def no_parameters():
    return nn.Flatten()


def complex_ones():
    return nn.Linear(12, 4, dtype=torch.complex64)


def of_two_types():
    return nn.Sequential(nn.Linear(12, 4), nn.Linear(4, 4, dtype=torch.float64))


def elsewhere():
    return nn.Linear(12, 4, device="meta")


def lazy():
    return nn.LazyLinear(4)


def no_scores():
    return nn.Sequential(nn.Linear(12, 3), nn.Flatten(0))


def too_few_scores():
    return nn.Linear(12, 3)


number = 7
'''


def torch_spec(settings: dict[str, Any], dtype: Any = "float64") -> ProblemSpec:
    return ProblemSpec("torch", dtype=dtype, settings=settings)


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("modules") / "modules.py"
    path.write_text(MODULES)
    return str(path)


@pytest.fixture
def problem(modules: str) -> Any:
    """Return a function that makes the problem of one module in the file above."""
    pytest.importorskip("torch", reason=WHY)

    def build(name: str, dtype: str = "float64", seed: int = 3, **more: Any) -> Any:
        own = name if name in ("mlp", "resnet20") else f"{modules}:{name}"
        return make(torch_spec({**SMALL, "module": own, **more}, dtype), seed)

    return build


def test_the_gradient_is_the_slope_of_the_loss(problem: Any) -> None:
    smooth = problem("Smooth", shape=(1, 3, 4))
    random = np.random.default_rng(0)
    x = smooth.initial() + 0.1 * random.standard_normal(smooth.dimension)
    batch = random.integers(smooth.samples, size=12)
    g, unused = np.full_like(x, np.nan), np.empty_like(x)
    smooth.gradient(x, batch, g)
    slope = np.empty_like(x)
    h = 1e-5  # its square and the rounding of the loss over h are both about 1e-11
    for d in range(smooth.dimension):
        forward, backward = x.copy(), x.copy()
        forward[d] += h
        backward[d] -= h
        rise = smooth.gradient(forward, batch, unused)
        slope[d] = (rise - smooth.gradient(backward, batch, unused)) / (2 * h)
    assert np.linalg.norm(g - slope) < 1e-7 * np.linalg.norm(slope)
    assert np.linalg.norm(slope) > 1e-3


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)]
)
def test_the_module_mlp_is_the_problem_mlp(
    problem: Any, dtype: str, tolerance: float
) -> None:
    """Two implementations that share nothing agree to what rounding leaves."""
    theirs = problem("mlp", dtype)
    ours = MLP(**SMALL, hidden=(64,), regularization=0.0, seed=3, dtype=dtype)
    x = theirs.initial()
    turned = in_order_of_ours(x)
    batch = np.arange(20)
    g, h = np.empty_like(x), np.empty_like(x)
    loss = theirs.gradient(x, batch, g)
    assert ours.gradient(turned, batch, h) == pytest.approx(loss, rel=tolerance)
    difference = np.linalg.norm(in_order_of_ours(g) - h)
    assert difference < tolerance * np.linalg.norm(h)
    judged, expected = theirs.evaluate(x), ours.evaluate(turned)
    assert judged.loss == pytest.approx(expected.loss, rel=tolerance)
    assert judged.accuracy == expected.accuracy


def in_order_of_ours(x: Any) -> Any:
    """Return the vector of the module mlp with its matrices turned, as (in, out)."""
    parts, start = [], 0
    for n, m in ((12, 64), (64, 4)):
        parts.append(x[start : start + n * m].reshape(m, n).T.ravel())
        start += n * m
        parts.append(x[start : start + m])
        start += m
    return np.concatenate(parts)


def test_parameters_and_gradients_are_the_flat_vectors_themselves(problem: Any) -> None:
    mlp = problem("mlp")
    x, g = mlp.initial(), np.empty(mlp.dimension)
    mlp.gradient(x, np.arange(5), g)
    trained = list(mlp._module.parameters())
    start = 0
    for parameter in trained:
        part = slice(start, start + parameter.numel())
        for vector, tensor in ((x, parameter.data), (g, parameter.grad)):
            assert tensor.data_ptr() == vector[part].ctypes.data
        start = part.stop
    assert start == mlp.dimension
    x += 1  # what NumPy writes, torch sees, and the other way round
    assert np.array_equal(trained[0].detach().numpy().ravel(), x[: trained[0].numel()])
    trained[0].grad.fill_(7.0)
    assert np.all(g[: trained[0].numel()] == 7.0)


def test_any_of_several_vectors_may_take_turns(problem: Any) -> None:
    """More of them than views are kept: what is let go is made again."""
    mlp = problem("mlp")
    batch = np.arange(5)
    models = [mlp.initial() + k for k in range(12)]
    expected = []
    for x in models:
        expected.append(np.empty_like(x))
        mlp.gradient(x, batch, expected[-1])
    for _ in range(2):
        for x, right in zip(models, expected, strict=True):
            g = np.full_like(x, np.nan)
            mlp.gradient(x, batch, g)
            assert np.array_equal(g, right)


def test_the_model_may_be_for_reading_only(problem: Any) -> None:
    mlp = problem("mlp")
    x, g = mlp.initial(), np.empty(mlp.dimension)
    loss = mlp.gradient(x, np.arange(5), g)
    fixed = x.copy()
    fixed.setflags(write=False)
    assert mlp.gradient(fixed, np.arange(5), g) == loss


def test_shared_parameters_count_once_and_frozen_ones_not_at_all(problem: Any) -> None:
    tied = problem("tied")
    assert tied.dimension == 12 * 12 + 3
    g = np.full(tied.dimension, np.nan)
    parts: list[slice] = []
    tied.gradient(tied.initial(), np.arange(5), g, ready=parts.append)
    unused = slice(0, 3)  # torch names a module's own parameters before its layers'
    assert np.all(g[unused] == 0)
    assert np.all(np.isfinite(g))
    assert np.any(g[3:] != 0)
    assert parts == [slice(3, 147), unused]


def test_what_is_told_to_be_ready_is_final_and_the_last_layer_comes_first(
    problem: Any,
) -> None:
    mlp = problem("mlp")
    x, g = mlp.initial(), np.full(mlp.dimension, np.nan)
    told: list[tuple[slice, Any]] = []
    mlp.gradient(
        x, np.arange(9), g, ready=lambda part: told.append((part, g[part].copy()))
    )
    assert sum(part.stop - part.start for part, _ in told) == mlp.dimension
    assert all(np.array_equal(values, g[part]) for part, values in told)
    ends = [mlp.dimension, *(part.start for part, _ in told)]
    assert ends == [*(part.stop for part, _ in told), 0], "from the end to the start"
    assert told[0][0].start >= mlp.dimension - (64 * 4 + 4), "the last layer at first"
    assert len(told) > 1
    count = len(told)
    again = np.empty_like(g)
    mlp.gradient(x, np.arange(9), again)
    assert np.array_equal(again, g)
    assert len(told) == count, "nobody asked this time"


def test_a_module_that_draws_draws_the_same_for_the_same_batch(problem: Any) -> None:
    dropped = problem("dropped")
    x = dropped.initial()
    first, other, again = (np.empty_like(x) for _ in range(3))
    dropped.gradient(x, np.arange(9), first)
    dropped.gradient(x, np.arange(9)[::-1].copy(), other)
    dropped.gradient(x, np.arange(9), again)
    assert np.array_equal(first, again)
    assert not np.allclose(first, other), "the mean does not know the order otherwise"
    one, two = dropped.evaluate(x), problem("dropped").evaluate(x)
    assert (one.loss, one.accuracy) == (two.loss, two.accuracy)


def test_a_judgment_does_not_depend_on_what_was_trained_before(problem: Any) -> None:
    """Running statistics are estimated anew from the model that is judged."""
    normed, fresh = problem("normed"), problem("normed")
    x = normed.initial() + 0.3
    g = np.empty_like(x)
    for k in range(5):
        normed.gradient(normed.initial() * k, np.arange(20), g)
    used, unused = normed.evaluate(x), fresh.evaluate(x)
    assert (used.loss, used.accuracy) == (unused.loss, unused.accuracy)
    # 60 samples are one chunk, so judging sees the batch that training would see; a
    # chunk's variance is estimated with n - 1 where training divides by n
    whole = normed.gradient(x, np.arange(60), g)
    assert used.loss == pytest.approx(whole, rel=0.05)


@pytest.mark.parametrize("name", ["mlp", "drawn_by_others"])
def test_the_first_model_is_drawn_from_the_seed(problem: Any, name: str) -> None:
    one = problem(name, "float32").initial()
    np.testing.assert_array_equal(one, problem(name, "float32").initial())
    assert not np.array_equal(one, problem(name, "float32", seed=4).initial())


def test_resnet20_has_the_parameters_of_its_paper(problem: Any) -> None:
    """0.27 million (He et al. 2016, table 6), at 32 x 32 x 3 and ten classes:
    convolutions 432 + 3 * 2 * (2304 + 9216 + 36864) less the halved first ones,
    batch norms 2 * (7 * 16 + 6 * 32 + 6 * 64), and the last layer 650."""
    resnet = problem("resnet20", shape=(3, 32, 32), features=3072, classes=10)
    convolutions = 432 + 6 * 2304 + (4608 + 5 * 9216) + (18432 + 5 * 36864)
    assert resnet.dimension == convolutions + 2 * (7 * 16 + 6 * 32 + 6 * 64) + 650
    x = resnet.initial()
    g = np.full_like(x, np.nan)
    # at the start all classes are about equally likely: the loss is near log 10
    assert resnet.gradient(x, np.arange(4), g) == pytest.approx(np.log(10), abs=1)
    assert np.all(np.isfinite(g))


REFUSED = [
    ("fails", {}, "RuntimeError: there is no such layer"),
    ("no_module", {}, "returns a int"),
    ("no_parameters", {}, "no parameters to train"),
    ("complex_ones", {}, "complex64"),
    ("of_two_types", {}, "more than one dtype: torch.float32, torch.float64"),
    ("elsewhere", {}, "has no values yet"),
    ("lazy", {}, "has no values yet"),
    ("no_scores", {}, r"must make scores of shape \(2, 4\)"),
    ("too_few_scores", {}, r"makes shape \(2, 3\) of 2"),
    ("dropped", {"shape": (3, 4)}, r"cannot take samples of shape \(3, 4\)"),
    ("dropped", {"shape": (3, 5)}, "a sample has 12 values"),
    ("nothing_like_it", {}, "has nothing called nothing_like_it"),
    ("number", {}, "has a int called number"),
]


@pytest.mark.parametrize(("name", "more", "why"), REFUSED)
def test_a_module_that_cannot_be_a_problem_is_refused_in_a_sentence(
    problem: Any, name: str, more: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=why) as refused:
        problem(name, **more)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("module", "why"),
    [
        ("resnet", "use one of: mlp, lenet, resnet20"),
        ("nowhere.py:build", "is no file in"),
        ("no_such_package:build", "ModuleNotFoundError"),
        ("math:pi", "has a float called pi"),
    ],
)
def test_a_module_that_cannot_be_found_is_refused_in_a_sentence(
    module: str, why: str
) -> None:
    pytest.importorskip("torch", reason=WHY)
    with pytest.raises(ConfigError, match=why):
        make(torch_spec({**SMALL, "module": module}), seed=0)


def test_a_file_that_fails_is_refused_with_what_it_says(tmp_path: Any) -> None:
    pytest.importorskip("torch", reason=WHY)
    path = tmp_path / "broken.py"
    path.write_text("import torchvision_of_the_future\n")
    with pytest.raises(ConfigError, match="torchvision_of_the_future"):
        make(torch_spec({**SMALL, "module": f"{path}:net"}), seed=0)


def python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert not done.stderr
    return done.stdout


def test_without_torch_one_sentence_names_the_extra() -> None:
    said = python(
        "import sys; sys.modules['torch'] = None\n"
        "from dsgd_bench.errors import ConfigError\n"
        "from dsgd_bench.problems import PROBLEMS\n"
        "try: PROBLEMS['torch']()\n"
        "except ConfigError as error: print(error)\n"
    )
    assert "pip install 'dsgd-bench[torch]'" in said
    assert said.count("\n") == 1


def test_torch_takes_the_threads_that_the_rank_was_given() -> None:
    pytest.importorskip("torch", reason=WHY)
    code = (
        "from dsgd_bench.problems import PROBLEMS; import sys\n"
        "assert 'torch' not in sys.modules\n"
        "PROBLEMS['torch']()\n"
        "print(sys.modules['torch'].get_num_threads())\n"
    )
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    assert python(code, **threads) == "1\n"
