"""Promises about who sees which samples: shares, order, determinism."""

from typing import Any

import numpy as np
import pytest

from dsgd_bench import rng
from dsgd_bench.errors import ConfigError
from dsgd_bench.problems import Batches
from dsgd_bench.problems.message import Message
from dsgd_bench.problems.shards import dirichlet
from dsgd_bench.problems.softmax import Softmax

RANKS = [1, 2, 3, 4, 5, 8]


@pytest.fixture(scope="module")
def labeled() -> Softmax:
    return Softmax(data="generated", samples=500, features=2, classes=5)


def everyone(problem: Any, ranks: int, batch: int, **more: Any) -> list[Batches]:
    return [
        Batches(problem, ranks=ranks, rank=rank, batch=batch, **more)
        for rank in range(ranks)
    ]


@pytest.mark.parametrize("ranks", RANKS)
def test_a_round_of_n_ranks_is_one_batch_of_a_single_rank(ranks: int) -> None:
    problem = Message(samples=203)
    many = everyone(problem, ranks, 7, seed=5)
    (one,) = everyone(problem, 1, 7 * ranks, seed=5)
    assert one.rounds == many[0].rounds
    for step in range(2 * one.rounds + 1):
        together = np.concatenate([batches.indices(step) for batches in many])
        np.testing.assert_array_equal(together, one.indices(step))


@pytest.mark.parametrize("ranks", RANKS)
def test_an_epoch_shows_every_sample_once(ranks: int) -> None:
    batches = everyone(Message(samples=ranks * 24), ranks, 8)
    assert batches[0].rounds == 3
    for epoch in range(2):
        seen = [b.indices(3 * epoch + k) for b in batches for k in range(3)]
        assert sorted(np.concatenate(seen)) == list(range(ranks * 24))


def test_the_remainder_of_an_epoch_is_dropped() -> None:
    batches = everyone(Message(samples=29), 2, 5)
    seen = np.concatenate([b.indices(k) for b in batches for k in range(2)])
    assert batches[0].rounds == 2
    assert len(np.unique(seen)) == 20


def test_every_epoch_has_another_order() -> None:
    (batches,) = everyone(Message(samples=64), 1, 64)
    assert not np.array_equal(batches.indices(0), batches.indices(1))


@pytest.mark.parametrize("by", ["even", "dirichlet"])
def test_a_batch_depends_on_seed_rank_and_step_and_on_no_history(
    labeled: Softmax, by: str
) -> None:
    steps = [0, 17, 3, 400, 17, 0]
    make = [
        Batches(labeled, ranks=3, rank=1, batch=8, shards_by=by, seed=s) for s in (1, 2)
    ]
    first = [make[0].indices(step).copy() for step in steps]
    for step, expected in zip(steps, first, strict=True):
        fresh = Batches(labeled, ranks=3, rank=1, batch=8, shards_by=by, seed=1)
        np.testing.assert_array_equal(fresh.indices(step), expected)
    assert not np.array_equal(first[0], make[1].indices(0))


@pytest.mark.parametrize("by", ["even", "dirichlet"])
def test_a_batch_is_a_read_only_view_of_positions(labeled: Softmax, by: str) -> None:
    batch = Batches(labeled, ranks=2, rank=0, batch=8, shards_by=by).indices(1)
    assert batch.shape == (8,)
    assert batch.dtype == np.intp
    assert batch.base is not None
    assert not batch.flags.writeable


@pytest.mark.parametrize("alpha", [0.01, 0.1, 1.0, 100.0])
@pytest.mark.parametrize("ranks", [1, 3, 8, 100])
def test_dirichlet_shards_share_out_every_sample_once_and_leave_nobody_empty(
    ranks: int, alpha: float
) -> None:
    labels = np.arange(300) % 10
    shards = dirichlet(labels, ranks, alpha, rng.generator(0, "shards"))
    assert len(shards) == ranks
    assert min(len(shard) for shard in shards) >= 1
    assert sorted(np.concatenate(shards)) == list(range(300))


def test_as_many_ranks_as_samples_get_one_each() -> None:
    shards = dirichlet(np.arange(20) % 2, 20, 0.1, rng.generator(0, "shards"))
    assert [len(shard) for shard in shards] == [1] * 20


@pytest.mark.parametrize(
    ("alpha", "low", "high"), [(0.1, 0.6, 1.0), (1000.0, 0.1, 0.2)]
)
def test_a_small_alpha_gives_most_of_a_class_to_one_rank(
    alpha: float, low: float, high: float
) -> None:
    # With 8 ranks an even share is 0.125. The mean largest share of a symmetric
    # Dirichlet distribution over 8 is 0.71 at alpha = 0.1 and 0.131 at alpha = 1000.
    labels = np.arange(40_000) % 40
    shards = dirichlet(labels, 8, alpha, rng.generator(0, "shards"))
    counts = np.array([np.bincount(labels[shard], minlength=40) for shard in shards])
    assert low < (counts.max(axis=0) / 1000).mean() < high


def test_a_rank_sees_its_whole_dirichlet_shard_and_nothing_else(
    labeled: Softmax,
) -> None:
    labels = labeled.labels
    if labels is None:
        pytest.fail("generated data has classes")
    shards = dirichlet(labels, 3, 1.0, rng.generator(4, "shards"))
    for rank, batches in enumerate(
        everyone(labeled, 3, 8, shards_by="dirichlet", alpha=1.0, seed=4)
    ):
        seen = np.concatenate([batches.indices(step) for step in range(500)])
        np.testing.assert_array_equal(np.unique(seen), shards[rank])
        local = len(shards[rank]) // 8
        once = np.concatenate([batches.indices(step) for step in range(local)])
        assert len(np.unique(once)) == local * 8


def test_a_shard_smaller_than_a_batch_is_repeated_evenly() -> None:
    problem = Softmax(data="generated", samples=20, features=2, classes=2)
    for batches in everyone(problem, 20, 8, shards_by="dirichlet", alpha=0.1):
        assert len(np.unique(batches.indices(3))) == 1
    (batches,) = everyone(problem, 1, 50, shards_by="dirichlet")
    assert set(np.bincount(batches.indices(0), minlength=20)) == {2, 3}


@pytest.mark.parametrize(
    ("problem", "wanted", "said"),
    [
        (Message(samples=63), {}, "4 ranks .* = 16 need 64 .* has 63.* at most 15"),
        (Message(), {"shards_by": "dirichlet"}, "needs samples with classes"),
        (Message(), {"shards_by": "random"}, "even, dirichlet"),
        (Softmax(), {"shards_by": "dirichlet", "alpha": 0.0}, "alpha.*positive"),
        (Softmax(), {"shards_by": "dirichlet", "ranks": 1537}, "1537 ranks"),
        (Message(), {"batch": 0}, "batch is 0"),
    ],
)
def test_impossible_shards_are_refused_in_one_sentence(
    problem: Any, wanted: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        Batches(problem, **{"ranks": 4, "rank": 0, "batch": 16, **wanted})
