"""What other programs read: figures of merit, the last line, MLPerf's log lines."""

import json
import re
from datetime import datetime

import pytest
import synthetic

from dsgd_bench import cli
from dsgd_bench.config.identity import trial_id
from dsgd_bench.report import fom, mllog, read_report
from dsgd_bench.trace import open_trace

pytestmark = pytest.mark.usefixtures("any_trace_is_valid")

FOM = re.compile(r"^FOM (\S+) (-?(?:\d[\d.e+-]*|inf)) (\S+)$")
SENTINEL = re.compile(r"^DSGD_BENCH_RESULT (OK|FAIL) id=([0-9a-f]{12})$")


def study(tmp_path, *trials):
    for each in trials:
        synthetic.save(synthetic.run(each), tmp_path / "toy")
    return tmp_path / "toy"


def standing(tmp_path, *trials):
    return read_report(study(tmp_path, *trials)).standing()


def test_every_figure_of_merit_has_a_name_a_number_and_a_unit(tmp_path):
    shown = standing(
        tmp_path,
        synthetic.trial("adpsgd", factor=10.0),
        synthetic.trial("allreduce", target=1e-9),
        synthetic.trial("localsgd", settings={"every": 4}),
        synthetic.trial("dpsgd", settings={"graph": "random-regular:2"}, repeat=1),
    )
    lines = list(shown.lines())
    matches = [FOM.match(line) for line in lines]
    assert all(matches), [line for line in lines if not FOM.match(line)]
    found = {match[1]: (float(match[2]), match[3]) for match in matches}
    assert len(found) == len(lines), "no name twice"
    label = "adpsgd,ranks=4,slowdown=10x_on_rank_0,measure.target.loss=0.5,seed=0"
    row = next(row for row in shown.rows if row.trial.algorithm == "adpsgd")
    assert found[f"time_to_target[{label}]"] == (
        pytest.approx(row.target.seconds, rel=1e-5),
        "s",
    )
    missed = "time_to_target[allreduce,ranks=4,slowdown=none,measure.target.loss=1e-09"
    assert [v for n, (v, _) in found.items() if n.startswith(missed)] == [float("inf")]
    assert any("[localsgd,every=4,ranks=4," in name for name in found)
    assert any("[dpsgd,random-regular:2,ranks=4," in name for name in found)
    assert found["trials"] == (4.0, "count")
    assert found["trials_at_target"] == (3.0, "count")
    assert found["trials_failed"] == found["trials_invalid"] == (0.0, "count")


def test_a_trial_without_target_has_no_time_to_it(tmp_path):
    text = "\n".join(standing(tmp_path, synthetic.trial(target=None)).lines())
    assert "time_per_epoch[" in text
    assert "target" not in text


def test_trials_that_differ_in_nothing_named_get_their_id(tmp_path):
    rows = standing(tmp_path, synthetic.trial(), synthetic.trial(repeat=1)).rows
    assert len(set(fom.names(rows).values())) == 2
    double = [rows[0], rows[0]]
    assert not any("id=" in name for name in fom.names(double[:1]).values())


def test_a_crashed_trial_is_counted_and_the_last_line_says_fail(tmp_path):
    folder = study(tmp_path, synthetic.trial(), synthetic.trial(repeat=1))
    broken = folder / trial_id(synthetic.trial(repeat=1))
    (broken / "READY").unlink()
    (broken / "ERROR").write_text("rank 1 was killed")
    shown = read_report(folder).standing()
    assert "FOM trials_failed 1 count" in list(shown.lines())
    assert SENTINEL.match(shown.sentinel())[1] == "FAIL"


def test_the_last_line_depends_on_the_trials_and_not_on_their_order():
    one, other = fom.sentinel(True, ["a", "b"]), fom.sentinel(True, ["b", "a"])
    assert one == other
    assert SENTINEL.match(one)[1] == "OK"
    assert SENTINEL.match(fom.sentinel(True, ["a", "c"]))[2] != SENTINEL.match(one)[2]


