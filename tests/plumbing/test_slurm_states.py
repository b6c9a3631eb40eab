"""Every state of a job counts as it should, and the page says the same as the code."""

import re
from pathlib import Path

import fake_slurm
import pytest

from dsgd_bench import cli
from dsgd_bench.batch.slurm import queue, states

PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"

KNOWN = (
    "BOOT_FAIL CANCELLED COMPLETED CONFIGURING "
    "COMPLETING DEADLINE FAILED NODE_FAIL "
    "OUT_OF_MEMORY PENDING PREEMPTED RUNNING "
    "RESV_DEL_HOLD REQUEUE_FED REQUEUE_HOLD REQUEUED "
    "RESIZING REVOKED SIGNALING SPECIAL_EXIT "
    "STAGE_OUT STOPPED SUSPENDED TIMEOUT "
    "LAUNCH_FAILED RECONFIG_FAIL UPDATE_DB POWER_UP_NODE "
    "EXPEDITING"
)
"""What the manuals of squeue and sacct name, and the flags of slurm.h."""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Put commands in Slurm's place whose answers a test writes."""
    return fake_slurm.installed(tmp_path, monkeypatch)


def test_the_table_has_every_state_that_the_manuals_name():
    assert set(states.STATES) == set(KNOWN.split())
    codes = [code for code, _ in states.STATES.values() if code]
    assert len(set(codes)) == len(codes) == 24, "no code stands for two states"


def test_the_page_has_the_table_of_the_code():
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| `?([A-Z]*)`? \| ([a-z ]+) \|", PAGE.read_text(), re.M
    )
    assert {name: (code, kind) for name, code, kind in rows} == states.STATES


@pytest.mark.parametrize("state", states.STATES)
@pytest.mark.parametrize("form", ["{0}", "{1}", "{2}", "{0} by 1000", "{0}+"])
def test_a_state_counts_as_the_table_says_whatever_its_form(state, form):
    code, kind = states.STATES[state]
    word = form.format(state, code or state, state.lower())
    told = states.together([word], listed=True)
    assert states.alive(told) is (kind != states.OVER)
    assert not states.unsure(told)
    if kind == states.BACK:
        assert told == f"may come back ({state.lower()})"
        assert states.together([word], listed=False) == state.lower()
    else:
        assert told == (state.lower() if kind == states.OVER else kind)


@pytest.mark.parametrize("word", ["OUT_OF_ME+", "CANCELL+", "REQUEUE_H+", "SPECIA+"])
def test_a_word_that_a_table_has_cut_is_still_known(word):
    told = states.together([word], listed=False)
    (name,) = [name for name in states.STATES if name.startswith(word[:-1])]
    assert told == states.together([name], listed=False)


@pytest.mark.parametrize("word", ["HIBERNATING", "?", "RE+", "7", "+", "[red]x"])
def test_an_unknown_state_is_taken_for_alive_and_named(word, fake, capsys):
    assert fake.submit() == 0
    fake.queue(word)
    assert fake.submit() == 0
    name = word.upper() if word == "+" else word.upper().rstrip("+")
    said = f"the job 101 may be alive ({name}): this state is not known"
    assert said in capsys.readouterr().out
    assert fake.sent() == 1
    assert cli.main(["status", "results/study"]) == 0
    assert f"may be alive ({name})" in capsys.readouterr().out


@pytest.mark.parametrize("state", states.STATES)
def test_what_may_go_on_or_come_back_is_not_sent_again(state, fake):
    assert fake.submit() == 0
    fake.queue(state)
    assert fake.submit() == 0
    over = states.STATES[state][1] == states.OVER
    assert fake.sent() == (2 if over else 1)


def test_a_preempted_job_is_over_once_the_queue_has_forgotten_it(fake, capsys):
    assert fake.submit() == 0
    fake.queue("PREEMPTED")
    assert list(queue.of_records(fake.records()).values()) == [
        "may come back (preempted)"
    ]
    (fake.folder / "queue").write_text("")
    (fake.folder / "accounts").write_text("101|PREEMPTED|x\n")
    assert list(queue.of_records(fake.records()).values()) == ["preempted"]
    assert fake.submit() == 0
    assert fake.sent() == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["COMPLETED", "RUNNING", "PENDING"], "running"),
        (["COMPLETED", "PREEMPTED", "PENDING"], "pending"),
        (["COMPLETED", "NODE_FAIL", "FAILED"], "may come back (node_fail)"),
        (["COMPLETED", "NEW_ONE"], "may be alive (NEW_ONE)"),
        (["COMPLETED", "FAILED", "FAILED"], "completed, failed"),
        (["RUNNING,COMPLETING"], "running"),
        (["", "  "], "gone"),
        ([], "gone"),
    ],
)
def test_of_several_elements_the_liveliest_counts(words, told):
    assert states.together(words, listed=True) == told
