"""Every kernel against NumPy: odd sizes, slices, no number, no element."""

from functools import partial

import numpy as np
import pytest

from dsgd_bench import arrays
from dsgd_bench.arrays import Rule, Scratch, layers, updates
from dsgd_bench.arrays.updates import Pair

TYPES = ("float32", "float64")

SIZES = (0, 1, 2, 3, 5, 33, 1000, 5003)

MARGIN = 8
"""Elements around each array that must stay as they are."""

HEAVY = Rule(0.3, 0.9, 0.01)
NESTEROV = Rule(0.3, 0.9, 0.01, nesterov=True)
PLAIN = Rule(0.3, 0.9)


def with_scratch(function, *words):
    """Return `function` on vectors, scratch for them being its last argument."""

    def operate(*vectors):
        kept = function.__annotations__["scratch"]
        made = Scratch(vectors[0]) if kept is Scratch else Pair.like(vectors[0])
        function(*vectors, *words, scratch=made)

    return operate


OPERATIONS = {
    "axpy": (2, lambda x, y: arrays.axpy(0.3, x, y, Scratch(y))),
    "average": (2, arrays.average),
    "average_both": (2, updates.average_both),
    "descend": (2, with_scratch(updates.descend, 0.3, 0.0)),
    "descend, decay": (2, with_scratch(updates.descend, 0.3, 0.1)),
    "update, plain": (3, with_scratch(updates.update, PLAIN)),
    "update, heavy ball": (3, with_scratch(updates.update, HEAVY)),
    "update, Nesterov": (3, with_scratch(updates.update, NESTEROV)),
    "accumulate": (2, lambda x, y: updates.accumulate(-0.3, x, y, Scratch(y))),
    "compensate": (3, with_scratch(updates.compensate, 0.4)),
    "compensate_adaptively": (
        4,
        lambda g, x, before, mean_square: updates.compensate_adaptively(
            g,
            x,
            before,
            np.abs(mean_square, out=mean_square),
            (0.4, 0.95),
            Pair.like(g),
        ),
    ),
}
"""Name: number of vectors, and the operation on them."""


def compare(place, operate, inputs, *, offsets=(), rtol=0.0):
    """Do the same to copies of arrays here and at a place; compare them all after it.

    Each array lies `offset` elements after a multiple of 16 bytes, between margins.
    """
    offsets = offsets or (0,) * len(inputs)
    here, frames, views = [], [], []
    for x, offset in zip(inputs, offsets, strict=True):
        start = MARGIN + offset
        frame = np.full(x.size + 2 * MARGIN + offset, 42, x.dtype)
        frame[start : start + x.size] = x.ravel()
        frames.append(place.put(frame))
        views.append(frames[-1][start : start + x.size].reshape(x.shape))
        here.append(x.copy())
    operate(*here)
    place.run(operate, *views)
    for expected, frame, offset in zip(here, frames, offsets, strict=True):
        found, start = place.get(frame), MARGIN + offset
        end = start + expected.size
        assert (found[:start] == 42).all()
        assert (found[end:] == 42).all()
        scale = np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))
        np.testing.assert_allclose(
            found[start:end].reshape(expected.shape),
            expected,
            rtol=0,
            atol=rtol * float(scale),
        )


@pytest.fixture
def random():
    return np.random.default_rng(7)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_kernel_rounds_exactly_as_numpy_does(place, random, name, size, dtype):
    number, operate = OPERATIONS[name]
    inputs = [random.standard_normal(size).astype(dtype) for _ in range(number)]
    compare(place, operate, inputs)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shift", [(1, 1, 1, 1), (3, 3, 3, 3), (0, 1, 0, 1)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_slice_may_begin_anywhere(place, random, name, shift, dtype):
    number, operate = OPERATIONS[name]
    for size in (1, 2, 77):
        inputs = [random.standard_normal(size).astype(dtype) for _ in range(number)]
        compare(place, operate, inputs, offsets=shift[:number])


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.filterwarnings("ignore:(invalid value|overflow)")
def test_what_is_no_number_stays_none(place, name):
    number, operate = OPERATIONS[name]
    x = np.array([np.nan, np.inf, -np.inf, 0.0, 1.0], np.float32)
    compare(place, operate, [np.roll(x, k) for k in range(number)])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", SIZES)
def test_debiasing_divides_by_a_weight_in_the_same_memory(place, random, size, dtype):
    packet = random.random(size + 1).astype(dtype)

    def operate(packet, z):
        updates.debias(packet[:-1], packet[-1:], z)

    compare(place, operate, [packet, np.empty(size, dtype)])


# --- layers

SHAPES = ((1, 1), (3, 5), (64, 10), (37, 64), (5, 129), (300, 3), (3000, 16))
"""Rows and columns; the last one is summed in parts."""


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("operate", [layers.add_bias, layers.bias_relu])
def test_a_bias_is_added_to_every_row(place, random, operate, shape, dtype):
    h = random.standard_normal(shape).astype(dtype)
    b = random.standard_normal(shape[1]).astype(dtype)
    for offset in (0, 1):
        compare(place, operate, [h, b], offsets=(offset, 1))


