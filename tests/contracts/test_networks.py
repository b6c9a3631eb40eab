"""Networks on pictures: gradients by differences and by PyTorch, judging, crops."""

import tracemalloc
from typing import Any

import numpy as np
import pytest

from dsgd_bench.errors import ConfigError
from dsgd_bench.problems import pictures
from dsgd_bench.problems.lenet import LeNet
from dsgd_bench.problems.resnet20 import ResNet20

NETWORKS = [
    pytest.param(LeNet, {"data": "digits"}, id="lenet"),
    pytest.param(LeNet, {"data": "digits", "pooling": "average"}, id="lenet, average"),
    pytest.param(
        LeNet, {"data": "generated", "samples": 40, "classes": 3}, id="lenet, colors"
    ),
    pytest.param(ResNet20, {"data": "digits"}, id="resnet20"),
]


def disturbed(problem: Any, seed: int = 0, scale: float = 0.05) -> np.ndarray:
    x = problem.initial()
    random = np.random.default_rng(seed)
    x += scale * random.standard_normal(x.size).astype(x.dtype)
    return x


@pytest.mark.parametrize(("build", "settings"), NETWORKS)
def test_the_gradient_is_the_slope_along_random_directions(
    build: Any, settings: dict[str, Any]
) -> None:
    problem = build(dtype="float64", regularization=0.1, **settings)
    x = disturbed(problem)
    batch = np.array([3, 1, 4, 1, 5])
    g, unused = np.empty_like(x), np.empty_like(x)
    problem.gradient(x, batch, g)
    random = np.random.default_rng(1)
    for _ in range(5):
        direction = random.standard_normal(x.size)
        direction /= np.linalg.norm(direction)
        # So short a step that hardly a ReLU switches on the way.
        h = 1e-6
        rise = problem.gradient(x + h * direction, batch, unused)
        rise -= problem.gradient(x - h * direction, batch, unused)
        assert rise / (2 * h) == pytest.approx(g @ direction, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("build", "settings"), NETWORKS)
def test_every_part_of_the_model_moves_the_loss(
    build: Any, settings: dict[str, Any]
) -> None:
    problem = build(dtype="float64", regularization=0.0, **settings)
    x = disturbed(problem)
    batch = np.arange(8)
    g, unused = np.empty_like(x), np.empty_like(x)
    problem.gradient(x, batch, g)
    for unit in problem._first.units:
        part = g[unit.part]
        if not part.size:
            continue
        largest = unit.part.start + int(np.abs(part).argmax())
        step = np.zeros_like(x)
        step[largest] = 1e-6
        rise = problem.gradient(x + step, batch, unused)
        rise -= problem.gradient(x - step, batch, unused)
        assert rise / 2e-6 == pytest.approx(g[largest], rel=1e-3)


def test_resnet20_has_as_many_weights_as_its_paper_says() -> None:
    # He et al., Table 6: 0.27 million. Convolutions 432 + 6 * 2304 + 4608 + 5 * 9216
    # + 18432 + 5 * 36864, scales and shifts 2 * (7 * 16 + 6 * 32 + 6 * 64), 650 at last
    assert ResNet20(samples=2).dimension == 267_696 + 2 * 688 + 650


def test_a_network_uses_the_regularization_it_is_given() -> None:
    plain = LeNet(dtype="float64", regularization=0.0)
    heavy = LeNet(dtype="float64", regularization=0.5)
    x = disturbed(plain)
    g, h = np.empty_like(x), np.empty_like(x)
    loss = plain.gradient(x, np.arange(6), g)
    assert heavy.gradient(x, np.arange(6), h) == pytest.approx(loss + 0.25 * x @ x)
    np.testing.assert_allclose(h, g + 0.5 * x, rtol=1e-12)


def test_statistics_are_those_of_training_data_when_a_model_is_judged() -> None:
    """One batch of everything: judging must then find the loss of that batch."""
    problem = ResNet20(samples=30, dtype="float64")
    x = disturbed(problem, scale=0.01)
    loss = problem.gradient(x, np.arange(30), np.empty_like(x))
    assert problem.evaluate(x).loss == pytest.approx(loss, rel=1e-10)


