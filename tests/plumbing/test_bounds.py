"""The least time per step on known links: formulas, by hand, and the report on them."""

import csv
from typing import Any

import numpy as np
import pytest
import synthetic

from dsgd_bench import report
from dsgd_bench.algorithms import ALGORITHMS
from dsgd_bench.analysis import speed
from dsgd_bench.analysis.bounds import bound
from dsgd_bench.analysis.links import Links
from dsgd_bench.config import read_machine
from dsgd_bench.errors import ConfigError
from dsgd_bench.report import link_figure, link_table
from dsgd_bench.report.numbers import NONE, TIMES
from dsgd_bench.spec.trial import (
    AlgorithmSpec,
    BudgetSpec,
    ComputeSpec,
    ProblemSpec,
    SlowdownSpec,
    Trial,
)

M = 1000
"""Bytes of a model; links of 8 M bit/s carry one per second, so B is M bytes/s."""

HOSTS = ("a", "b", "c", "d")
EVEN = Links(HOSTS, 8.0 * M, {})
UNEVEN = Links(HOSTS, 8.0 * M, {"c": 0.8 * M})
"""The link of rank 2's host is ten times slower."""

THIRD = 1 / 3


def trial(kind, *, t=1.0, ranks=4, slowdown=None, mode="emulated", **settings):
    return Trial(
        ranks=ranks,
        algorithm=AlgorithmSpec(kind=kind, settings=settings),
        problem=ProblemSpec(kind="message"),
        compute=ComputeSpec(mode=mode, seconds=t),
        slowdown=slowdown or SlowdownSpec(),
        budget=BudgetSpec(seconds=1),
    )


def seconds(kind, links=EVEN, **how):
    found = bound(trial(kind, **how), M, links)
    assert found is not None
    return found.seconds


BY_HAND = [
    # four hosts, a model per second; t is 1 s, then 1/3 s
    ("allreduce", {}, 1 + 1.5, THIRD + 1.5),
    ("localsgd", {"every": 3}, 1 + 0.5, THIRD + 0.5),
    ("dpsgd", {}, 2, 2),  # two neighbors on the ring
    ("dpsgd", {"graph": "complete"}, 3, 3),
    ("dpsgd-atc", {}, 3, THIRD + 2),
    ("sgp", {}, 2, THIRD + 1),  # one peer
    ("sgp", {"graph": "ring"}, 3, THIRD + 2),
    ("osgp", {}, 1, 1),
    ("osgp", {"tau": 2}, 1, 0.5),
    ("osgp", {"tau": 0}, 2, THIRD + 1),
    ("ssgd", {}, 1 + 4, THIRD + 4),  # three workers: three models out, one in
    ("ssgd", {"servers": 2}, 1 + 2, THIRD + 2),  # two and two
    ("odsgd", {}, 4, 4),
    ("asgd", {}, 3, 3),  # 1 + 2 alone; the server takes three models per round
    ("asgd", {"servers": 2}, 3, THIRD + 2),
    ("dcasgd", {}, 3, 3),
    ("easgd", {}, 3, 3),
    ("easgd", {"every": 4}, (3 + 2) / 4, 0.75),
    ("eamsgd", {"every": 4}, (3 + 2) / 4, 0.75),
    ("adpsgd", {}, 2, 2),  # a replica is in two exchanges per gradient
    ("adpsgd-overlapped", {}, 2, 2),
    ("adpsgd-delta", {}, 2, 2),
    ("acid", {}, 4, 4),
    ("adpsgd-waitfree", {}, 1, THIRD),
    ("swift", {}, 1, THIRD),
    ("dasgd", {}, 1, THIRD),
]


@pytest.mark.parametrize(("kind", "settings", "long", "short"), BY_HAND)
def test_the_bound_is_what_one_finds_by_hand(kind, settings, long, short):
    assert seconds(kind, t=1.0, **settings) == pytest.approx(long)
    assert seconds(kind, t=THIRD, **settings) == pytest.approx(short)


