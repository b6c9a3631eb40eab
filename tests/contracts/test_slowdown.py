"""Slowdowns: the same for every algorithm, and distributed as they say."""

import math
from typing import get_args

import numpy as np
import pytest

from dsgd_bench.slowdowns import KINDS, Slowdown, kind_of
from dsgd_bench.slowdowns.kinds import LONGEST
from dsgd_bench.spec.trial import SlowdownSpec

TRANSIENT = SlowdownSpec("transient", factor=6.0, probability=0.25)
HEAVY = SlowdownSpec("heavy-tailed", factor=2.0, alpha=1.5)

STEPS = 4000


def factors(spec: SlowdownSpec, seed: int = 1, rank: int = 0) -> np.ndarray:
    slowdown = Slowdown(spec, seed=seed, rank=rank)
    return np.array([slowdown.factor(step) for step in range(STEPS)])


@pytest.mark.parametrize("spec", [TRANSIENT, HEAVY])
def test_a_slowdown_is_a_pure_function_of_seed_rank_and_step(
    spec: SlowdownSpec,
) -> None:
    forward = factors(spec)
    slowdown = Slowdown(spec, seed=1, rank=0)
    order = np.random.default_rng(0).permutation(STEPS)[:300]
    for step in order:  # asked in any order, and twice
        assert slowdown.factor(int(step)) == forward[step]
        assert slowdown.factor(int(step)) == forward[step]
    assert (factors(spec, seed=2) != forward).any()
    assert (factors(spec, rank=1) != forward).any()


def test_without_a_slowdown_nobody_is_slow() -> None:
    assert (factors(SlowdownSpec()) == 1.0).all()


@pytest.mark.parametrize("spec", [TRANSIENT, HEAVY])
def test_only_the_chosen_ranks_are_slow(spec: SlowdownSpec) -> None:
    chosen = SlowdownSpec(
        spec.kind, (2,), spec.factor, spec.probability, alpha=spec.alpha
    )
    assert (factors(chosen, rank=1) == 1.0).all()
    # and they are as slow as if all were
    np.testing.assert_array_equal(factors(chosen, rank=2), factors(spec, rank=2))


def test_a_constant_slowdown_is_constant_on_the_chosen_ranks() -> None:
    spec = SlowdownSpec("constant", (0, 3), 10.0)
    assert [factors(spec, rank=rank).tolist() for rank in range(4)] == [
        [factor] * STEPS for factor in (10.0, 1.0, 1.0, 10.0)
    ]


def test_transient_slowdowns_come_as_often_as_they_should() -> None:
    slow = factors(TRANSIENT) == 6.0
    assert set(factors(TRANSIENT)) == {1.0, 6.0}
    # five standard deviations of a binomial distribution; the seed is fixed
    bound = 5 * math.sqrt(STEPS * 0.25 * 0.75)
    assert abs(slow.sum() - 0.25 * STEPS) < bound
    # independent from step to step: two in a row in a sixteenth of all pairs
    pairs = (slow[1:] & slow[:-1]).sum()
    assert abs(pairs - STEPS / 16) < 5 * math.sqrt(STEPS / 16 * 2)


def test_transient_slowdowns_never_or_always() -> None:
    never = SlowdownSpec("transient", factor=6.0, probability=0.0)
    always = SlowdownSpec("transient", factor=6.0, probability=1.0)
    assert (factors(never) == 1.0).all()
    assert (factors(always) == 6.0).all()


def test_a_heavy_tail_has_the_quantiles_of_the_pareto_distribution() -> None:
    """P(factor > 1 + t) = (1 + t)^-alpha for a factor of 2."""
    drawn = factors(HEAVY)
    assert drawn.min() >= 1.0
    for t in (0.5, 1.0, 3.0, 10.0):
        share = (1 + t) ** -1.5
        bound = 5 * math.sqrt(STEPS * share * (1 - share))
        assert abs((drawn > 1 + t).sum() - STEPS * share) < bound


def test_a_heavy_tail_is_cut() -> None:
    wild = SlowdownSpec("heavy-tailed", factor=2.0, alpha=0.1)
    assert factors(wild).max() == LONGEST


def test_a_study_can_ask_for_every_kind_and_no_other() -> None:
    asked = get_args(SlowdownSpec.__annotations__["kind"])
    assert sorted(asked) == sorted(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_what_a_kind_says_of_its_factors_is_true(name: str) -> None:
    spec = SlowdownSpec(name, factor=3.0, probability=0.25, alpha=2.5)  # type: ignore[arg-type]
    kind = kind_of(spec)
    drawn = np.array([factors(spec, rank=rank) for rank in range(4)])
    assert drawn.max() <= kind.longest
    assert kind.slows == (drawn.max() > 1.0)
    assert kind.random == (np.unique(drawn).size > 1)
    assert kind.constant == (None if kind.random else drawn[0, 0])
    for ranks in (1, 4):
        slowest = drawn[:ranks].max(axis=0)
        error = slowest.std() / math.sqrt(STEPS)
        assert abs(slowest.mean() - kind.slowest(ranks)) <= 5 * error + 0.01


@pytest.mark.parametrize("name", KINDS)
def test_a_factor_of_one_slows_nothing(name: str) -> None:
    spec = SlowdownSpec(name, factor=1.0, probability=0.25)  # type: ignore[arg-type]
    assert not kind_of(spec).slows
    assert kind_of(spec).constant == 1.0
