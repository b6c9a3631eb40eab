import msgspec
import numpy as np
import pytest
import synthetic
from synthetic import BATCH, COMPUTE, EPOCH, FALL, MESSAGE, MIXING, MOVING, OTHER

from dsgd_bench.analysis import straggler
from dsgd_bench.analysis.comparison import compare
from dsgd_bench.analysis.staleness import loose
from dsgd_bench.analysis.summary import combine, summarize
from dsgd_bench.spec.trial import MeasureSpec, OptimizerSpec

EXTRA = MOVING + MIXING + OTHER


def summary(kind="allreduce", *, moments=20, **settings):
    return summarize(synthetic.run(synthetic.trial(kind, **settings), moments=moments))


def test_the_time_per_epoch_is_samples_over_the_summed_rates_of_the_ranks():
    together = EPOCH * (COMPUTE * 10 + EXTRA) / (4 * BATCH)
    assert summary(factor=10).times.per_epoch == pytest.approx(together)
    apart = EPOCH / (3 * BATCH / (COMPUTE + EXTRA) + BATCH / (COMPUTE * 10 + EXTRA))
    assert summary("adpsgd", factor=10).times.per_epoch == pytest.approx(apart)


def test_the_target_is_reached_at_the_first_judged_moment_below_it():
    row = summary()
    rate = 4 * BATCH / (COMPUTE + EXTRA)
    exact = FALL / rate * np.log(2.3 / 0.5)
    between = 4.0 / 19
    assert row.reached
    assert exact <= row.target.seconds < exact + between
    assert row.trial.target == "loss ≤ 0.5"
    assert row.target.gap == pytest.approx(between)


def test_a_target_of_accuracy_is_reached_from_below():
    of = synthetic.trial()
    accurate = MeasureSpec(target_accuracy=0.7)
    toy = synthetic.run(of)
    toy.trial = msgspec.structs.replace(of, measure=accurate)
    row = summarize(toy)
    first = np.flatnonzero(toy["accuracy_of_mean"] >= 0.7)[0]
    assert row.target.seconds == toy["moment_time"][first]


def test_a_run_that_never_got_there_has_no_time_to_target():
    row = summary(target=1e-6)
    assert row.target.seconds is None
    assert not row.reached
    assert row.times.per_epoch is not None


def test_a_crashed_run_has_neither_time():
    toy = synthetic.run(synthetic.trial())
    toy.status = "crashed"
    row = summarize(toy)
    assert (row.target.seconds, row.times.per_epoch) == (None, None)


def test_the_shares_are_those_of_the_ranks_summed_time():
    shares = summary(factor=10).times.shares
    # One rank of four is slowed; the other three wait for what it was slowed by.
    step = COMPUTE * 10 + EXTRA
    assert shares["compute"] == pytest.approx(COMPUTE / step)
    assert shares["injected"] == pytest.approx(9 * COMPUTE / step / 4)
    assert shares["waiting"] == pytest.approx(9 * COMPUTE / step * 3 / 4)
    assert shares["transfer"] == pytest.approx(MOVING / step)
    assert sum(shares.values()) == pytest.approx(1.0)


def test_blocked_is_waiting_and_moving_per_rank():
    row = summary(factor=10)
    steps = row.times.steps_per_rank[0]
    assert row.times.blocked == pytest.approx(steps * (0.75 * 9 * COMPUTE + MOVING))


def test_traffic_exchanges_and_staleness_are_per_step():
    row = summary("adpsgd", factor=10)
    assert row.traffic.bytes_out == pytest.approx(MESSAGE)
    assert row.traffic.messages == pytest.approx(1.0)
    assert row.traffic.exchanges == pytest.approx(1.0)
    slow, *others = row.times.steps_per_rank
    assert slow < others[0] == others[1] == others[2]
    # rank 0's gradients meet ten of each other worker's, theirs hardly one
    assert row.staleness.per_rank == pytest.approx((30.0, 2.5, 2.5, 2.5))
    mean = (30.0 * slow + 2.5 * sum(others)) / (slow + sum(others))
    assert (row.staleness.mean, row.staleness.largest) == (pytest.approx(mean), 30.0)