def test_long_gradients_hide_what_lies_beside_them():
    for kind in ("dpsgd", "osgp", "odsgd", "adpsgd-overlapped", "easgd"):
        assert seconds(kind, t=10.0) == pytest.approx(10.0), kind
    assert seconds("adpsgd", t=10.0) == pytest.approx(11.0)
    assert seconds("asgd", t=10.0) == pytest.approx(12.0)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("allreduce", 1 + 15),
        ("dpsgd", 20),
        ("dpsgd-atc", 1 + 20),
        ("sgp", 1 + 10),
        ("osgp", 10),
        ("ssgd", 1 + 2 * 10),  # its gradient and its model
        ("odsgd", 2 * 10),
        ("asgd", 3 / (2 / 3 + 1 / 21)),  # two workers at their pace, one at its own
        # two of three draw c for a third of their exchanges: 4 s each, c's 10 s
        ("adpsgd-waitfree", 1),
        ("swift", 1),
        ("dasgd", 1),
    ],
)
def test_one_slow_link_holds_up_whom_the_rule_lets_wait_for_it(kind, expected):
    assert seconds(kind, UNEVEN) == pytest.approx(expected)


def test_pairs_that_hold_a_slow_replica_keep_it_from_the_others():
    # c's replica is held 10 s per exchange; a third of everybody's are with it, so all
    # three others together do not get through more than 3 gradients in 10 s, and each
    # gradient of c itself would cost as much as three of theirs
    assert seconds("adpsgd", UNEVEN) == pytest.approx(4 / 0.3)
    assert bound(trial("adpsgd-delta"), M, UNEVEN) is None, "not derived"


def test_ranks_of_one_host_share_its_link_and_need_none_among_themselves():
    two = Links(("a", "a", "b", "b"), 8.0 * M, {})
    # of the ring 0-1-2-3 the edges 1-2 and 3-0 cross; of the ring's sums the same
    assert seconds("dpsgd", two) == pytest.approx(2)
    assert seconds("allreduce", two) == pytest.approx(1 + 1.5)
    assert seconds("dpsgd", two, graph="complete") == pytest.approx(4)  # 2 to 2
    alone = Links(("a",) * 4, 8.0 * M, {})
    assert seconds("dpsgd-atc", alone) == pytest.approx(1)


def test_a_slow_worker_sets_the_pace_of_those_who_wait_for_it():
    slow = SlowdownSpec(kind="constant", ranks=(1,), factor=5.0)
    assert seconds("allreduce", slowdown=slow) == pytest.approx(5 + 1.5)
    assert seconds("dpsgd", slowdown=slow) == pytest.approx(5)
    # three gradients per second and one in five
    assert seconds("dasgd", slowdown=slow) == pytest.approx(4 / 3.2)


def test_there_is_no_bound_where_none_can_be_known():
    assert bound(trial("allreduce", mode="measured"), M, EVEN) is None
    assert bound(trial("allreduce", t=0.0), M, EVEN) is None
    assert bound(trial("allreduce"), 0, EVEN) is None, "model of unknown size"
    assert bound(trial("allreduce", ranks=3), M, EVEN) is None, "other hosts"
    assert bound(trial("postlocal"), M, EVEN) is None
    assert bound(trial("sgp", early_epochs=1.0), M, EVEN) is None


def test_every_algorithm_has_a_bound_or_is_known_to_have_none():
    without = {name for name, each in ALGORITHMS.items() if each.bound is None}
    assert without == {"postlocal"}


def test_links_are_read_from_the_provenance_by_host():
    known = {"hosts": ["a", "b"], "links": {"rate": 2e8, "hosts": {"b": 2e7, "x": 1}}}
    found = Links.of({"mpi": known})
    assert found is not None
    assert found.label == "200 Mbit/s, b 20 Mbit/s"
    assert found.uneven
    assert found.apart(2.5e6)[0, 1] == pytest.approx(1.0)  # 20 Mbit at 20 Mbit/s
    assert Links.of({"hosts": ["a"], "links": {"rate": 0.0, "hosts": {}}}) is None
    assert Links.of({"hosts": ["a"]}) is None


def test_a_machine_names_its_links_and_refuses_what_is_no_rate(tmp_path):
    path = tmp_path / "m.toml"
    path.write_text("[links]\nrate = 200e6\nhosts = { host3 = 20e6 }\n")
    links = read_machine(path).links
    assert (links.rate, links.hosts) == (200e6, {"host3": 20e6})
    for text in ("rate = 'fast'", "speed = 1.0", "hosts = { host3 = 0 }"):
        path.write_text(f"[links]\n{text}\n")
        with pytest.raises(ConfigError, match=r"links|speed"):
            read_machine(path)


# ------------------------------------------------------------------ measured

FAST = 20.8e6
"""Bit/s at which one model of the toy cluster takes a millisecond."""


