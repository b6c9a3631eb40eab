"""One simulated rank, and how it enters and leaves a collective."""

from typing import Any

from dsgd_bench.errors import FabricError
from dsgd_bench.fabric.virtual.scheduler import Meeting, Schedule


class VirtualRank:
    """What windows and messages need of a rank; `VirtualFabric` is one with accounts.

    Parameters
    ----------
    world : Schedule
        The virtual time that it lives in.
    rank : int
        Which one this is.
    """

    def __init__(self, world: Schedule, rank: int) -> None:
        self.world = world
        self.rank, self.size = rank, world.size
        self._meetings = 0
        self._carrying_until = 0.0

    def meet(self, what: str, value: object) -> Meeting:
        """Enter this rank's next collective without waiting for it."""
        world, number = self.world, self._meetings
        self._meetings += 1
        meeting = world.meetings.setdefault(number, Meeting(what, self.rank))
        if meeting.what != what:
            raise FabricError(
                f"collective {number} is {meeting.what} on rank {meeting.first} but "
                f"{what} on rank {self.rank}: every rank must call the same ones"
            )
        meeting.values[self.rank] = value
        if len(meeting.values) == self.size:
            del world.meetings[number]
            meeting.complete_at = world.time
            world.alive()
            for glet in meeting.waiting:
                world.wake(glet)
        return meeting

    def finish(
        self, meeting: Meeting, seconds: float = 0.0, latency: float = 0.0
    ) -> dict[int, Any]:
        """Wait until all have entered `meeting`, and until it is through the network.

        What takes some `seconds` there comes after what was started before; `latency`
        occupies nothing.
        """
        world = self.world
        with world.in_call(self.rank):
            ready_at = self.all_there(meeting)
            if seconds:
                ready_at = max(ready_at, self._carrying_until) + seconds
                self._carrying_until = ready_at
            world.sleep_until(ready_at + latency)
        return meeting.values

    def all_there(self, meeting: Meeting) -> float:
        """Wait until all have entered `meeting`; return when the last one did."""
        if meeting.complete_at is None:
            self.world.park(f"waits in {meeting.what}", meeting.waiting)
        return meeting.complete_at or 0.0

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.finish(self.meet("barrier", None))
