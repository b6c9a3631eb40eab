"""Slow links in study files and reports: how they are written, swept and named."""

import pytest

from dsgd_bench.analysis import labels
from dsgd_bench.config import naming, read_study
from dsgd_bench.errors import ConfigError
from dsgd_bench.slowdowns import slow_ranks
from dsgd_bench.spec.trial import SlowdownSpec, SlowLinksSpec

HEAD = """
[study]
ranks = 4
budget = { steps = 5 }
[problem]
kind = "quadratic"
[[algorithm]]
kind = "allreduce"
"""


@pytest.fixture
def study(tmp_path):
    """Return a function that reads a study with these lines on slowdowns."""

    def read(*lines: str):
        path = tmp_path / "study.toml"
        path.write_text(HEAD + "\n".join(lines))
        return read_study(path).trials

    return read


def test_links_are_slow_beside_or_without_slow_ranks(study):
    (only,) = study("[slowdown]", "links = { ranks = [3], rate = 20e6 }")
    assert only.slowdown.links == SlowLinksSpec(ranks=(3,), rate=20e6)
    assert naming.slowdown(only) == "links of rank 3 20 Mbit/s"
    (both,) = study(
        "[slowdown]",
        'kind = "constant"',
        "factor = 2.0",
        'mode = "added"',
        "ranks = [1]",
        'links = { pairs = ["0-1", "1-2"], seconds = 1e-3 }',
    )
    assert naming.slowdown(both) == (
        "2x on rank 1, added, links of pairs 0-1, 1-2 1 ms later"
    )


def test_links_are_swept_by_rate_by_ranks_and_as_alternatives(study):
    trials = study("[slowdown]", "links = { ranks = [[], [3]], rate = [1e6, 1e9] }")
    assert {naming.slowdown(trial) for trial in trials} == {
        "all links 1 Mbit/s",
        "all links 1 Gbit/s",
        "links of rank 3 1 Mbit/s",
        "links of rank 3 1 Gbit/s",
    }
    trials = study("[slowdown]", "links = [{}, { rate = 2500.0 }]")
    assert {naming.slowdown(trial) for trial in trials} == {
        "none",
        "all links 2.5 kbit/s",
    }


@pytest.mark.parametrize(
    ("links", "why"),
    [
        ("{ ranks = [4], rate = 1e6 }", "names rank 4 where study.ranks is 4"),
        ('{ pairs = ["0-7"], rate = 1e6 }', "names rank 7"),
        ('{ pairs = ["2-2"], rate = 1e6 }', "a rank and itself"),
        ('{ pairs = ["0-1", "1-0"], rate = 1e6 }', "twice"),
        ('{ pairs = ["0:1"], rate = 1e6 }', 'two ranks such as "0-1"'),
        ("{ ranks = [3] }", "neither seconds nor rate"),
        ("{ rate = -1 }", "at least 0"),
        ("{ speed = 1 }", "choose one of ranks, pairs, seconds, rate"),
        ("3", "must be a table of ranks, pairs, seconds, rate"),
    ],
)
def test_links_that_cannot_be_are_refused_by_name(study, links, why):
    with pytest.raises(ConfigError) as caught:
        study("[slowdown]", f"links = {links}")
    assert why in str(caught.value)
    assert "slowdown.links" in str(caught.value)


def test_slow_links_are_no_factor_and_never_the_run_without_slowdown():
    spec = SlowdownSpec(links=SlowLinksSpec(rate=1e6))
    assert labels.slow_factor(spec) is None
    assert labels.slow_factor(SlowdownSpec()) == 1.0
    assert slow_ranks(spec, 4) == ()
