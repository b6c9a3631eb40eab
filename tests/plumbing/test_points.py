"""Trials are of one point if their settings are equal, whatever they look like."""

import csv
import math
from dataclasses import replace

import msgspec
import pytest
import synthetic
from matplotlib.figure import Figure
from matplotlib.text import Text

from dsgd_bench import config
from dsgd_bench.analysis import labels
from dsgd_bench.analysis.summary import combine, labeled
from dsgd_bench.cli import plan_table
from dsgd_bench.report import fom, write_report
from dsgd_bench.spec.strict import exact, nearly
from dsgd_bench.spec.trial import OptimizerSpec, SlowdownSpec, SlowLinksSpec, Study

RATES = (0.12345678, 0.12345699)
"""Equal to six digits, as which they are printed in many places."""


def trial(lr=0.1, **more):
    of = synthetic.trial("adpsgd", **more)
    return msgspec.structs.replace(of, optimizer=OptimizerSpec(lr=lr))


def row(of):
    return labeled(of, study="toy", status="exhausted", reason="")


def test_six_digits_are_not_enough_to_make_two_settings_one_point(tmp_path, capsys):
    trials = [trial(lr, repeat=repeat) for lr in RATES for repeat in range(2)]
    for each in trials:
        synthetic.save(synthetic.run(each, moments=60), tmp_path / "toy")
    found = write_report(tmp_path / "toy")
    assert [len(group.rows) for group in found.studies[0].groups] == [2, 2]
    shown = found.terminal(columns=200)
    with (tmp_path / "toy" / "summary.csv").open() as file:
        algorithms = [record["algorithm"] for record in csv.DictReader(file)]
    names = fom.names(found.studies[0].rows)
    plan_table.print_plan(Study("toy", tmp_path / "toy.toml", tuple(trials)))
    plan = capsys.readouterr().out
    svg = " ".join(path.name for path in found.files)
    assert "loss.png" in svg
    for place, lr in enumerate(RATES):
        assert f"adpsgd, lr {lr} " in shown
        assert f"adpsgd, lr {lr} " in plan
        assert f"adpsgd, lr {lr}" == algorithms[place]
        assert sum(f"optimizer.lr={lr}," in name for name in names.values()) == 2


def test_two_rates_of_a_study_are_two_points_in_all_that_a_report_has(
    tmp_path, monkeypatch
):
    """From the study file on: table, summary.csv, figures of merit and legends."""
    path = tmp_path / "toy.toml"
    path.write_text(
        """
        [study]
        ranks = 4
        budget = { seconds = 4.0 }
        [problem]
        kind = "softmax"
        [optimizer]
        lr = [0.1234567, 0.1234568]
        [algorithm]
        kind = "adpsgd"
        """
    )
    for each in config.read_study(path).trials:
        like = msgspec.structs.replace(trial(), optimizer=each.optimizer)
        synthetic.save(synthetic.run(like, moments=60), tmp_path / "toy")
    drawn = texts_drawn(monkeypatch)
    found = write_report(tmp_path / "toy")
    with (tmp_path / "toy" / "summary.csv").open() as file:
        points = [record["algorithm"] for record in csv.DictReader(file)]
    assert sorted(points) == ["adpsgd, lr 0.1234567", "adpsgd, lr 0.1234568"]
    naming = [texts for texts in drawn if any("adpsgd" in text for text in texts)]
    assert len(naming) >= 2, "the losses and the times, at least"
    merits = "\n".join(found.standing().lines())
    for point in points:
        assert f"{point} " in found.terminal(columns=200)
        assert all(point in texts for texts in naming)
        rate = point.removeprefix("adpsgd, lr ")
        called = f"adpsgd,ranks=4,slowdown=none,optimizer.lr={rate},seed=0"
        assert merits.count(f"FOM loss[{called}]") == 1


def texts_drawn(monkeypatch):
    """Return a list that gets the legends and labels of each figure that is drawn."""
    drawn = []
    save = Figure.savefig

    def savefig(figure, *args, **more):
        drawn.append({text.get_text() for text in figure.findobj(Text)})
        return save(figure, *args, **more)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return drawn


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            SlowdownSpec(kind="constant", ranks=(0,), factor=1.2345671),
            SlowdownSpec(kind="constant", ranks=(0,), factor=1.2345672),
        ),
        (
            SlowdownSpec(kind="transient", factor=2.0, probability=0.12345671),
            SlowdownSpec(kind="transient", factor=2.0, probability=0.12345672),
        ),
        (
            SlowdownSpec(kind="heavy-tailed", factor=2.0, alpha=1.2345671),
            SlowdownSpec(kind="heavy-tailed", factor=2.0, alpha=1.2345672),
        ),
        (
            SlowdownSpec(links=SlowLinksSpec(rate=12345678.0)),
            SlowdownSpec(links=SlowLinksSpec(rate=12345679.0)),
        ),
        (
            SlowdownSpec(links=SlowLinksSpec(seconds=0.0012345678)),
            SlowdownSpec(links=SlowLinksSpec(seconds=0.0012345679)),
        ),
    ],
)
def test_slowdowns_that_differ_are_two_points_with_two_names(one, other):
    rows = [row(msgspec.structs.replace(trial(), slowdown=s)) for s in (one, other)]
    assert len(combine(rows)) == 2
    assert rows[0].trial.slowdown != rows[1].trial.slowdown


def test_targets_that_differ_have_two_names():
    rows = [row(trial(target=target)) for target in RATES]
    assert len({each.trial.target for each in rows}) == len(combine(rows)) == 2


def test_points_are_told_apart_by_values_even_if_the_text_were_the_same(monkeypatch):
    monkeypatch.setattr(labels, "exact", lambda value: f"{value:.1g}")
    assert len(combine([row(trial(lr)) for lr in RATES])) == 2
    assert len(combine([row(trial(repeat=repeat)) for repeat in range(3)])) == 1


def test_links_whose_rates_differ_are_two_points():
    from dsgd_bench.analysis.links import Links

    links = [Links(("a", "b"), rate, {}).label for rate in (12345678.0, 12345679.0)]
    rows = [
        replace(each, trial=replace(each.trial, factors={"links": label}))
        for each, label in zip((row(trial()), row(trial())), links, strict=True)
    ]
    assert len(combine(rows)) == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (1e6, "1e+06"),
        (1e-9, "1e-09"),
        (1234567.0, "1234567"),
        (0.12345678, "0.12345678"),
        (math.inf, "inf"),
    ],
)
def test_numbers_are_as_short_as_they_can_be_and_give_the_number_back(value, text):
    assert exact(value) == text
    assert float(exact(value)) == value


def test_a_product_is_shown_without_its_last_rounding():
    assert 0.0041 * 1e3 != 4.1, "so a computer rounds"
    assert nearly(0.0041 * 1e3) == "4.1"
    assert nearly(12345678 / 1e6) == "12.345678"
