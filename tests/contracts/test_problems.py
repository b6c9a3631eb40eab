"""Promises of every problem: gradients, memory, judgment, divergence, refusals."""

import subprocess
import sys
import tracemalloc
from dataclasses import dataclass, field
from typing import Any, cast, get_args, get_origin

import numpy as np
import pytest

from dsgd_bench.errors import ConfigError
from dsgd_bench.problems import PROBLEMS, data, make, settings
from dsgd_bench.problems.logistic import Logistic
from dsgd_bench.problems.message import Message
from dsgd_bench.problems.mlp import CHUNK, MLP
from dsgd_bench.problems.quadratic import Quadratic
from dsgd_bench.problems.softmax import Softmax
from dsgd_bench.spec.trial import ProblemSpec

SMALL = {"data": "generated", "samples": 60, "features": 7, "classes": 4}

TWO_CLASSES = {"data": "generated", "samples": 60, "features": 7}

SIZES: dict[str, dict[str, Any]] = {
    "logistic": TWO_CLASSES,
    "softmax": SMALL,
    "mlp": SMALL,
    "lenet": {"data": "digits"},
    "resnet20": {"samples": 12, "classes": 3},
    "quadratic": {"dimension": 9, "samples": 60},
    "message": {"dimension": 9, "samples": 60},
    "torch": SMALL,
}
"""Kind -> settings of a small problem."""


@dataclass(frozen=True)
class Spec:
    kind: str
    dtype: str = "float32"
    settings: dict[str, Any] = field(default_factory=dict)


def small(kind: str, dtype: Any = "float64", **more: Any) -> Any:
    if kind == "torch":
        pytest.importorskip("torch", reason="PyTorch is an extra, and not installed")
    return make(
        ProblemSpec(kind, dtype=dtype, settings={**SIZES[kind], **more}), seed=3
    )


DIFFERENTIABLE = [
    pytest.param("logistic", {"regularization": 0.0}, id="logistic"),
    pytest.param("logistic", {"regularization": 0.5}, id="logistic, regularized"),
    pytest.param("softmax", {}, id="softmax"),
    pytest.param("softmax", {"regularization": 0.5}, id="softmax, regularized"),
    pytest.param("mlp", {"hidden": (8,), "regularization": 0.1}, id="mlp, one layer"),
    pytest.param("mlp", {"hidden": (6, 5)}, id="mlp, two layers"),
    pytest.param("quadratic", {"conditioning": 20.0}, id="quadratic"),
]


@pytest.mark.parametrize(("kind", "more"), DIFFERENTIABLE)
def test_the_gradient_is_the_slope_of_the_loss(kind: str, more: dict[str, Any]) -> None:
    problem = small(kind, **more)
    random = np.random.default_rng(0)
    x = problem.initial() + 0.3 * random.standard_normal(problem.dimension)
    batch = random.integers(problem.samples, size=12)
    g = np.full_like(x, np.nan)
    unused = np.empty_like(x)
    problem.gradient(x, batch, g)
    h = 1e-5
    slope = np.empty_like(x)
    for d in range(problem.dimension):
        forward, backward = x.copy(), x.copy()
        forward[d] += h
        backward[d] -= h
        rise = problem.gradient(forward, batch, unused)
        rise -= problem.gradient(backward, batch, unused)
        slope[d] = rise / (2 * h)
    assert np.linalg.norm(g - slope) < 1e-6 * np.linalg.norm(slope)
    assert np.linalg.norm(slope) > 1e-3


@pytest.mark.parametrize(("kind", "more"), DIFFERENTIABLE)
def test_the_gradient_of_a_batch_is_the_mean_over_its_parts(
    kind: str, more: dict[str, Any]
) -> None:
    problem = small(kind, **more)
    x = problem.initial() + 0.1
    whole, part = np.empty_like(x), np.empty_like(x)
    loss = problem.gradient(x, np.arange(40), whole)
    losses, parts = [], np.zeros_like(x)
    for start in range(0, 40, 10):
        losses.append(problem.gradient(x, np.arange(start, start + 10), part))
        parts += part / 4
    np.testing.assert_allclose(whole, parts, rtol=0, atol=1e-13)
    assert loss == pytest.approx(np.mean(losses), rel=1e-13)


@pytest.mark.parametrize(("kind", "more"), DIFFERENTIABLE)
def test_judging_and_the_gradient_over_all_samples_report_the_same_loss(
    kind: str, more: dict[str, Any]
) -> None:
    problem = small(kind, **more)
    x = problem.initial() + 0.1
    loss = problem.gradient(x, np.arange(problem.samples), np.empty_like(x))
    assert problem.evaluate(x).loss == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_first_model_is_the_same_on_every_rank_and_new_every_time(
    kind: str, dtype: str
) -> None:
    one, other = small(kind, dtype), small(kind, dtype)
    x, y = one.initial(), other.initial()
    assert x.shape == (one.dimension,)
    assert x.dtype == one.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(x, y)
    x += 1
    np.testing.assert_array_equal(one.initial(), y)