def test_only_workers_are_counted_and_servers_told_apart():
    row = summary("asgd", ranks=5, settings={"servers": 2})
    assert (row.trial.workers, row.trial.servers, len(row.times.steps_per_rank)) == (
        3,
        2,
        3,
    )
    assert row.traffic.bytes_out == pytest.approx(MESSAGE)
    assert row.traffic.server_out == pytest.approx(MESSAGE)
    assert row.traffic.server_in == pytest.approx(MESSAGE)
    # the synthetic servers do nothing but wait, the workers never
    assert row.times.shares["waiting"] == pytest.approx(0.0)
    assert row.staleness.mean == 2.0
    assert row.times.per_epoch == pytest.approx(EPOCH * (COMPUTE + EXTRA) / (3 * BATCH))
    assert summary("asgd", ranks=5).traffic.server_in is not None
    assert summary().traffic.server_in is None


def test_a_slow_server_slows_no_worker():
    of = synthetic.trial("asgd", factor=10)
    slowdown = msgspec.structs.replace(of.slowdown, ranks=(3,))
    row = summarize(synthetic.run(msgspec.structs.replace(of, slowdown=slowdown)))
    assert row.trial.slow == ()
    assert summary("asgd", factor=10).trial.slow == (0,)


def test_whoever_is_ahead_at_the_end_of_a_synchronous_run_was_not_faster():
    toy = synthetic.run(synthetic.trial("dpsgd"))
    exact = summarize(toy).times.per_epoch
    toy.arrays["elapsed"][1:] *= 0.7
    assert summarize(toy).times.per_epoch == exact


def test_epochs_to_the_target_are_the_samples_of_all_until_then():
    toy = synthetic.run(synthetic.trial())
    row = summarize(toy)
    rate = 4 * BATCH / (COMPUTE + EXTRA)
    assert row.target.epochs == pytest.approx(row.target.seconds * rate / EPOCH)
    assert summary(target=1e-6).target.epochs is None


def test_the_widest_distance_and_the_extreme_weights_are_kept():
    toy = synthetic.run(synthetic.trial("sgp"))
    toy.arrays["consensus_distance"][3] = 0.7
    toy.arrays["weight"][1, 5] = 0.25
    row = summarize(toy)
    assert (row.quality.widest, row.quality.distance) == (0.7, 0.0)
    assert (row.weights.least, row.weights.most) == (0.25, 1.0)
    assert row.weights.departure == pytest.approx(0.75 / 4)
    assert summary("osgp").weights.departure is None  # its workers do not step together
    assert summary().weights.least is None


# --- loose set-staleness: what any worker lacks


def test_alone_there_is_nothing_that_another_one_lacks():
    created = np.arange(5.0)[None]
    assert (loose(created, created + 0.5, np.zeros((1, 5))) == 0).all()


@pytest.mark.parametrize("size", [2, 3, 8])
def test_in_lock_step_any_worker_lacks_none_to_n_minus_one(size):
    """K = 1, every sum arriving before the next round: the place in the round."""
    rounds = np.arange(6.0)
    created = rounds + np.arange(size)[:, None] / 100
    delivered = np.tile(rounds + 1, (size, 1))
    found = loose(created, np.tile(rounds + 0.5, (size, 1)), delivered)
    np.testing.assert_array_equal(found, [*range(size)] * 6)


def test_gradients_that_are_never_delivered_pile_up():
    created = np.array([[1.0, 2.0, np.nan], [1.5, 2.5, 3.5]])
    delivered = np.where(np.isfinite(created), 0.0, np.nan)
    found = loose(created, created + 0.1, delivered)
    np.testing.assert_array_equal(found, [0, 1, 2, 3, 4])


def test_a_worker_with_rare_sums_keeps_all_others_behind():
    """The second sends after three gradients; each is there at once, and seen so."""
    created = np.array([[1.0, 2.0, 3.0, 4.0], [1.5, 2.5, 3.5, 4.5]])
    delivered = np.array([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 3.0, 3.0]])
    found = loose(created, created + 0.1, delivered)
    np.testing.assert_array_equal(found, [0, 0, 1, 1, 2, 2, 0, 0])


