"""Staleness that follows from the times of all ranks' steps, on hand-made traces."""

import numpy as np
import pytest

from dsgd_bench.trace.staleness import applied_meanwhile, missing, staleness

NAN = np.nan


def test_alone_nothing_happens_between_reading_and_updating():
    start = np.array([[0.0, 1.0, 2.0]])
    np.testing.assert_array_equal(
        applied_meanwhile(start, np.ones_like(start)), [[0, 0, 0]]
    )


@pytest.mark.parametrize("size", [2, 3, 8])
def test_staggered_workers_meet_one_gradient_of_every_other_one(size):
    """Round robin: while one computes, each of the others applies one."""
    offsets = np.arange(size)[:, None] / 8  # exact in binary
    start = offsets + np.arange(6.0)
    tau = applied_meanwhile(start, np.ones_like(start))
    assert (tau[:, 1:-1] == size - 1).all()


def test_a_slow_worker_meets_many_and_the_others_hardly_one():
    fast, slow = np.arange(10.0), np.array([0.5, *[NAN] * 9])
    start = np.array([fast, slow])
    duration = np.array([np.ones(10), [8.0, *[NAN] * 9]])
    tau = applied_meanwhile(start, duration)
    # the fast one's ends at 1, 2, ... 8 lie between 0.5 and 8.5
    assert tau[1, 0] == 8
    assert np.isnan(tau[1, 1:]).all()
    np.testing.assert_array_equal(tau[0], [0] * 8 + [1, 0])


def test_in_lock_step_the_gradients_of_a_round_lack_those_before_them():
    """S_t is in 0 .. n-1: all read at once, and create one after the other."""
    created = np.array([[1.0, 2.0], [1.1, 2.1], [1.2, 2.2]])
    included = np.array([[0.0, 3.0]] * 3)
    np.testing.assert_array_equal(missing(created, included), [[0, 0], [1, 1], [2, 2]])


def test_gradients_that_were_never_sent_count_as_missing():
    """Two workers that send nothing: each lacks all of the other one's."""
    created = np.array([[1.0, 2.0, 3.0], [1.5, 2.5, 3.5]])
    included = np.array([[0.0, 1.0, 2.0]] * 2)
    np.testing.assert_array_equal(missing(created, included), [[0, 1, 2], [1, 2, 3]])


def arrays(**changed):
    table = np.array([[0.0, 1.0], [0.0, 1.0]])
    names = ("start", "snapshot", "compute", "injected", "duration", "included")
    found = {name: np.zeros_like(table) for name in names}
    found |= {"start": table, "duration": np.ones_like(table)}
    found |= {"samples": np.array([[1.0, 1.0], [0.0, 0.0]]), "staleness": table + 5}
    return found | changed


def test_a_servers_steps_are_no_gradients():
    for kind in ("gradients", "versions", "steps", "sets"):
        found = staleness(kind, arrays())
        assert np.isfinite(found[0]).all()
        assert np.isnan(found[1]).all()


def test_what_travelled_with_the_data_is_kept():
    np.testing.assert_array_equal(staleness("versions", arrays())[0], [5, 6])


def test_without_delays_there_is_no_staleness():
    assert np.isnan(staleness("none", arrays())).all()


def test_creation_is_when_the_gradient_was_done():
    """The second worker's gradient is done at 0.5, before the first one's at 0.7."""
    zeros = np.zeros((2, 1))
    found = staleness(
        "sets",
        {
            "start": zeros,
            "snapshot": zeros + 0.1,
            "compute": np.array([[0.6], [0.2]]),
            "injected": np.array([[0.0], [0.2]]),
            "duration": zeros + 1,
            "samples": zeros + 1,
            "included": zeros,
        },
    )
    np.testing.assert_array_equal(found, [[1], [0]])
