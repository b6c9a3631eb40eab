"""What parameter servers did: from traces to rates, shares, bytes, knees, a figure.

The toy server needs `SERVE` seconds per gradient, k servers 1/k of that each; so it is
busy all the time from (COMPUTE + SERVE / k) / (SERVE / k) workers on.
"""

import csv
from typing import Any

import numpy as np
import pytest
import synthetic
from synthetic import COMPUTE, MESSAGE

from dsgd_bench import report
from dsgd_bench.analysis import servers
from dsgd_bench.report import server_figure
from dsgd_bench.trace.variables import STEP, VARIABLES

WORKERS = (1, 2, 4, 8)
SERVE = 0.005
"""Seconds that one server needs for a gradient; several share it."""


def served(kind="asgd", *, workers, servers=1, repeat=0):
    """Return the trace of workers at servers of which each takes `SERVE` / servers.

    A step of a worker takes `COMPUTE` and the service; once a server is always busy,
    the workers wait for each other. Of its work half is transfer, half update.
    """
    settings = {"servers": servers} if servers > 1 else {}
    ranks = workers + servers
    of = synthetic.trial(kind, ranks=ranks, repeat=repeat, settings=settings)
    service, seconds = SERVE / servers, of.budget.seconds
    step = max(COMPUTE + service, workers * service)
    steps = np.array([int(seconds / step)] * workers)
    steps = np.append(steps, [steps.sum()] * servers)
    works = np.arange(ranks) < workers
    spans = {
        "compute": np.where(works, COMPUTE, 0.0),
        "waiting": np.where(works, step - COMPUTE, step / workers - service),
        "transfer": np.where(works, 0.0, service / 2),
        "update": np.where(works, 0.0, service / 2),
        "injected": np.zeros(ranks),
        "duration": np.where(works, step, step / workers),
        "bytes_in": np.where(works, MESSAGE, MESSAGE / servers),
        "bytes_out": np.where(works, MESSAGE, MESSAGE / servers),
    }
    toy = synthetic.run(of)
    taken = np.arange(steps.max()) < steps[:, None]
    for name, (dimensions, _, _) in VARIABLES.items():
        if dimensions == STEP:
            each = spans.get(name, np.full(ranks, np.nan))
            toy.arrays[name] = np.where(taken, each[:, None], np.nan)
    toy.arrays["serves"] = np.where(works, 0.0, 1.0)
    toy.arrays["steps_done"] = steps.astype(float)
    toy.arrays["elapsed"] = steps * spans["duration"]
    return toy


def load(*, workers, count=1, **settings):
    return servers.load(served(workers=workers, servers=count, **settings))


def line(count, workers=WORKERS):
    return [load(workers=each, count=count) for each in workers]


def test_a_trial_without_servers_says_nothing_of_servers():
    assert servers.load(synthetic.run(synthetic.trial("adpsgd"))) is None


def test_a_trial_whose_servers_took_no_step_says_nothing():
    toy = served(workers=2)
    toy.arrays["steps_done"][-1] = 0
    assert servers.load(toy) is None


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("workers", WORKERS)
def test_shares_and_bytes_of_a_server_follow_from_its_work(workers, count):
    found = load(workers=workers, count=count)
    rate = min(workers / (COMPUTE + SERVE / count), count / SERVE)
    busy = rate * SERVE / count
    # a run of 4 s ends within a step of 0.025 s or 8 x 0.005 s
    assert found.rate == pytest.approx(rate, rel=0.01)
    assert found.unhindered == pytest.approx(workers / COMPUTE)
    assert found.waiting == pytest.approx(1 - busy, abs=1e-9)
    assert found.transfer == pytest.approx(busy / 2)
    assert found.update == pytest.approx(busy / 2)
    assert found.other == pytest.approx(0, abs=1e-9)
    assert found.bytes_in == pytest.approx(rate * MESSAGE / count, rel=0.01)
    assert found.bytes_out == found.bytes_in
    assert found.saturated == (busy > 0.9)


