"""Ports and wires of a simulated network: who may send when, beside whom."""

from dsgd_bench import rng
from dsgd_bench.spec.network import BackgroundSpec
from dsgd_bench.spec.trial import SlowLinksSpec

BITS = 8


class Port:
    """One direction of a node's link: a line of messages, one after the other.

    A message takes the first gap that is long enough: one that is asked for now and
    comes later does not hold up others until then.

    Parameters
    ----------
    per_byte : float
        Seconds.
    node : int
        Whose it is.
    crowd : Crowd, optional
        Traffic of others.
    """

    def __init__(self, per_byte: float, node: int, crowd: "Crowd | None" = None):
        self.per_byte, self._node, self._crowd = per_byte, node, crowd
        self._busy: list[tuple[float, float]] = []

    def price(self, now: float) -> float:
        """Return seconds per byte at this moment."""
        if self._crowd is None:
            return self.per_byte
        return self.per_byte / self._crowd.left(self._node, now)

    def carry(self, now: float, ready: float, size: float) -> tuple[float, float]:
        """Let `size` bytes pass that are `ready` then; return their first and last."""
        busy, took = self._busy, size * self.per_byte
        while busy and busy[0][1] <= now:
            del busy[0]
        if not busy:  # as mostly
            end = ready + took if self._crowd is None else self._end(ready, took)
            busy.append((ready, end))
            return ready, end
        start, place = ready, 0
        for begin, over in busy:
            if self._end(start, took) <= begin:
                break
            start = max(start, over)
            place += 1
        end = self._end(start, took)
        self._insert(place, start, end)
        return start, end

    def _end(self, start: float, took: float) -> float:
        """Return when a message is through that takes `took` on an empty port."""
        if self._crowd is None:
            return start + took
        return self._crowd.end(self._node, start, took)

    def _insert(self, place: int, start: float, end: float) -> None:
        """Note that the port is busy; neighbors that touch become one."""
        busy = self._busy
        if place and busy[place - 1][1] == start:
            place -= 1
            busy[place] = (busy[place][0], end)
        else:
            busy.insert(place, (start, end))
        if place + 1 < len(busy) and busy[place + 1][0] == end:
            busy[place] = (busy[place][0], busy.pop(place + 1)[1])


class Crowd:
    """Traffic of others: a pure function of (seed, node, period)."""

    def __init__(self, spec: BackgroundSpec, seed: int) -> None:
        self._spec, self._seed = spec, seed
        self._draws: dict[int, rng.Draws] = {}

    def left(self, node: int, time: float) -> float:
        """Return the share of the port's rate that is ours at a moment."""
        return self._left(node, int(time // self._spec.period))

    def _left(self, node: int, period: int) -> float:
        if node not in self._draws:
            self._draws[node] = rng.Draws(self._seed, "background", node)
        crowded = self._draws[node][period] < self._spec.probability
        return 1.0 - self._spec.share if crowded else 1.0

    def end(self, node: int, start: float, took: float) -> float:
        """Return when a message is through that takes `took` on an empty port."""
        length = self._spec.period
        period = int(start // length)
        while True:
            left, until = self._left(node, period), (period + 1) * length
            if start + took / left <= until:
                return start + took / left
            took -= max(0.0, until - start) * left
            start, period = until, period + 1


class SlowLinks:
    """Links that a trial makes slow, as prices: see `fabric.links` for what they mean.

    Where a rank shares the port of its node, all of the node is slow.
    """

    def __init__(self, settings: SlowLinksSpec | None, nodes: list[int]) -> None:
        self._seconds = settings.seconds if settings else 0.0
        self._per_byte = per_byte(settings.rate) if settings else 0.0
        self._pairs: dict[frozenset[int], dict[int, Port]] = {}
        self._nodes: set[int] = set()
        if settings is not None:
            self._nodes = {nodes[rank] for rank in settings.ranks if rank < len(nodes)}
            for pair in settings.pairs:
                ranks = frozenset(map(int, pair.split("-")))
                self._pairs[ranks] = {rank: Port(self._per_byte, 0) for rank in ranks}
            if not settings.ranks and not settings.pairs:
                self._nodes = set(nodes)
        self._of = nodes

    def per_byte(self, node: int) -> float:
        """Return what a byte takes at least through the ports of `node`."""
        return self._per_byte if node in self._nodes else 0.0

    def node_latency(self, node: int) -> float:
        """Return by how much messages of `node` are later."""
        return self._seconds if node in self._nodes else 0.0

    def latency(self, source: int, target: int) -> float:
        """Return by how much a message is later than on other links."""
        if not self._seconds:
            return 0.0
        slow = self._of[source] in self._nodes or self._of[target] in self._nodes
        slow = slow or frozenset((source, target)) in self._pairs
        return self._seconds if slow else 0.0

    def wire(self, source: int, target: int) -> Port | None:
        """Return the wire of a slow pair, for messages from `source`."""
        if not self._pairs:
            return None
        ends = self._pairs.get(frozenset((source, target)))
        return ends[source] if ends else None


def per_byte(rate: float) -> float:
    """Return the seconds of a byte at `rate` bits per second; 0 is no limit."""
    return BITS / rate if rate else 0.0
