"""Two-sided messages: all arrive, in order, and what MPI forgives is refused."""

from typing import Any

import numpy as np
import pytest
from conftest import Ranks

from dsgd_bench.errors import FabricError
from dsgd_bench.fabric.base import Fabric
from dsgd_bench.fabric.virtual.fabric import Network, World

LARGE = 200_000
"""Elements that no library keeps for a receive that is yet to come."""


@pytest.mark.parametrize("length", [3, LARGE])
def test_messages_arrive_whole_and_in_the_order_sent(
    world: Ranks, size: int, length: int
) -> None:
    def work(fabric: Fabric) -> list[float]:
        messages = fabric.messages()
        right, left = (fabric.rank + 1) % size, (fabric.rank - 1) % size
        got = []
        for step in range(5):
            out = np.empty(length)
            if size > 1:
                messages.receive(out, left)
                messages.send(np.full(length, 10.0 * fabric.rank + step), right)
                messages.wait()
                np.testing.assert_array_equal(out, out[0])
                got.append(out[0])
        messages.close()
        return got

    for rank, got in enumerate(world.together(size, work, jitter=2.0)):
        left = (rank - 1) % size
        assert got == [10.0 * left + step for step in range(5)][: 5 * (size > 1)]


def test_one_rank_takes_what_anybody_sends(world: Ranks, size: int) -> None:
    """Every message once, each sender's in order, also shorter and empty ones."""

    def work(fabric: Fabric) -> list[tuple[int, list[float]]]:
        messages = fabric.messages()
        taken = []
        if fabric.rank:
            for count in (4, 2, 0):
                messages.send(np.full(count, float(fabric.rank)), 0)
                messages.wait()
        else:
            room = np.empty(4)
            for _ in range(3 * (size - 1)):
                source, count = messages.take(room)
                taken.append((source, room[:count].tolist()))
        messages.close()
        return taken

    taken = world.together(size, work, jitter=2.0)[0]
    for rank in range(1, size):
        sent = [values for source, values in taken if source == rank]
        assert sent == [[rank] * 4, [rank] * 2, []]
    assert len(taken) == 3 * (size - 1)


def test_an_answer_may_be_on_its_way_while_the_next_message_is_taken(
    world: Ranks, size: int
) -> None:
    def work(fabric: Fabric) -> float:
        messages = fabric.messages()
        answer, question = np.zeros(LARGE), np.full(LARGE, float(fabric.rank))
        if fabric.rank == 0:
            answers = [np.full(LARGE, float(rank)) for rank in range(size)]
            for _ in range(size - 1):
                source, _ = messages.take(answer)
                messages.send(answers[source], source)
        else:
            messages.receive(answer, 0)
            messages.send(question, 0)
        messages.wait()
        messages.close()
        return float(answer[-1])

    results = world.together(size, work, jitter=2.0)
    assert results[1:] == [float(rank) for rank in range(1, size)]


# --- stricter than MPI


def refused(work: object, why: str) -> None:
    with pytest.raises(FabricError, match=why):
        World(2, Network()).run(work)  # type: ignore[arg-type]


def test_a_send_that_nobody_receives_is_a_deadlock_by_name() -> None:
    def work(fabric: Fabric) -> None:
        messages = fabric.messages()
        messages.send(np.zeros(3), 1 - fabric.rank)
        messages.wait()

    refused(work, "rank 0 waits for its message to be taken")


def test_a_receive_of_what_nobody_sends_is_a_deadlock_by_name() -> None:
    def work(fabric: Fabric) -> None:
        messages = fabric.messages()
        messages.receive(np.zeros(3), 1 - fabric.rank)
        messages.wait()

    refused(work, "rank 1 waits for a message of rank 0")


@pytest.mark.parametrize("which", ["send", "receive"])
def test_a_buffer_touched_while_it_is_lent_is_caught(which: str) -> None:
    def work(fabric: Fabric) -> None:
        messages = fabric.messages()
        values, out = np.zeros(3), np.zeros(3)
        messages.receive(out, 1 - fabric.rank)
        messages.send(values, 1 - fabric.rank)
        (values if which == "send" else out)[1] = 5.0
        messages.wait()

    refused(work, f"touched the buffer of a {which}")


def test_a_buffer_of_the_wrong_size_is_caught() -> None:
    def work(fabric: Fabric) -> None:
        messages = fabric.messages()
        out = np.zeros(3 + fabric.rank)
        messages.receive(out, 1 - fabric.rank)
        messages.send(np.zeros(3), 1 - fabric.rank)
        messages.wait()

    refused(work, "rank 1 expects 4 elements of rank 0, which sent 3")


def test_messages_that_nobody_took_are_caught_on_closing() -> None:
    def work(fabric: Fabric) -> None:
        messages: Any = fabric.messages()
        if fabric.rank == 0:
            messages.send(np.zeros(3), 1)
            messages._sends.clear()  # as an eager library would
        messages.close()

    refused(work, r"messages of ranks \[0\] never taken")