def test_two_servers_move_the_knee_to_twice_as_many_workers():
    # the highest rate is k / SERVE, workers alone deliver 1 / COMPUTE each
    assert servers.knee(line(1)) == pytest.approx(COMPUTE / SERVE, rel=0.01)
    more = (*WORKERS, 16)
    assert servers.knee(line(2, more)) == pytest.approx(2 * COMPUTE / SERVE, rel=0.01)


def test_there_is_no_knee_while_servers_have_time_to_spare():
    assert servers.knee(line(1, (1, 2, 3))) is None


def test_repeats_become_their_median_and_points_are_in_order():
    loads = [load(workers=8), load(workers=2), load(workers=8, repeat=1)]
    loads += [load(workers=2, count=2), load(workers=2, kind="dcasgd")]
    found = servers.points(loads)
    keys = [(point.algorithm, point.servers, point.workers) for point in found]
    expected = [("asgd", 1, 2), ("asgd", 1, 8), ("asgd", 2, 2), ("dcasgd", 1, 2)]
    assert keys == expected
    assert found[1] == loads[0], "equal repeats"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "server"
    for count in (1, 2):
        for workers in WORKERS:
            synthetic.save(served(workers=workers, servers=count), folder)
    return folder, report.write_report(folder)


def test_the_report_has_the_figure_and_its_numbers(written):
    folder, found = written
    names = {path.relative_to(folder).as_posix() for path in found.files}
    assert {"servers.csv", "figures/server-servers.png"} <= names
    assert server_figure.CAPTION in (folder / "report.html").read_text().replace(
        "&#x27;", "'"
    )
    with (folder / "servers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(WORKERS)
    full = next(row for row in rows if (row["servers"], row["workers"]) == ("1", "8"))
    assert float(full["rate [1/s]"]) == pytest.approx(1 / SERVE, rel=0.01)
    assert float(full["waiting [1]"]) == pytest.approx(0, abs=1e-9)
    assert full["study"] == "server"


def test_the_figure_has_a_line_per_number_of_servers_and_marks_the_knee():
    loads = line(1) + line(2, (*WORKERS, 16))
    drawn: Any = server_figure.servers_against_workers(loads)
    rates, idle, flows = drawn.axes
    curves = [each for each in rates.lines if len(each.get_xdata()) >= len(WORKERS)]
    assert [list(each.get_xdata()) for each in curves] == [
        [1, 2, 4, 8],
        [1, 2, 4, 8, 16],
    ]
    knees = [each for each in rates.lines if len(each.get_xdata()) == 1]
    found = [float(np.asarray(each.get_xdata()).item()) for each in knees]
    assert found == pytest.approx([COMPUTE / SERVE, 2 * COMPUTE / SERVE], rel=0.01)
    (ideal,) = (each for each in rates.lines if each.get_linestyle() == "--")
    assert ideal.get_ydata()[1] / ideal.get_xdata()[1] == pytest.approx(1 / COMPUTE)
    # one server: 1, 2, 4 and 8 workers ask for 1/25 s each, at most for all its time
    busy = [min(each * SERVE / (COMPUTE + SERVE), 1.0) for each in WORKERS]
    shown = [100 * (1 - share) for share in busy]
    assert list(idle.lines[0].get_ydata()) == pytest.approx(shown, abs=1e-6)
    bytes_in = [share / SERVE * MESSAGE / 1e6 for share in busy]
    assert list(flows.lines[0].get_ydata()) == pytest.approx(bytes_in, rel=0.01)


def test_a_study_without_servers_has_no_such_figure(tmp_path):
    folder = tmp_path / "other"
    synthetic.save(synthetic.run(synthetic.trial()), folder)
    names = [path.name for path in report.write_report(folder).files]
    assert "servers.csv" not in names
    assert not [name for name in names if name.endswith("-servers.png")]
