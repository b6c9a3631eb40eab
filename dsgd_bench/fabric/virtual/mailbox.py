"""What two-sided messages are while no rank has them: letters, requests, boxes."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from greenlet import greenlet
from numpy.typing import NDArray

Task: TypeAlias = greenlet
"""A rank, or the communication thread of one."""

ANYBODY = -1
"""Source of a request that takes any rank's letter."""


@dataclass
class Letter:
    """One message under way: whose, what, when it left and arrives.

    `may_leave` says whether it was asked for, or is kept by the library until it is.
    """

    source: int
    values: NDArray[Any]
    left: float
    arrives: float
    may_leave: bool
    waiting: list[Task] = field(default_factory=list)


@dataclass
class Request:
    """One receive that was posted, and the letter it gets."""

    source: int
    letter: Letter | None = None
    waiting: list[Task] = field(default_factory=list)


@dataclass
class Box:
    """What one rank was sent and has not asked for, and what it asked for."""

    letters: list[Letter] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    last_arrival: dict[int, float] = field(default_factory=lambda: defaultdict(float))

    def match(self) -> list[tuple[Letter, Request]]:
        """Hand every request the first letter it may have, in the order posted.

        Returns
        -------
        list of (Letter, Request)
            The pairs that met.
        """
        met = []
        for request in list(self.requests):
            fits = [
                letter
                for letter in self.letters
                if request.source in (letter.source, ANYBODY)
            ]
            if fits:
                letter = min(fits, key=lambda letter: letter.arrives)
                self.letters.remove(letter)
                self.requests.remove(request)
                request.letter, letter.may_leave = letter, True
                met.append((letter, request))
        return met
