"""What the papers expect of a study, as a list that is checked line by line.

Every expectation is a sentence, its source, and a function from the table's lines to
findings. Symbols: n workers, m of them s times slower; t_c seconds for a gradient, t_m
for an exchange; b bytes of one model.
"""

from collections.abc import Sequence

from dsgd_bench.analysis import expected_staleness, expected_times, expected_traffic
from dsgd_bench.analysis.comparison import Line
from dsgd_bench.analysis.expected_times import CLEAR, IDLE, OVERLAP
from dsgd_bench.analysis.findings import (
    TIMES,
    TOLERANCE,
    Answer,
    Expectation,
    percent,
)

RULE = "the algorithm's rule"
ADPSGD = "arXiv:1710.06952, slow-worker table"
DASGD = "arXiv:2309.03754, set-staleness"

EXPECTATIONS = (
    Expectation(
        "all-wait",
        "Where all wait for all, or for neighbors, a slow worker costs every"
        f" worker s t_c to s t_c + t_m per step (± {percent(TOLERANCE)}).",
        ADPSGD,
        f"{TIMES} own epoch",
        expected_times.all_wait,
    ),
    Expectation(
        "rates-add-up",
        "Where no worker waits for another, a slow one costs an epoch no more than"
        f" 1 / ((n - m)/n + m/(n s)) (± {percent(TOLERANCE)}).",
        ADPSGD,
        f"{TIMES} own epoch",
        expected_times.rates_add_up,
    ),
    Expectation(
        "share-of-work",
        "Where no worker waits for another, the others take about s times as many"
        f" steps as a slow one (± {percent(TOLERANCE)}).",
        RULE,
        f"{TIMES} steps",
        expected_times.share_of_work,
    ),
    Expectation(
        "first-to-target",
        "Where no worker waits for another, the target is reached before"
        f" AllReduce-SGD once a worker is {CLEAR:g} times slower or more.",
        "arXiv:1710.06952, claims",
        f"{TIMES} time to target",
        expected_times.first_to_target,
    ),
    Expectation(
        "overlap",
        "Exchanging during the gradient, or more rarely, takes no longer than after"
        f" each (+ {percent(OVERLAP)}).",
        "arXiv:1705.09056, 1811.10792, 2005.06728",
        f"{TIMES} time per epoch",
        expected_times.overlaps,
    ),
    Expectation(
        "traffic",
        "A worker sends as many models per gradient as its algorithm's cost says (± one"
        " message at the end).",
        RULE,
        "models per gradient",
        expected_traffic.per_gradient,
    ),
    Expectation(
        "servers",
        "All servers together receive and send what the workers do: n b each way per"
        " round.",
        RULE,
        "models per gradient",
        expected_traffic.servers,
    ),
    Expectation(
        "nobody-waits",
        "Without server and without steps in common, workers wait less than"
        f" {percent(IDLE)} of the time.",
        RULE,
        "% of the time",
        expected_times.nobody_waits,
    ),
    Expectation(
        "only-the-server",
        "With an asynchronous server, a slow worker makes no other wait longer"
        f" (+ {percent(IDLE)} of the time), and no worker is waited for.",
        RULE,
        "% of the time",
        expected_times.only_the_server,
    ),
    Expectation(
        "for-the-slow-one",
        "Where all keep step, all others wait for the slow worker, and it waits less"
        " than any other.",
        RULE,
        "% of the time",
        expected_times.for_the_slow_one,
    ),
    Expectation(
        "bounded",
        "OSGP mixes no message older than tau steps; OD-SGD's gradients are exactly one"
        " version old after the warm-up.",
        "arXiv:1811.10792, Algorithm 2; 2005.06728",
        "staleness",
        expected_staleness.bounded,
    ),
    Expectation(
        "typical-staleness",
        "Gradients applied one by one are n - 1 stale on average, with a slow worker or"
        f" without (± {percent(TOLERANCE)}; more where DASGD sends sums of K > 1).",
        f"lock step; {DASGD}",
        "staleness",
        expected_staleness.typical,
    ),
    Expectation(
        "slow-is-stale",
        "A slow worker's own gradients are about s (n - 1) stale"
        f" (± {percent(TOLERANCE)}).",
        f"{RULE}; {DASGD}",
        "staleness",
        expected_staleness.slow_is_stale,
    ),
    Expectation(
        "others-are-not",
        "With a slow worker the others' gradients are still no more than n - 1 stale"
        f" (+ {percent(TOLERANCE)}).",
        f"{RULE}; {DASGD}",
        "staleness",
        expected_staleness.others_are_not,
    ),
    Expectation(
        "older-models",
        "With a slow worker, the newest models at hand that are averaged are older.",
        "arXiv:2210.14026",
        "staleness",
        expected_staleness.older_models,
    ),
    Expectation(
        "same-model",
        "All replicas are equal to rounding: always where all apply the same gradients,"
        " and for DASGD once all have arrived.",
        "arXiv:2309.03754",
        "distance",
        expected_staleness.same_model,
    ),
    Expectation(
        "weights",
        "Push-sum weights stay positive, and add up to n where all step together.",
        "arXiv:1811.10792",
        "least weight",
        expected_staleness.positive_weights,
    ),
    Expectation(
        "jitter",
        "Waiting for neighbors only, rarely, or late absorbs random delays at least as"
        f" well as waiting for all (+ {percent(OVERLAP)}).",
        "arXiv:1705.09056, 1811.10792",
        f"{TIMES} AllReduce-SGD's",
        expected_times.jitter,
    ),
    Expectation(
        "slow-network",
        "On a slow network D-PSGD, SGP, OSGP and OD-SGD gain over AllReduce-SGD, and"
        " DASGD with K = 1 is last.",
        "arXiv:1705.09056, 1811.10792, 2005.06728",
        "",
        expected_times.slow_network,
    ),
)
"""All there are, in the order of the report."""


def judge(lines: Sequence[Line]) -> list[Answer]:
    """Return what became of every expectation that concerns the study.

    Without a slowdown most cannot be judged: those that then concern no line at all are
    left out.
    """
    found = [
        Answer(expectation, tuple(expectation.check(lines)))
        for expectation in EXPECTATIONS
    ]
    return [answer for answer in found if answer.findings]