@pytest.mark.filterwarnings("ignore:(invalid value|overflow)")
def test_rectifying_keeps_what_is_no_number(place):
    h = np.array([[np.nan, -np.inf, np.inf, -1.0, 0.0]], np.float32)
    compare(place, layers.bias_relu, [h, np.zeros(5, np.float32)])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_of_a_bias_is_a_sum_over_rows(place, random, shape, dtype):
    error = random.standard_normal(shape).astype(dtype)
    db = np.empty(shape[1], dtype)
    # rounding of a sum of so many terms, in whichever order
    rtol = 4 * np.sqrt(shape[0]) * np.finfo(dtype).eps
    compare(place, layers.bias_backward, [error, db], rtol=rtol)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_errors_flow_back_where_the_layer_put_something_out(
    place, random, shape, dtype
):
    error, h = random.standard_normal((2, *shape)).astype(dtype)
    np.maximum(h, 0, out=h)
    db = np.empty(shape[1], dtype)

    def operate(error, h, db):
        kept = h.copy()
        layers.bias_relu_backward(error, h, db)
        h[...] = kept  # used up, in whichever way

    rtol = 4 * np.sqrt(shape[0]) * np.finfo(dtype).eps  # as above
    compare(place, operate, [error, h, db], rtol=rtol)


def test_a_sum_in_parts_repeats_bit_for_bit(place, random):
    error = place.put(random.standard_normal((4000, 24)).astype(np.float32))
    sums = [place.put(np.zeros(24, np.float32)) for _ in range(2)]
    for db in sums:
        place.run(layers.bias_backward, error, db)
    np.testing.assert_array_equal(*map(place.get, sums))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 10), (7, 10), (32, 10), (33, 100), (300, 10), (2, 20_000)]
)
def test_cross_entropy_gives_loss_and_gradient(place, random, shape, dtype):
    scores = (5 * random.standard_normal(shape)).astype(dtype)
    labels = random.integers(shape[1], size=shape[0])
    loss = np.empty(shape[0] + 1)
    # exp and log to a few units of the last place, and a sum of so many terms
    rtol = (8 + np.sqrt(shape[1])) * np.finfo(dtype).eps
    compare(place, layers.cross_entropy, [scores, labels, loss], rtol=rtol)


def test_the_gradient_of_cross_entropy_is_that_of_the_loss(place, random):
    scores = random.standard_normal((6, 5))
    labels = random.integers(5, size=6)

    def loss_at(scores):
        x, loss = place.put(scores), place.put(np.empty(7))
        place.run(layers.cross_entropy, x, place.put(labels), loss)
        return place.get(loss)[0], place.get(x)

    _, gradient = loss_at(scores)
    for row, column in [(0, 0), (3, 4), (5, 2)]:
        step = np.zeros_like(scores)
        step[row, column] = 1e-5
        slope = (loss_at(scores + step)[0] - loss_at(scores - step)[0]) / 2e-5
        # second-order differences of step 1e-5: 1e-10, and rounding over the step
        np.testing.assert_allclose(gradient[row, column], slope, rtol=0, atol=1e-9)


def test_large_scores_do_not_overflow(place):
    scores, labels = np.array([[3e4, -3e4, 0.0]], np.float32), np.zeros(1, np.int64)
    compare(place, layers.cross_entropy, [scores, labels, np.empty(2)])


@pytest.mark.filterwarnings("ignore:(invalid value|overflow)")
def test_a_loss_of_diverged_scores_is_no_number(place):
    scores = np.array([[np.nan, 0.0], [1.0, 2.0]], np.float32)
    loss, x = place.put(np.zeros(3)), place.put(scores)
    place.run(layers.cross_entropy, x, place.put(np.zeros(2, np.int64)), loss)
    assert np.isnan(place.get(loss)[0])


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int64", "int16"])
@pytest.mark.parametrize("shape", [(9,), (9, 1), (9, 3), (9, 16), (9, 3, 7), (9, 700)])
@pytest.mark.parametrize("offset", [0, 1])
def test_gathered_rows_are_those_of_the_indices(place, random, shape, dtype, offset):
    rows = random.integers(100, size=shape).astype(dtype)
    for batch in (0, 1, 40):
        indices = random.integers(-2, len(rows) + 2, size=batch)
        out = np.zeros((batch, *shape[1:]), dtype)
        inputs = [rows, indices, out]
        compare(place, layers.gather, inputs, offsets=(offset, 0, offset))


def test_bfloat16_is_rounded_to_the_nearest_and_ties_to_even(place):
    # 8 bits of mantissa: next to 1 lie 1 - 2^-8 and 1 + 2^-7
    values = [1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-9, 0.0, 1e-40]
    expected = [1, 1, 1 + 2**-6, 1 + 2**-7, -1, 0.0]
    x = np.array([*values, np.inf, -np.inf, np.nan, 3.4e38], np.float32)
    out = place.put(np.zeros(x.size, np.uint16))
    place.kernels.to_bfloat16(place.put(x), out)
    back = (place.get(out).astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(back[:6], np.array(expected, np.float32))
    np.testing.assert_array_equal(back[7:10], [np.inf, -np.inf, np.nan])
    assert back[10] == np.inf, "3.4e38 is nearer to 2^128 than to the largest number"


def test_memory_for_intermediate_sums_is_made_once(place):
    kernels = place.kernels
    first = kernels.scratch("sums", 100, np.float32)
    assert kernels.scratch("sums", 50, np.float32) is first
    assert kernels.scratch("sums", 101, np.float32) is not first


def test_every_kernel_is_compiled_before_the_clock_starts(place):
    place.kernels.compile_all()
    called = partial(place.kernels._get)
    assert called("mean_loss") is called("mean_loss")