def test_without_counts_of_what_arrived_nothing_is_told():
    created = np.ones((2, 3))
    assert loose(created, created, np.full((2, 3), np.nan)).size == 0
    assert summary("adpsgd").staleness.loose_largest is None
    assert summary("dasgd").staleness.loose_largest is not None


def test_the_slow_rank_is_the_worst_and_the_one_waited_for():
    row = summary(factor=10)
    assert (row.times.worst_rank, row.times.waited_for) == (0, 0)
    assert summary("adpsgd", factor=10).times.waited_for is None


def test_a_diverged_run_has_no_final_loss():
    toy = synthetic.run(synthetic.trial())
    toy.status = "diverged"
    toy.arrays["loss_of_mean"][-3:] = np.nan
    row = summarize(toy)
    assert row.quality.loss is None
    assert len(row.quality.curve) == len(toy["moment_time"]) - 3


def test_repeats_form_a_group_and_failures_are_counted_in_it():
    rows = [summary("adpsgd", repeat=r, target=0.5) for r in range(3)]
    toy = synthetic.run(synthetic.trial("adpsgd", repeat=3))
    toy.status = "crashed"
    (group,) = combine([*rows, summarize(toy)])
    assert (group.reached, len(group.rows)) == (3, 4)
    assert group.statuses["crashed"] == 1
    assert len(group.times) == 3


def test_points_that_differ_in_a_setting_are_different_groups():
    of = synthetic.trial()
    faster = msgspec.structs.replace(of, optimizer=OptimizerSpec(lr=0.2))
    rows = [summarize(synthetic.run(each)) for each in (of, faster)]
    lines = compare(combine(rows))
    assert [line.algorithm for line in lines] == [
        "allreduce, lr 0.1",
        "allreduce, lr 0.2",
    ]


@pytest.mark.parametrize("factor", [1.0, 2.0, 10.0, 100.0])
def test_the_model_of_a_slow_rank_counts_rates_or_waits(factor):
    rates = 15 + 1 / factor
    free = straggler.predicted(16, 1, factor, synchronous=False)
    assert free == pytest.approx(16 / rates)
    assert straggler.predicted(16, 1, factor, synchronous=True) == factor


def test_lines_are_compared_with_allreduce_and_with_the_own_unslowed_time():
    rows = [
        summary(kind, factor=factor, ranks=16, repeat=repeat, moments=400)
        for kind in ("allreduce", "adpsgd")
        for factor in (1.0, 10.0)
        for repeat in range(2)
    ]
    lines = {
        (line.group.first.trial.algorithm, line.group.first.trial.slow_factor): line
        for line in compare(combine(rows))
    }
    waits, free = lines["allreduce", 10.0], lines["adpsgd", 10.0]
    slow, fast = COMPUTE * 10 + EXTRA, COMPUTE + EXTRA
    assert waits.against_baseline.value == pytest.approx(slow / fast)
    assert free.against_baseline.value == pytest.approx(16 / (15 + fast / slow))
    assert (waits.predicted, free.predicted) == (10.0, pytest.approx(16 / 15.1))
    assert waits.is_reference
    assert waits.against_reference is None
    ratio = free.group.time_to_target.value / waits.group.time_to_target.value
    assert free.against_reference.value == pytest.approx(ratio)
    assert free.against_reference.value < 0.2


def test_the_papers_ratios_stand_beside_the_papers_setting_only():
    def papers(ranks, factor, kind="adpsgd-overlapped"):
        (group,) = combine([summary(kind, factor=factor, ranks=ranks)])
        return straggler.paper_ratio(group)

    assert papers(16, 10.0) == pytest.approx(1.33 / 1.22)
    assert papers(16, 100.0, "allreduce") == pytest.approx(100.4 / 1.47)
    assert papers(16, 1.0) == 1.0
    assert papers(16, 3.0) is None
    assert papers(4, 10.0) is None


def test_without_a_target_points_are_compared_by_time_per_epoch():
    rows = [summary(kind, target=None) for kind in ("allreduce", "adpsgd")]
    first, second = compare(combine(rows))
    assert first.is_reference
    assert second.against_reference.value == pytest.approx(1.0)
