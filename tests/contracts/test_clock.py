"""The ledger: every second of a step is on exactly one account."""

import math

import pytest

from dsgd_bench.fabric.ledger import COLUMNS, SPANS, Ledger


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    ledger = Ledger(clock)
    ledger.open()
    return ledger


def rows(ledger: Ledger) -> list[dict[str, float]]:
    return [dict(zip(COLUMNS, row, strict=True)) for row in ledger.rows]


def test_a_step_lasts_from_the_end_of_the_one_before(
    clock: Clock, ledger: Ledger
) -> None:
    ends = []
    for seconds in (1.0, 0.25, 2.0):
        clock.time += seconds
        ends.append(ledger.close_step(loss=0.5, samples=4))
    assert ends == [1.0, 1.25, 3.25]
    assert [row["start"] for row in rows(ledger)] == [0.0, 1.0, 1.25]
    assert [row["duration"] for row in rows(ledger)] == [1.0, 0.25, 2.0]
    assert ledger.steps == 3


def test_spans_go_to_the_step_in_which_they_were_booked(
    clock: Clock, ledger: Ledger
) -> None:
    for step in range(3):
        for number, name in enumerate(SPANS):
            seconds = 0.125 * (number + 1) * (step + 1)
            clock.time += seconds
            setattr(ledger.training, name, getattr(ledger.training, name) + seconds)
        ledger.close_step(loss=0.0, samples=1)
    for step, row in enumerate(rows(ledger)):
        expected = [0.125 * (k + 1) * (step + 1) for k in range(len(SPANS))]
        assert [row[name] for name in SPANS] == expected
        assert sum(expected) == row["duration"]


def test_what_was_booked_before_the_clock_started_is_in_no_step(
    clock: Clock,
) -> None:
    ledger = Ledger(clock)
    ledger.training.compute = 7.0
    ledger.traffic.sent(80)
    ledger.counts["lock_retries"] = 3
    ledger.open()
    clock.time += 1.0
    ledger.close_step(loss=0.0, samples=1)
    [row] = rows(ledger)
    assert row["compute"] == 0.0
    assert row["bytes_out"] == 0
    assert not ledger.counts


def test_work_beside_is_hidden_and_not_part_of_the_step(ledger: Ledger) -> None:
    ledger.overlapped.transfer += 1.0
    ledger.overlapped.waiting += 2.0
    ledger.overlapped.update += 4.0
    ledger.flushing += 8.0
    ledger.close_step(loss=0.0, samples=1)
    [row] = rows(ledger)
    assert row["overlapped"] == 7.0
    assert row["flushing"] == 8.0
    assert sum(row[name] for name in SPANS) == 0.0


def test_traffic_is_booked_to_its_step(ledger: Ledger) -> None:
    ledger.traffic.sent(100)
    ledger.traffic.received(30, messages=3)
    ledger.close_step(loss=0.0, samples=1)
    ledger.traffic.sent(7, messages=2)
    ledger.close_step(loss=0.0, samples=1)
    first, second = rows(ledger)
    names = ("bytes_out", "bytes_in", "messages_out", "messages_in")
    assert [first[name] for name in names] == [100, 30, 1, 3]
    assert [second[name] for name in names] == [7, 0, 2, 0]


def test_a_meeting_is_noted_once_and_forgotten_with_its_step(
    clock: Clock, ledger: Ledger
) -> None:
    ledger.met(101.0, 102.0)
    ledger.met(104.0, 104.5)
    clock.time = 105.0
    ledger.close_step(loss=0.0, samples=1)
    ledger.close_step(loss=0.0, samples=1)
    first, second = rows(ledger)
    # from the first entry to the last exit; all of it moving until traces are merged
    assert (first["meeting_start"], first["meeting_end"]) == (1.0, 4.5)
    assert first["transfer"] == 1.5
    assert math.isnan(second["meeting_start"])
    assert math.isnan(second["meeting_end"])


def test_what_was_asked_is_forgotten_with_its_step(ledger: Ledger) -> None:
    ledger.injected_asked += 0.5
    ledger.close_step(loss=1.5, samples=32)
    ledger.close_step(loss=1.25, samples=32)
    first, second = rows(ledger)
    assert (first["injected_asked"], second["injected_asked"]) == (0.5, 0.0)
    assert (first["loss"], second["loss"]) == (1.5, 1.25)
    assert first["samples"] == 32