@pytest.mark.parametrize("columns", ["20", "300"])
def test_report_prints_them_before_the_table_and_never_wraps_them(
    tmp_path, capsys, monkeypatch, columns
):
    monkeypatch.setenv("COLUMNS", columns)
    folder = study(tmp_path, synthetic.trial("adpsgd", factor=10.0))
    assert cli.main(["report", str(folder), "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = next(k for k, line in enumerate(lines) if not line.startswith("FOM "))
    assert shown > 0
    assert all(FOM.match(line) for line in lines[:shown])
    assert not any(line.startswith("FOM ") for line in lines[shown:])
    assert SENTINEL.match(lines[-1])


def events(tmp_path, **more):
    path = synthetic.save(synthetic.run(synthetic.trial("sgp", **more)), tmp_path / "t")
    lines = list(mllog.lines(open_trace(path / "trace.h5")))
    prefix = ":::MLLOG "
    assert all(line.startswith(prefix) and "\n" not in line for line in lines)
    return [json.loads(line.removeprefix(prefix)) for line in lines]


def test_mllog_lines_have_the_fields_of_mlperf_and_go_by_time(tmp_path):
    found = events(tmp_path)
    fields = {"namespace", "time_ms", "event_type", "key", "value", "metadata"}
    for event in found:
        assert event.keys() == fields
        assert isinstance(event["time_ms"], int)
        assert {"file", "lineno"} <= event["metadata"].keys()
    begun = datetime.fromisoformat(synthetic.PROVENANCE["time_utc"]).timestamp()
    assert found[0]["time_ms"] == 1000 * begun
    stop = next(event for event in found if event["key"] == "run_stop")
    # the toy's last judged moment is at the end of its budget of four seconds
    assert stop["time_ms"] == pytest.approx(1000 * begun + 4000, abs=200)


def test_every_interval_of_mllog_is_closed_in_order(tmp_path):
    opened = []
    for event in events(tmp_path):
        stem = event["key"].rpartition("_")[0]
        if event["event_type"] == "INTERVAL_START":
            assert event["key"].endswith("_start")
            opened.append((stem, event["time_ms"]))
        elif event["event_type"] == "INTERVAL_END":
            assert event["key"].endswith("_stop")
            assert stem == opened[-1][0]
            assert event["time_ms"] >= opened.pop()[1]
    assert opened == []


def test_mllog_has_what_mlperf_requires_once_and_one_value_per_evaluation(tmp_path):
    found = events(tmp_path)
    keys = [event["key"] for event in found]
    once = "submission_org submission_platform submission_division submission_status"
    once += " submission_benchmark cache_clear init_start init_stop run_start run_stop"
    once += " seed global_batch_size opt_name opt_base_learning_rate train_samples"
    assert {key: keys.count(key) for key in once.split()} == dict.fromkeys(
        once.split(), 1
    )
    assert keys.index("init_stop") < keys.index("run_start") < keys.index("run_stop")
    # 20 moments, with a block between each two
    assert keys.count("eval_accuracy") == keys.count("eval_stop") == 20
    assert keys.count("block_start") == keys.count("block_stop") == 19
    values = {event["key"]: event["value"] for event in found}
    assert values["opt_name"] == "sgd"
    assert values["global_batch_size"] == 4 * synthetic.BATCH
    assert values["submission_benchmark"].startswith("dsgd_")


@pytest.mark.parametrize(
    ("target", "status"), [(0.5, "success"), (1e-9, "aborted"), (None, "success")]
)
def test_mllog_says_whether_the_target_was_reached(tmp_path, target, status):
    found = events(tmp_path, target=target)
    (stop,) = [event for event in found if event["key"] == "run_stop"]
    assert stop["metadata"]["status"] == status


def test_report_prints_mllog_lines_on_request_only(tmp_path, capsys):
    folder = study(tmp_path, synthetic.trial())
    words = ["report", str(folder), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    assert ":::MLLOG" not in capsys.readouterr().out
    assert cli.main([*words, "--mllog"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(":::MLLOG {") for line in lines) > 100
    assert SENTINEL.match(lines[-1])
