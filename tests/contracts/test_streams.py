"""Random streams: the same address gives the same numbers, another one others."""

from itertools import combinations

import numpy as np
import pytest

from dsgd_bench.rng import BLOCK, Draws, generator

ADDRESSES = [
    (0, "batches", 0, 0),
    (1, "batches", 0, 0),
    (0, "slowdown", 0, 0),
    (0, "batches", 1, 0),
    (0, "batches", 0, 1),
    (2**40, "batches", 2**31, 2**40),
]


def test_the_same_address_gives_the_same_numbers() -> None:
    for address in ADDRESSES:
        first, again = generator(*address), generator(*address)
        np.testing.assert_array_equal(first.random(50), again.random(50))


def test_other_addresses_give_other_numbers() -> None:
    numbers = [generator(*address).random(1000) for address in ADDRESSES]
    for one, other in combinations(numbers, 2):
        assert not np.isin(one, other).any()


def test_neighboring_steps_do_not_overlap() -> None:
    """The stream of one step does not run into that of the next one."""
    first, second = generator(0, "a", 0, 0), generator(0, "a", 0, 1)
    assert not np.isin(second.random(1000), first.random(100_000)).any()


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(OverflowError):
        generator(-1, "batches")


def test_draws_do_not_depend_on_the_order_of_asking() -> None:
    draws = Draws(3, "neighbor", 1)
    steps = [0, BLOCK - 1, BLOCK, 5 * BLOCK + 7, 1]
    forward = {step: Draws(3, "neighbor", 1)[step] for step in steps}
    assert {step: draws[step] for step in reversed(steps)} == forward


def test_draws_are_uniform_and_differ_between_ranks() -> None:
    draws, others = Draws(3, "neighbor", 1), Draws(3, "neighbor", 2)
    mine = np.array([draws[step] for step in range(4000)])
    theirs = np.array([others[step] for step in range(4000)])
    assert mine.min() >= 0.0
    assert mine.max() < 1.0
    assert len(set(mine)) == 4000
    # five standard deviations of a mean, and of a correlation, of 4000 numbers
    assert abs(mine.mean() - 0.5) < 5 / np.sqrt(12 * 4000)
    assert abs(np.corrcoef(mine, theirs)[0, 1]) < 5 / np.sqrt(4000)
