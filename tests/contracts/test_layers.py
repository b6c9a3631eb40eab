"""Every layer of a network: its gradient is the slope of what it computes."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest

from dsgd_bench.arrays import HOST
from dsgd_bench.problems.layers import (
    Builder,
    Convolution,
    Dense,
    Flattening,
    GlobalAverage,
    Maps,
    Normalization,
    Pooling,
    Shape,
    Shortcut,
    StridedConvolution,
    Unit,
)

STEP = 1e-6
SLOPE = 1e-7
"""Central differences of step 1e-6 in double precision: 1e-12 of curvature and 1e-10 of
rounding, over values of order 1."""


class Bench:
    """A layer between memory that a test fills, reads and disturbs.

    A random linear function of the layer's output stands for all that follows.
    """

    def __init__(self, seed: int = 0, count: int = 3) -> None:
        self.random = np.random.default_rng(seed)
        self.build = Builder(count, HOST, np.dtype(np.float64))

    def maps(self, channels: int, height: int, width: int, pad: int = 1) -> Maps:
        return self.build.maps(Shape(channels, height, width, pad))

    def fill(self, maps: Maps) -> None:
        maps.pixels[...] = self.random.standard_normal(maps.pixels.shape)


def slopes(value: Callable[[], float], array: np.ndarray) -> np.ndarray:
    """Return the derivative of `value` by every element of a view, by differences."""
    result = np.empty(array.shape)
    for place in np.ndindex(array.shape):
        kept = array[place]
        array[place] = kept + STEP
        rise = value()
        array[place] = kept - STEP
        result[place] = (rise - value()) / (2 * STEP)
        array[place] = kept
    return result


def check(
    unit: Unit,
    x: np.ndarray,
    source: np.ndarray,
    output: np.ndarray,
    *,
    lend: Callable[[np.ndarray], None],
    back: np.ndarray | None,
    restore: Callable[[], None] = lambda: None,
) -> None:
    """Compare what `backward` computes with differences of what `forward` does.

    Parameters
    ----------
    source, output : arrays
        Views of what the layer reads and writes, without edges.
    lend : callable
        Puts the gradient of the output where the layer takes it from.
    back : array, optional
        Where the layer leaves the gradient of `source`.
    restore : callable
        Brings back what `forward` uses up.
    """
    slope = np.random.default_rng(9).standard_normal(output.shape)

    def value() -> float:
        restore()
        unit.forward(x)
        return float(np.sum(slope * output))

    by_weights, by_source = slopes(value, x), slopes(value, source)
    value()
    lend(slope)
    g = np.full_like(x, np.nan)
    unit.backward(x, g)
    np.testing.assert_allclose(g, by_weights, rtol=0, atol=SLOPE)
    if back is not None:
        np.testing.assert_allclose(back, by_source, rtol=0, atol=SLOPE)


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 5), (1, 1)])
@pytest.mark.parametrize("adds", [False, True])
def test_a_convolution(size: int, height: int, width: int, adds: bool) -> None:
    bench = Bench()
    source, target, back = (bench.maps(c, height, width, 2) for c in (2, 3, 2))
    part = bench.build.part(3 * size**2 * 2)
    room = bench.build.room
    unit = Convolution(source, target, part, room, size=size, back=back, adds=adds)
    bench.fill(source)
    x = bench.random.standard_normal(part.stop)

    def lend(slope: np.ndarray) -> None:
        target.flat[...] = 0
        target.pixels[...] = slope
        back.flat[...] = 1.0

    if adds:
        before = lend

        def lend(slope: np.ndarray) -> None:
            before(slope)
            back.pixels[...] = 0.0

    check(unit, x, source.pixels, target.pixels, lend=lend, back=back.pixels)


def test_a_convolution_adds_to_what_is_there() -> None:
    bench = Bench()
    source, target, back = (bench.maps(2, 3, 3) for _ in range(3))
    units = [
        Convolution(
            source, target, slice(0, 36), bench.build.room, back=back, adds=adds
        )
        for adds in (False, True)
    ]
    bench.fill(source)
    x, g = bench.random.standard_normal(36), np.empty(36)
    bench.fill(target)
    units[0].backward(x, g)
    alone = back.pixels.copy()
    back.flat[...] = 5.0
    units[1].backward(x, g)
    np.testing.assert_allclose(back.pixels, alone + 5.0, rtol=1e-14)


def test_a_convolution_that_nobody_wants_an_input_gradient_of() -> None:
    bench = Bench()
    source, target = bench.maps(2, 3, 4), bench.maps(3, 3, 4)
    unit = Convolution(source, target, slice(0, 54), bench.build.room)
    bench.fill(source)
    x = bench.random.standard_normal(54)

    def lend(slope: np.ndarray) -> None:
        target.flat[...] = 0
        target.pixels[...] = slope

    check(unit, x, source.pixels, target.pixels, lend=lend, back=None)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 3)])
def test_a_convolution_of_every_second_pixel(
    size: int, height: int, width: int
) -> None:
    bench = Bench()
    source, back = bench.maps(2, height, width, 2), bench.maps(2, height, width, 2)
    target = bench.maps(3, -(-height // 2), -(-width // 2), 1)
    part, room = bench.build.part(3 * size**2 * 2), bench.build.room
    unit = StridedConvolution(
        source, target, part, room, stride=2, size=size, back=back
    )
    bench.fill(source)
    x = bench.random.standard_normal(part.stop)

    def lend(slope: np.ndarray) -> None:
        target.pixels[...] = slope
        back.flat[...] = 0

    check(unit, x, source.pixels, target.pixels, lend=lend, back=back.pixels)


def test_a_convolution_is_the_sum_of_its_formula() -> None:
    bench = Bench()
    source, target = bench.maps(2, 4, 5), bench.maps(3, 4, 5)
    unit = Convolution(source, target, slice(0, 54), bench.build.room)
    bench.fill(source)
    x = bench.random.standard_normal(54)
    unit.forward(x)
    W = x.reshape(3, 3, 3, 2)
    expected = np.zeros_like(target.pixels)
    for o, c, n, y, z, dy, dx in np.ndindex(3, 2, 3, 4, 5, 3, 3):
        from_y, from_x = y + dy - 1, z + dx - 1
        if 0 <= from_y < 4 and 0 <= from_x < 5:
            expected[o, n, y, z] += (
                W[o, dy, dx, c] * source.pixels[c, n, from_y, from_x]
            )
    np.testing.assert_allclose(target.pixels, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shortcut", ["none", "identity", "half the size"])
def test_batch_normalization(shortcut: str) -> None:
    bench = Bench(seed=3)
    values, out, error = (bench.maps(4, 2, 3) for _ in range(3))
    before, back = error, error
    way = None
    if shortcut == "identity":
        before = bench.maps(4, 2, 3)
        way = Shortcut(before, error)
    elif shortcut == "half the size":
        before, back = bench.maps(3, 4, 5), bench.maps(3, 4, 5)
        way = Shortcut(before, back, 2)
    unit = Normalization(values, out, error, slice(0, 8), way)
    given = bench.maps(4, 2, 3)
    bench.fill(given)
    bench.fill(before)
    x = bench.random.standard_normal(8)

    def restore() -> None:
        values.flat[...] = 77.0  # a convolution leaves anything at the edges
        values.pixels[...] = given.pixels

    def lend(slope: np.ndarray) -> None:
        error.flat[...] = 77.0
        error.pixels[...] = slope

    check(
        unit,
        x,
        given.pixels,
        out.pixels,
        lend=lend,
        back=values.pixels,
        restore=restore,
    )
    edges = values.flat.sum() - values.pixels.sum()
    assert edges == pytest.approx(0.0, abs=1e-12)
    if way is None:
        return
    found = back.pixels.copy()

    def value() -> float:
        restore()
        unit.forward(x)
        return float(np.sum(slope * out.pixels))

    slope = np.random.default_rng(9).standard_normal(out.pixels.shape)
    expected = slopes(value, before.pixels)
    np.testing.assert_allclose(found, expected, rtol=0, atol=SLOPE)


def test_statistics_are_exact_far_from_zero() -> None:
    """The variance is that around the mean, not a difference of large squares."""
    builder = Builder(8, HOST, np.dtype(np.float32))
    values, out, error = (builder.maps(Shape(2, 16, 16)) for _ in range(3))
    unit = Normalization(values, out, error, slice(0, 4))
    random = np.random.default_rng(0)
    given = (1000 + random.standard_normal(values.pixels.shape)).astype(np.float32)
    values.pixels[...] = given
    unit.forward(np.array([1, 1, 0, 0], np.float32))
    exact = given.astype(np.float64)
    np.testing.assert_allclose(unit.mean, exact.mean(axis=(1, 2, 3)), rtol=1e-6)
    # rounding of values near 1000 in single precision: 3e-5 of the deviation
    np.testing.assert_allclose(unit.variance, exact.var(axis=(1, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("kind", ["max", "average"])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 3)])
def test_pooling(kind: Literal["max", "average"], height: int, width: int) -> None:
    bench = Bench()
    values = bench.maps(2, height, width)
    out, error = (bench.maps(2, height // 2, width // 2) for _ in range(2))
    unit = Pooling(values, out, error, slice(0, 2), bench.build.room, kind=kind)
    given = bench.maps(2, height, width)
    bench.fill(given)
    x = bench.random.standard_normal(2)

    def restore() -> None:
        values.flat[...] = 77.0
        values.pixels[...] = given.pixels

    def lend(slope: np.ndarray) -> None:
        error.pixels[...] = slope

    check(
        unit,
        x,
        given.pixels,
        out.pixels,
        lend=lend,
        back=values.pixels,
        restore=restore,
    )
    edges = values.flat.sum() - values.pixels.sum()
    assert edges == pytest.approx(0.0, abs=1e-12)


def test_of_equal_pixels_the_first_takes_the_gradient() -> None:
    bench = Bench(count=1)
    values, out, error = bench.maps(1, 2, 2), bench.maps(1, 1, 1), bench.maps(1, 1, 1)
    unit = Pooling(values, out, error, slice(0, 1), bench.build.room)
    values.pixels[...] = 2.0
    error.pixels[...] = 3.0
    unit.forward(np.ones(1))
    g = np.empty(1)
    unit.backward(np.ones(1), g)
    assert values.pixels.ravel().tolist() == [3, 0, 0, 0]
    assert g.item() == 3


@pytest.mark.parametrize("relu", [False, True])
def test_a_fully_connected_layer(relu: bool) -> None:
    bench = Bench()
    rows, out, error, back = (bench.build.rows(width) for width in (4, 5, 5, 4))
    unit = Dense(rows, out, slice(0, 25), error=error, back=back, relu=relu)
    rows[...] = bench.random.standard_normal(rows.shape)
    x = bench.random.standard_normal(25)

    def lend(slope: np.ndarray) -> None:
        error[...] = slope

    check(unit, x, rows, out, lend=lend, back=back)


@pytest.mark.parametrize("layer", [Flattening, GlobalAverage])
def test_maps_become_rows(layer: type[Flattening] | type[GlobalAverage]) -> None:
    bench = Bench()
    values, error = bench.maps(2, 3, 4), bench.maps(2, 3, 4)
    width = 24 if layer is Flattening else 2
    rows, row_errors = bench.build.rows(width), bench.build.rows(width)
    unit = layer(values, error, rows, row_errors)
    bench.fill(values)

    def lend(slope: np.ndarray) -> None:
        row_errors[...] = slope

    x = np.empty(0)
    check(unit, x, values.pixels, rows, lend=lend, back=error.pixels)


def test_a_model_has_no_gaps_between_its_layers() -> None:
    builder = Builder(1, HOST, np.dtype(np.float32))
    parts = [builder.part(size) for size in (3, 0, 5)]
    assert [(part.start, part.stop) for part in parts] == [(0, 3), (3, 3), (3, 8)]
    assert builder.dimension == 8