def test_the_seed_moves_the_first_model_of_a_network_but_not_the_digits() -> None:
    one, other = MLP(hidden=(5,), seed=0), MLP(hidden=(5,), seed=1)
    assert not np.array_equal(one.initial(), other.initial())
    x, g, h = one.initial(), other.initial(), other.initial()
    batch = np.arange(20)
    assert one.gradient(x, batch, g) == other.gradient(x, batch, h)
    np.testing.assert_array_equal(g, h)


@pytest.mark.parametrize("kind", PROBLEMS)
def test_neither_the_model_nor_the_batch_is_changed(kind: str) -> None:
    problem = small(kind)
    x = problem.initial() + 0.2
    batch = np.arange(5)
    x.setflags(write=False)
    batch.setflags(write=False)
    before = problem.evaluate(x)
    problem.gradient(x, batch, np.zeros_like(x))
    after = problem.evaluate(x)
    np.testing.assert_equal(
        (after.loss, after.accuracy), (before.loss, before.accuracy)
    )


LARGE = [
    pytest.param(
        lambda: Logistic(data="generated", samples=32, features=400_000),
        id="logistic",
    ),
    pytest.param(
        lambda: Softmax(data="generated", samples=200, features=5000, classes=100),
        id="softmax",
    ),
    pytest.param(
        lambda: MLP(data="generated", samples=200, features=2000, hidden=(200, 300)),
        id="mlp",
    ),
    pytest.param(lambda: Quadratic(dimension=400_000, samples=10), id="quadratic"),
    pytest.param(lambda: Message(dimension=400_000), id="message"),
]


@pytest.mark.parametrize("build", LARGE)
def test_a_gradient_allocates_nothing_of_the_size_of_model_or_batch(build: Any) -> None:
    problem = build()
    x = problem.initial()
    g = np.zeros_like(x)
    # A batch of 32 inputs takes at least 250 kB here, a model at least 1.6 MB.
    batch = np.arange(32) % min(problem.samples, 200)
    problem.gradient(x, batch, g)
    tracemalloc.start()
    for _ in range(10):
        problem.gradient(x, batch, g)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert x.nbytes >= 1_600_000
    assert peak < 50_000


def test_a_quadratic_is_lowest_at_its_solution() -> None:
    problem = small("quadratic", spread=2.0)
    solution = problem.solution()
    g = np.empty_like(solution)
    loss = problem.gradient(solution, np.arange(problem.samples), g)
    assert np.abs(g).max() < 1e-14
    assert loss == pytest.approx(problem.optimum, rel=1e-13)
    assert problem.evaluate(solution).loss == problem.optimum
    assert problem.evaluate(solution + 0.1).loss > problem.optimum


def test_a_quadratic_without_spread_has_no_gradient_noise_and_optimum_zero() -> None:
    problem = small("quadratic", spread=0.0)
    x = problem.initial()
    g, h = np.empty_like(x), np.empty_like(x)
    problem.gradient(x, np.array([0, 1]), g)
    problem.gradient(x, np.array([7]), h)
    np.testing.assert_allclose(g, h, rtol=1e-14)
    assert problem.optimum == pytest.approx(0.0, abs=1e-25)


def test_the_curvatures_of_a_quadratic_span_its_conditioning() -> None:
    problem = small("quadratic", conditioning=50.0)
    m = problem.solution()
    g = np.empty_like(m)
    problem.gradient(m + 1.0, np.arange(problem.samples), g)
    assert g.max() == pytest.approx(1.0)
    assert g.max() / g.min() == pytest.approx(50.0)


def test_softmax_is_judged_by_its_formula() -> None:
    problem = Softmax(dtype="float64", regularization=0.01)
    known = data.digits(np.dtype(np.float64))
    x = 0.1 * np.random.default_rng(1).standard_normal(problem.dimension)
    W, b = x[:640].reshape(64, 10), x[640:]
    scores = known.inputs @ W + b
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    loss = -log_p[np.arange(len(scores)), known.labels].mean() + 0.005 * x @ x
    guesses = (known.held_inputs @ W + b).argmax(axis=1)
    judgment = problem.evaluate(x)
    assert judgment.loss == pytest.approx(loss, rel=1e-12)
    assert judgment.accuracy == (guesses == known.held_labels).mean()


def test_a_model_that_knows_nothing_loses_the_logarithm_of_the_classes() -> None:
    problem = Softmax()
    assert problem.evaluate(problem.initial()).loss == pytest.approx(np.log(10))


def test_judging_in_chunks_counts_every_sample_once() -> None:
    samples = 2 * CHUNK + 100
    problem = MLP(
        data="generated", samples=samples, features=3, hidden=(4,), dtype="float64"
    )
    x = problem.initial()
    loss = problem.gradient(x, np.arange(samples), np.empty_like(x))
    assert problem.evaluate(x).loss == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize(
    ("build", "lr", "steps", "accuracy"),
    # even against odd digits: a linear model gets about nine tenths right
    [(Softmax, 0.5, 200, 0.9), (MLP, 0.3, 200, 0.9), (Logistic, 0.5, 400, 0.85)],
)
def test_gradient_descent_learns_the_digits(
    build: Any, lr: float, steps: int, accuracy: float
) -> None:
    problem = build()
    x = problem.initial()
    g = np.empty_like(x)
    everything = np.arange(problem.samples)
    for _ in range(steps):
        problem.gradient(x, everything, g)
        x -= lr * g
    assert problem.evaluate(x).accuracy > accuracy