def toy(kind, *, slow=None, noise=0.0, factor=1.0):
    made = synthetic.run(synthetic.trial(kind, factor=factor, target=None), noise=noise)
    hosts = {} if slow is None else {slow: FAST / 10}
    made.provenance |= {
        "hosts": ["n0", "n1", "n2", "n3"],
        "links": {"rate": FAST, "hosts": hosts},
    }
    return made


def test_time_per_step_is_that_of_the_steps_after_the_first():
    extra = synthetic.MOVING + synthetic.MIXING + synthetic.OTHER
    made = toy("allreduce")
    made.arrays["duration"][:, 0] += 1.0  # a first step that takes a second more
    made.arrays["start"][:, 1:] += 1.0
    found = speed.time_per_step(made)
    assert found == pytest.approx(synthetic.COMPUTE + extra)


def test_time_per_step_of_free_workers_is_over_the_sum_of_their_rates():
    extra = synthetic.MOVING + synthetic.MIXING + synthetic.OTHER
    found = speed.time_per_step(toy("adpsgd", factor=10))
    rates = 3 / (0.02 + extra) + 1 / (0.2 + extra)
    assert found == pytest.approx(4 / rates)


def test_a_run_of_too_few_steps_has_no_time_per_step():
    made = toy("allreduce")
    made.arrays["start"][2, 3:] = np.nan
    assert speed.time_per_step(made) is None


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    home = tmp_path_factory.mktemp("results")
    for kind in ("allreduce", "adpsgd-waitfree"):
        synthetic.save(toy(kind), home / "even" / "links")
        # twice the time, so half the gradients per second are kept
        synthetic.save(toy(kind, slow="n2", noise=1.0), home / "slow" / "links")
    return home / "even" / "links", home / "slow" / "links"


def cells(found):
    heads = [f"{column.name} {column.unit}".strip() for column in found.columns]
    return [dict(zip(heads, row, strict=True)) for row in found.cells]


def test_the_report_sets_steps_beside_their_bounds(folders, tmp_path):
    found = report.write_report(*folders, out=tmp_path)
    assert [study.name for study in found.studies] == ["links in even", "links in slow"]
    rows = cells(link_table.table(found.studies))
    assert [row["algorithm"] for row in rows] == ["allreduce", "adpsgd-waitfree"] * 2
    reduce, free, slow_reduce, slow_free = rows
    # t = 20 ms, a model takes 1 ms, or 10 on the slow link; a toy step takes 22 ms
    assert reduce["bound ms"] == "21.5"
    assert reduce[f"step {TIMES} bound"] == "1.02"
    assert reduce["bound formula"] == "t + 2(n-1)/n·M/B"
    assert slow_reduce["bound ms"] == "35.0"
    assert slow_reduce["step ms"] == "44.0"
    assert free["bound ms"] == slow_free["bound ms"] == "20.0"
    assert (free["kept %"], slow_free["kept %"]) == (NONE, "50")
    assert slow_free["links and compute"].startswith("20.8 Mbit/s, n2 2.08 Mbit/s")
    names = {path.name for path in found.files}
    assert "bounds.png" in names
    for file in ("report.md", "report.html"):
        assert link_table.TITLE in (tmp_path / file).read_text()
    assert link_table.TITLE in found.terminal(columns=200)
    with (tmp_path / "summary.csv").open() as file:
        first = next(csv.DictReader(file))
    assert float(first["bound [s]"]) == pytest.approx(0.0215)
    assert float(first["time_per_step [s]"]) == pytest.approx(0.022)


def test_the_figure_has_a_panel_per_condition_and_a_mark_per_bound(folders):
    lines = link_table.lines(report.read_report(*folders).studies)
    drawn: Any = link_figure.steps_beside_bounds(lines)
    even, slow = drawn.axes
    assert [bar.get_width() for bar in even.patches] == pytest.approx([22, 22])
    assert [bar.get_width() for bar in slow.patches] == pytest.approx([44, 44])
    marks = [float(np.asarray(mark.get_xdata())[0]) for mark in slow.lines]
    assert marks == pytest.approx([35, 20])
    assert "n2 2.08 Mbit/s" in slow.get_title()


def test_a_study_on_unknown_links_says_nothing_of_bounds(tmp_path):
    folder = tmp_path / "smoke"
    synthetic.save(synthetic.run(synthetic.trial()), folder)
    found = report.write_report(folder)
    assert "bounds.png" not in {path.name for path in found.files}
    assert link_table.TITLE not in (folder / "report.md").read_text()
