"""Work of a helper thread: one piece after the other, on an account of its own."""

from typing import Any

import pytest
from conftest import Ranks

from dsgd_bench.exchanges.overlapped import Overlapped
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.columns import Spans

SECONDS = 0.02
"""That a piece of work takes."""


def communicating(fabric: Fabric) -> Any:
    """Return work that takes a while and books it."""

    def work(account: Spans) -> None:
        started = fabric.now()
        fabric.pause(SECONDS)
        account.transfer += fabric.now() - started

    return work


def test_work_is_booked_apart_and_the_wait_for_it_where_it_ends(world: Ranks) -> None:
    def work(fabric: Fabric) -> Any:
        overlapped, waited = Overlapped(fabric), []

        def book(started: float) -> None:
            waited.append(fabric.now() - started)

        began = fabric.now()
        with overlapped.during(communicating(fabric), book):
            fabric.pause(SECONDS / 4)
            computed, running = fabric.now() - began, overlapped.running
        blocked, ended = waited[0], overlapped.running
        overlapped.join()  # nothing is left, so this returns at once
        overlapped.close()
        ledger = fabric.ledger
        booked = ledger.overlapped.transfer, ledger.training.transfer
        return computed, blocked, booked, (running, ended)

    for computed, blocked, (beside, front), states in world.together(1, work):
        assert computed + blocked >= SECONDS
        assert blocked > 0.0
        assert beside >= SECONDS
        assert front == 0.0
        assert states == (True, False)


def test_a_piece_of_work_begins_when_the_last_one_has_ended(world: Ranks) -> None:
    def work(fabric: Fabric) -> list[str]:
        overlapped, seen = Overlapped(fabric), []

        def piece(name: str) -> Any:
            def do(_account: Spans) -> None:
                seen.append(f"{name} begins")
                fabric.pause(SECONDS)
                seen.append(f"{name} ends")

            return do

        overlapped.begin(piece("one"))
        overlapped.begin(piece("two"))
        overlapped.join()
        overlapped.close()
        return seen

    expected = ["one begins", "one ends", "two begins", "two ends"]
    assert world.together(1, work) == [expected]


def test_a_block_that_fails_waits_for_no_work(world: Ranks) -> None:
    def work(fabric: Fabric) -> list[float]:
        overlapped, waited = Overlapped(fabric), []
        with (
            pytest.raises(ZeroDivisionError),
            overlapped.during(communicating(fabric), waited.append),
        ):
            raise ZeroDivisionError
        overlapped.join()
        overlapped.close()
        return waited

    assert world.together(1, work) == [[]]
