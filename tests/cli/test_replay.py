"""What a run would have taken otherwise, by the command."""

import json
from pathlib import Path

import pytest

from dsgd_bench.trace import fabric_of

SLOW = """
[study]
ranks = 3
budget = { steps = 40 }

[problem]
kind = "softmax"

[[algorithm]]
kind = "allreduce"

[compute]
mode = "emulated"
seconds = 0.01

[slowdown]
kind = "constant"
ranks = [2]
factor = 4
"""


def trace_of(dsgd_bench, verb: str) -> Path:
    """Run or simulate the study; return where its trace lies."""
    assert dsgd_bench(verb, dsgd_bench.study(text=SLOW)).returncode == 0
    (found,) = dsgd_bench.folder.glob("results/tiny/*/trace.h5")
    return found


def test_a_measured_run_is_replayed_and_its_slow_rank_named(dsgd_bench):
    trace = trace_of(dsgd_bench, "run")
    assert fabric_of(trace) == "mpi"
    before = sorted(trace.parent.rglob("*"))
    done = dsgd_bench("replay", trace, "--without-slow", "2", "--faster-network", "2")
    assert done.returncode == 0, done.stderr
    assert "as measured" in done.stdout
    assert "rank 2 not slow, network 2x faster" in done.stdout
    assert "The unchanged replay is off by" in done.stdout
    _, costs = done.stdout.split("# Who cost what")
    assert costs.splitlines()[1].startswith("rank 2, ")
    assert sorted(trace.parent.rglob("*")) == before


def test_all_numbers_of_a_replay_are_written_and_drawn(dsgd_bench):
    trace = trace_of(dsgd_bench, "simulate")
    found = dsgd_bench.folder / "new" / "replay.json"
    drawn = found.with_suffix(".png")
    done = dsgd_bench("replay", trace, "--json", found, "--figure", drawn)
    assert done.returncode == 0, done.stderr
    assert "as simulated" in done.stdout
    assert drawn.read_bytes().startswith(b"\x89PNG")
    said = json.loads(found.read_text())
    assert said["replayed"] == pytest.approx(said["measured"], rel=0.01)
    assert said["what_if"]["no slowdown"] < 0.5 * said["replayed"]
    assert max(said["cost"], key=said["cost"].get).startswith("rank 2, ")


def test_a_figure_of_no_known_format_is_refused(dsgd_bench):
    trace = trace_of(dsgd_bench, "simulate")
    refused = dsgd_bench("replay", trace, "--figure", "bars.abc")
    assert refused.returncode == 2
    assert "--figure bars.abc cannot be written" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (dsgd_bench.folder / "bars.abc").exists()


@pytest.mark.slow
def test_what_cannot_be_replayed_is_refused_in_one_sentence(dsgd_bench):
    trace = trace_of(dsgd_bench, "simulate")
    wrong = dsgd_bench.study(text=SLOW)
    out = dsgd_bench.folder / "replay.json"
    for words, said in (
        ((trace, "--without-slow", "3"), "names rank 3, which is no worker"),
        ((trace, "--faster-network", "0"), "--faster-network is 0 but must be above"),
        ((trace, "--profile", "ethernet-11"), "neither a file nor a network"),
        ((dsgd_bench.folder / "none.h5",), "does not exist"),
        ((wrong,), "cannot be read"),
    ):
        refused = dsgd_bench("replay", *words, "--json", out)
        assert refused.returncode == 2
        assert said in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        assert not refused.stdout
        assert not out.exists()