def test_generated_data_can_be_learned_but_not_perfectly() -> None:
    problem = Softmax(data="generated", samples=2000, features=50)
    x = problem.initial()
    g = np.empty_like(x)
    for _ in range(100):
        problem.gradient(x, np.arange(2000), g)
        x -= 0.5 * g
    assert 0.7 < problem.evaluate(x).accuracy < 1.0


def test_huge_scores_neither_overflow_nor_lose_the_answer() -> None:
    problem = Softmax(regularization=0.0)
    x = np.full(problem.dimension, 3e4, np.float32)
    g = np.empty_like(x)
    # All scores are equal, however large: the loss is that of knowing nothing.
    assert problem.gradient(x, np.arange(32), g) == pytest.approx(np.log(10), rel=1e-3)
    assert np.isfinite(g).all()


@pytest.mark.parametrize("kind", ["logistic", "softmax", "mlp", "quadratic"])
@pytest.mark.parametrize("value", [3e38, -np.inf, np.nan])
def test_a_diverged_model_has_no_finite_loss_and_raises_no_warning(
    kind: str, value: float
) -> None:
    problem = small(kind, "float32")
    x = np.full(problem.dimension, value, np.float32)
    with np.errstate(all="raise"):
        loss = problem.gradient(x, np.arange(10), np.empty_like(x))
        judgment = problem.evaluate(x)
    assert not np.isfinite(loss)
    if kind != "quadratic" or value != 3e38:  # judged in double precision: still finite
        assert not np.isfinite(judgment.loss)


def test_a_message_has_a_gradient_of_zero_that_nobody_writes() -> None:
    problem = Message(dimension=10)
    g = np.zeros(10, np.float32)
    assert problem.gradient(problem.initial(), np.arange(4), g) == 0.0
    assert not g.any()
    judgment = problem.evaluate(problem.initial())
    assert judgment.loss == 0.0
    assert np.isnan(judgment.accuracy)


def test_digits_are_split_without_overlap_and_scaled() -> None:
    known = data.digits(np.dtype(np.float32))
    assert known.inputs.shape == (1536, 64)
    assert known.held_inputs.shape == (261, 64)
    assert (known.inputs.min(), known.inputs.max()) == (0.0, 1.0)
    counts = np.bincount(np.concatenate([known.labels, known.held_labels]))
    # The class counts that the data set's own description states.
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_are_read_without_importing_scikit_learn() -> None:
    script = (
        "import sys; from dsgd_bench.problems.softmax import Softmax; Softmax();"
        "from dsgd_bench.problems.logistic import Logistic; Logistic();"
        "sys.exit('sklearn' in sys.modules or 'mpi4py' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_missing_scikit_learn_is_said_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    data._digits_table.cache_clear()
    with pytest.raises(ConfigError, match="scikit-learn is not installed"):
        Softmax()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            ProblemSpec("sofmax"),
            r"logistic, softmax, mlp, lenet, .*, torch \(did you mean 'softmax'",
        ),
        (ProblemSpec("mlp", settings={"hiden": 3}), "'hiden'.*did you mean 'hidden'"),
        (ProblemSpec("softmax", settings={"seed": 3}), "no setting 'seed'"),
        (ProblemSpec("softmax", dtype=cast(Any, "float16")), "float32, float64"),
        (ProblemSpec("softmax", settings={"data": "digit"}), "digits, generated"),
        (ProblemSpec("logistic", settings={"regularization": -1.0}), "regularization"),
        (ProblemSpec("logistic", settings={"classes": 2}), "no setting 'classes'"),
        (ProblemSpec("softmax", settings={"samples": 7}), "data = 'generated'"),
        (
            ProblemSpec("softmax", settings={**SMALL, "classes": 1}),
            "classes.*at least 2",
        ),
        (ProblemSpec("mlp", settings={"hidden": [4, 0]}), "hidden.*at least 1"),
        (ProblemSpec("mlp", settings={"regularization": -1.0}), "regularization"),
        (ProblemSpec("quadratic", settings={"conditioning": 0.5}), "conditioning"),
        (ProblemSpec("message", settings={"dimension": 0}), "dimension"),
    ],
)
def test_what_cannot_be_is_refused_by_name(spec: ProblemSpec, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make(spec, seed=0)


def test_settings_are_read_from_the_constructor() -> None:
    defaults = {name: default for name, (_, default) in settings("message").items()}
    assert defaults == {"dimension": 1_000_000, "samples": 65536}
    kind, default = settings("mlp")["hidden"]
    assert (get_origin(get_args(kind)[0]), default) == (tuple, (64,))