def test_judging_does_not_depend_on_the_last_gradient() -> None:
    problem = ResNet20(samples=20, dtype="float64")
    x = disturbed(problem, scale=0.01)
    before = problem.evaluate(x)
    problem.gradient(2 * x, np.arange(5), np.empty_like(x))
    assert problem.evaluate(x) == before


def test_generated_pictures_can_be_learned() -> None:
    problem = LeNet(data="generated", samples=512, classes=4, augmentation=True)
    x = problem.initial()
    g = np.empty_like(x)
    random = np.random.default_rng(0)
    first = problem.evaluate(x)
    for _ in range(60):
        problem.gradient(x, random.integers(512, size=64), g)
        x -= 0.02 * g
    last = problem.evaluate(x)
    assert last.loss < 0.8 * first.loss


def test_crops_are_a_function_of_seed_and_batch() -> None:
    batch = np.array([4, 2, 9])
    draws = [np.zeros((3, 3), np.int64) for _ in range(4)]
    pictures.draw_moves(1, batch, draws[0])
    pictures.draw_moves(1, batch, draws[1])
    pictures.draw_moves(2, batch, draws[2])
    pictures.draw_moves(1, batch[::-1], draws[3])
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()
    assert (draws[0] != draws[3]).any()
    many = np.zeros((3, 4000), np.int64)
    pictures.draw_moves(1, np.arange(4000), many)
    assert set(many[0]) == set(many[1]) == set(range(-4, 5))
    assert set(many[2]) == {0, 1}


def test_a_moved_picture_is_a_window_on_the_padded_one() -> None:
    random = np.random.default_rng(0)
    rows = random.random((2, 3 * 6 * 5))
    maps = np.full((3, 2, 6, 5), np.nan)
    moved = np.array([[2, -4], [-1, 3], [0, 1]])
    pictures.place(rows, maps, moved)
    images = rows.reshape(2, 3, 6, 5)
    for k, (dy, dx, mirrored) in enumerate(moved.T):
        image = images[k, :, :, ::-1] if mirrored else images[k]
        padded = np.pad(image, [(0, 0), (4, 4), (4, 4)])
        window = padded[:, 4 - dy : 10 - dy, 4 - dx : 9 - dx]
        np.testing.assert_array_equal(maps[:, k], window)


@pytest.mark.parametrize(
    ("build", "settings", "said"),
    [
        (LeNet, {"pooling": "least"}, "pooling.*max, average"),
        (LeNet, {"data": "imagenet"}, "data.*digits, generated, mnist"),
        (LeNet, {"samples": 5}, "data = 'generated'"),
        (ResNet20, {"classes": 1}, "classes.*at least 2"),
        (ResNet20, {"regularization": -1.0}, "regularization"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    build: Any, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        build(**settings)


@pytest.mark.parametrize("build", [LeNet, ResNet20])
def test_a_gradient_allocates_nothing_of_the_size_of_model_or_batch(build: Any) -> None:
    problem = build(data="generated", samples=40)
    x = problem.initial()
    g = np.zeros_like(x)
    batch = np.arange(32)  # 390 kB of pictures, and models of 550 and 1090 kB
    # NumPy converts types through buffers of 8192 elements, whatever the sizes.
    problem.gradient(x, batch, g)
    tracemalloc.start()
    for _ in range(3):
        problem.gradient(x, batch, g)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150_000


@pytest.mark.parametrize(("build", "settings"), NETWORKS)
def test_parts_are_ready_from_the_end_to_the_start(
    build: Any, settings: dict[str, Any]
) -> None:
    problem = build(dtype="float64", regularization=0.1, **settings)
    x = disturbed(problem)
    whole, g = np.empty_like(x), np.full_like(x, np.nan)
    loss = problem.gradient(x, np.arange(8), whole)
    parts: list[slice] = []

    def ready(part: slice) -> None:
        np.testing.assert_array_equal(g[part], whole[part])
        parts.append(part)

    assert problem.gradient(x, np.arange(8), g, ready) == loss
    assert len(parts) > 4
    ends = [problem.dimension, *(part.start for part in parts)]
    assert [part.stop for part in parts] == ends[:-1]
    assert ends[-1] == 0
