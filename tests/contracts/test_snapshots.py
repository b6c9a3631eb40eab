"""Snapshots: evenly spaced however long the run was, and never more than asked for."""

import numpy as np
import pytest

from dsgd_bench.trial.snapshots import Snapshots


def model(position: float) -> np.ndarray:
    return np.full(2, position)


def by_step(capacity: int, steps: int) -> Snapshots:
    snapshots = Snapshots(np.zeros(2), capacity=capacity, distance=1.0, by_step=True)
    for step in range(steps + 1):
        snapshots.take_if_due(model(step), step=step, time=step / 10)
    return snapshots


FINAL = (model(-1.0), 1e9, 1e9)


@pytest.mark.parametrize("capacity", [2, 3, 8, 40])
@pytest.mark.parametrize("steps", [0, 1, 2, 7, 39, 40, 41, 1000])
def test_snapshots_are_evenly_spaced_and_at_least_half_of_the_memory_is_used(
    capacity: int, steps: int
) -> None:
    snapshots = by_step(capacity, steps)
    taken = [one.position for one in snapshots.taken]
    assert taken == list(np.arange(len(taken)) * snapshots.distance)
    assert len(taken) <= capacity
    assert len(taken) >= min(steps + 1, capacity // 2)
    assert taken[-1] > steps - snapshots.distance
    assert np.log2(snapshots.distance) % 1 == 0


def test_thinning_out_keeps_the_models_that_belong_to_the_positions() -> None:
    snapshots = by_step(4, 100)
    for one in snapshots.taken:
        kept, time = snapshots.nearest(one.position, FINAL)
        np.testing.assert_array_equal(kept, model(one.position))
        assert time == one.time == one.position / 10
    slots = [one.slot for one in snapshots.taken]
    assert len(set(slots)) == len(slots)


def test_snapshots_of_long_steps_never_run_out_of_memory() -> None:
    """Every step is longer than the distance, so one doubling frees nothing."""
    snapshots = Snapshots(np.zeros(2), capacity=4, distance=1e-3, by_step=False)
    for step in range(50):
        snapshots.take_if_due(model(step), step=step, time=0.02 * step)
    taken = [one.time for one in snapshots.taken]
    assert 2 <= len(taken) <= 4
    assert taken[0] == 0.0
    assert taken[-1] > 0.5


def test_by_time_the_first_snapshot_after_each_point_is_kept() -> None:
    snapshots = Snapshots(np.zeros(2), capacity=4, distance=1.0, by_step=False)
    times = [0.0, 0.4, 1.3, 1.4, 2.9, 3.1, 4.2]
    taken = [
        snapshots.take_if_due(model(t), step=k, time=t) for k, t in enumerate(times)
    ]
    # 2.9 is the first after 2, 3.1 the first after 3; then the memory is full, and
    # the distance is 2: of 0, 1.3, 2.9 and 3.1 those after 0 and 2 stay, then 4.2
    assert taken == [True, False, True, False, True, True, True]
    assert [one.time for one in snapshots.taken] == [0.0, 2.9, 4.2]
    assert snapshots.distance == 2.0


def test_ranks_thin_to_the_widest_distance_of_all() -> None:
    short, long = by_step(4, 3), by_step(4, 60)
    short.thin_to(long.distance)
    assert short.distance == long.distance
    assert [one.position for one in short.taken] == [0.0]


def test_the_nearest_model_may_be_the_final_one() -> None:
    snapshots = by_step(8, 5)
    final = (model(7.0), 7.0, 0.75)
    assert snapshots.nearest(5.4, final)[0][0] == 5.0
    kept, time = snapshots.nearest(6.4, final)
    assert kept[0] == 7.0
    assert time == 0.75


def test_a_copy_does_not_change_with_the_model() -> None:
    snapshots = Snapshots(np.zeros(2), capacity=2, distance=1.0, by_step=True)
    x = model(1.0)
    snapshots.take_if_due(x, step=0, time=0.0)
    x[:] = 9.0
    np.testing.assert_array_equal(snapshots.nearest(0.0, FINAL)[0], model(1.0))
