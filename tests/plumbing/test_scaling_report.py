"""Excess loss against everybody's gradients: power laws, speedups, table and figure.

On the toy cluster n workers with K steps each end with an excess of
`CONSTANT` (n K)^-1/2 on average; a step takes all of them `STEP` seconds.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import synthetic
from msgspec import structs

from dsgd_bench import report
from dsgd_bench.analysis import scaling
from dsgd_bench.analysis.summary import summarize
from dsgd_bench.report import scaling_figure, scaling_table
from dsgd_bench.report.numbers import NONE
from dsgd_bench.spec.trial import BudgetSpec, OptimizerSpec

CONSTANT, OPTIMUM, STEP = 8.0, 3.0, 0.5
GRADIENTS = (256, 1024, 4096)
WORKERS = (1, 4, 16)


def run(workers, steps, kind="allreduce", *, power=-0.5, repeat=0, optimum=OPTIMUM):
    """Return a trace whose losses fall along a line, twice the excess to nothing."""
    of = synthetic.trial(kind, ranks=workers, repeat=repeat, target=None)
    of = structs.replace(
        of,
        budget=BudgetSpec(steps=steps),
        optimizer=OptimizerSpec(lr=(workers / steps) ** 0.5),
    )
    brief = structs.replace(of, budget=BudgetSpec(seconds=4.0))
    toy = synthetic.run(brief, moments=5)
    toy = replace(toy, trial=of, optimum=optimum)
    excess = CONSTANT * (workers * steps) ** power
    moments = np.linspace(0.0, 1.0, 5)
    losses = OPTIMUM + 2 * excess * (1.0 - moments)
    toy.arrays["steps_done"] = np.full(workers, float(steps))
    toy.arrays["moment_samples"] = moments * workers * steps
    toy.arrays["moment_time"] = moments * steps * STEP
    toy.arrays["loss_of_mean"] = losses
    own = np.full((workers, 5), np.nan)
    own[::2] = OPTIMUM + 3 * (losses - OPTIMUM)  # of every other worker
    toy.arrays["local_loss"] = own
    return toy


def rows(kind="allreduce", *, workers=WORKERS, **changes):
    runs = (run(n, taken // n, kind, **changes) for n in workers for taken in GRADIENTS)
    return [summarize(each) for each in runs]


def with_excess(row, excess):
    return replace(row, quality=replace(row.quality, excess=excess))


def batch_of_64(row):
    return row.trial.factors | {"problem.batch": "64"}


def test_the_excess_is_that_of_the_whole_run_and_of_the_workers_that_were_judged():
    row = summarize(run(4, 256))
    assert row.quality.excess == pytest.approx(CONSTANT / 32)
    assert row.quality.own_excess == pytest.approx(3 * CONSTANT / 32)
    assert row.times.gradients == 1024


def test_moments_count_by_the_gradients_between_them():
    toy = run(1, 64)
    toy.arrays["moment_samples"] = np.array([0.0, 1.0, 2.0, 3.0, 64.0])
    heights = toy["loss_of_mean"] - OPTIMUM
    expected = heights[:4].sum() - heights[[0, 3]].sum() / 2 + 61 * heights[3:].mean()
    assert summarize(toy).quality.excess == pytest.approx(expected / 64)


@pytest.mark.parametrize("change", ["unknown", "diverged", "not judged"])
def test_without_a_finite_loss_or_an_optimum_there_is_no_excess(change):
    toy = run(4, 64, optimum=None if change == "unknown" else OPTIMUM)
    if change == "diverged":
        toy.arrays["loss_of_mean"][-1] = toy.arrays["local_loss"][:, -1] = np.inf
    if change == "not judged":
        for name in ("moment_samples", "moment_time", "loss_of_mean"):
            toy.arrays[name] = np.empty(0)
        for name in ("accuracy_of_mean", "norm_of_mean", "consensus_distance"):
            toy.arrays[name] = np.empty(0)
        toy.arrays["local_loss"] = np.empty((4, 0))
    row = summarize(toy)
    assert (row.quality.excess, row.quality.own_excess) == (None, None)


def test_a_power_law_is_found_again_for_every_number_of_workers():
    found = scaling.curves(rows() + rows("adpsgd", power=-0.25))
    assert [(each.algorithm, each.workers) for each in found] == [
        (kind, n) for kind in ("allreduce", "adpsgd") for n in WORKERS
    ]
    for curve in found:
        power = -0.25 if curve.algorithm == "adpsgd" else -0.5
        assert curve.slope(scaling.of_average) == pytest.approx(power)
        assert curve.slope(scaling.of_own) == pytest.approx(power)


@pytest.mark.parametrize("what", ["steps", "seconds"])
def test_speedup_is_the_number_of_workers_where_nobody_loses_anything(what):
    found = scaling.curves(rows(workers=(4, 8, 16)))
    times = [scaling.speedup(each, found, what) for each in found]
    assert times == pytest.approx([1, 2, 4])


def test_who_needs_twice_as_many_gradients_has_half_the_speedup():
    worse = [
        with_excess(row, row.quality.excess * 2**0.5)
        if row.trial.workers == 16
        else row
        for row in rows()
    ]
    found = scaling.curves(worse)
    times = [scaling.speedup(each, found, "steps") for each in found]
    assert times == pytest.approx([1, 4, 8])


def test_who_never_gets_there_has_no_speedup():
    worse = [
        with_excess(row, row.quality.excess * 100) if row.trial.workers == 16 else row
        for row in rows()
    ]
    found = scaling.curves(worse)
    assert scaling.speedup(found[-1], found, "steps") is None


def test_repeats_lie_on_the_curve_of_their_workers():
    both = rows() + rows(repeat=1)
    assert [len(each.rows) for each in scaling.curves(both)] == [6, 6, 6]


@pytest.mark.parametrize("workers", [(4,), (1, 4, 16)])
def test_it_takes_several_numbers_of_workers_and_of_gradients(workers):
    few = [row for row in rows(workers=workers) if row.times.gradients == GRADIENTS[0]]
    assert scaling.curves(few) == []
    assert bool(scaling.curves(rows(workers=workers))) == (len(workers) > 1)


def test_what_else_a_study_varies_makes_curves_of_their_own():
    other = [
        replace(row, trial=replace(row.trial, factors=batch_of_64(row)))
        for row in rows()
    ]
    names = {each.algorithm for each in scaling.curves(rows() + other)}
    assert names == {"allreduce, batch 32", "allreduce, batch 64"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "speedup"
    for n in WORKERS:
        for taken in GRADIENTS:
            synthetic.save(run(n, taken // n), folder)
            if n > 1:
                synthetic.save(run(n, taken // n, "adpsgd", power=-0.25), folder)
    return folder, report.write_report(folder)


def test_the_report_has_table_and_figure(written):
    folder, found = written
    names = {path.relative_to(folder).as_posix() for path in found.files}
    assert "figures/speedup-scaling.png" in names
    for text in (
        found.terminal(columns=200),
        (folder / "report.md").read_text(),
        (folder / "report.html").read_text(),
    ):
        assert scaling_table.TITLE in text
    table = scaling_table.table(found.studies[0])
    cells = [(row[0], row[1], row[3], row[7], row[8]) for row in table.cells]
    assert cells[:4] == [
        ("allreduce", "1", "-0.500", "1.00", "1.00"),
        ("allreduce", "4", "-0.500", "4.00", "4.00"),
        ("allreduce", "16", "-0.500", "16.0", "16.0"),
        ("allreduce", "all", "-0.500", "", ""),
    ]
    assert [row[3] for row in cells[4:]] == [NONE] * 2 + [""]


def test_the_figure_has_a_line_per_number_of_workers_and_one_guide():
    every = scaling.curves(rows() + rows("adpsgd", power=-0.25))
    figure: Any = scaling_figure.excess_against_gradients(every)
    assert len(figure.axes) == 2 * 3
    for axes in (figure.axes[0], figure.axes[1]):
        *drawn, guide = axes.lines
        assert [list(each.get_xdata()) for each in drawn] == [
            list(GRADIENTS) for _ in WORKERS
        ]
        low, high = np.log(guide.get_xdata()), np.log(guide.get_ydata())
        assert (high[1] - high[0]) / (low[1] - low[0]) == pytest.approx(-0.5)


def test_a_study_that_varies_no_workers_has_neither(tmp_path):
    folder = tmp_path / "one"
    for taken in GRADIENTS:
        synthetic.save(run(4, taken // 4), folder)
    found = report.write_report(folder)
    assert scaling_table.TITLE not in found.terminal()
    assert not [path for path in found.files if path.name.endswith("-scaling.png")]


def test_a_study_of_unknown_optimum_has_neither():
    assert scaling.curves(rows(optimum=None)) == []
