"""Vectors exchanged with several ranks at once, waiting separated from transfer.

Every vector is preceded by the time at which it was sent. So the receiver knows, on its
own clock, until when it waited and for which rank; the rest was transfer. A rank whose
own message is taken late, once all others have arrived, waits for the receiver.
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np

from dsgd_bench.arrays import Array
from dsgd_bench.exchanges.overlapped import Overlapped
from dsgd_bench.fabric.base import Fabric, Resource
from dsgd_bench.fabric.columns import Spans

Parcel = tuple[Array, int]
"""A vector and the rank it goes to, or comes from."""


class Exchange(Resource):
    """Sends vectors and receives as many as are announced; collective to make.

    Parameters
    ----------
    fabric : Fabric
        This rank's fabric.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric, self._ledger = fabric, fabric.ledger
        self._messages = fabric.messages()
        self._overlapped = Overlapped(fabric)
        self._sent_at = np.zeros(1)
        self._stamps = defaultdict[int, Array](lambda: np.zeros(1))  # by sender
        self._latest, self._last = -np.inf, fabric.rank
        self._not_taken = 0.0

    def run(self, sends: Sequence[Parcel], receives: Sequence[Parcel]) -> None:
        """Exchange now; returns when all has been sent and received."""
        started = self._fabric.now()
        self._transfer(sends, receives)
        self._book(started)

    def overlapped(
        self, sends: Sequence[Parcel], receives: Sequence[Parcel]
    ) -> AbstractContextManager[None]:
        """Exchange while the ``with`` block runs; the vectors are lent until its end.

        Those that are sent may be read meanwhile.
        """

        def work(account: Spans) -> None:
            started = self._fabric.now()
            self._transfer(sends, receives)
            account.transfer += self._fabric.now() - started

        return self._overlapped.during(work, self._book)

    def _transfer(self, sends: Sequence[Parcel], receives: Sequence[Parcel]) -> None:
        """Transfer all; note which rank sent last, and when on this rank's clock."""
        fabric, messages, stamps = self._fabric, self._messages, self._stamps
        own = fabric.offsets[fabric.rank]
        for out, rank in receives:
            messages.receive(stamps[rank], rank)
            messages.receive(out, rank)
        self._sent_at[0] = fabric.now() - own
        for values, rank in sends:
            messages.send(self._sent_at, rank)
            messages.send(values, rank)
        messages.arrive()
        arrived = fabric.now()
        messages.wait()
        self._not_taken = fabric.now() - arrived
        self._latest = -np.inf
        for out, rank in receives:
            self._ledger.traffic.received(out.nbytes)
            sent_at = stamps[rank].item() + own
            if sent_at > self._latest:
                self._latest, self._last = sent_at, rank
        for values, _ in sends:
            self._ledger.traffic.sent(values.nbytes)

    def _book(self, started: float) -> None:
        """Book the training thread's time since `started`: waiting, then transfer."""
        self._ledger.free_since = now = self._fabric.now()
        blocked = now - started
        late = max(self._latest - started, 0.0)
        waiting = min(late + self._not_taken, blocked)
        self._ledger.training.waiting += waiting
        self._ledger.training.transfer += blocked - waiting
        if late > 0.0:
            self._ledger.waited_for = self._last

    def close(self) -> None:
        """Give the channel back; collective."""
        self._overlapped.close()
        self._messages.close()
