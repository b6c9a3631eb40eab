"""What a simulated network charges: ports of nodes, links between them, all-reduces.

LogGP (A. Alexandrov et al., "LogGP: incorporating long messages into the LogP model",
SPAA 1995), with a port for each direction of every node, as where a switch has no
bottleneck of its own. A message to another node occupies its sender for `o`, passes
the port out of its node at 1 / G, travels for L and passes the port into the other
node, cut through: it can be in both at once. Messages that meet at a port go one after
the other, so servers and shared links congest. Words and stamps slip in between.
Between ranks of one node a message costs what shared memory does, and no port.

A one-sided operation is a request and an answer; its origin has nothing else to do
until then. Where the network's hardware cannot perform it, the target must: at once
if it is in a call of MPI's, else when its progress thread looks next, or, without one,
when it calls MPI again.

Not modeled: packets, so two messages share a port in turn, not side by side; routing,
and links between switches; what computing loses to communication on the same cores.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dsgd_bench.arrays import BLOCK_BYTES
from dsgd_bench.fabric.slow_ports import WORD
from dsgd_bench.fabric.virtual import allreduce_cost
from dsgd_bench.fabric.virtual.ports import BITS, Crowd, Port, SlowLinks, per_byte
from dsgd_bench.spec.network import LinkSpec, NetworkSpec, Operation
from dsgd_bench.spec.trial import SlowLinksSpec

CONTROL = 32
"""Bytes up to which a message is a word or a stamp: never scaled, never in a queue."""

FETCHING = ("get", "fetch")
"""Operations whose data come from the target."""


@dataclass(frozen=True)
class Network:
    """A hostile network, for tests: latency plus size over bandwidth, and torn.

    Attributes
    ----------
    latency : float
        Seconds of every operation between two ranks.
    bandwidth : float
        Bytes per second.
    jitter : float
        Every delay is stretched by a factor from 1 to 1 + `jitter`, drawn by the seed.
    pieces : int
        Pieces in which a put or a get arrives, others running in between; the cost
        of the whole is the same.
    """

    latency: float = 1e-6
    bandwidth: float = 1e10
    jitter: float = 0.0
    pieces: int = 1

    scale: ClassVar[float] = 1.0
    targets_answer: ClassVar[bool] = False

    def message(
        self, source: int, target: int, nbytes: int, now: float
    ) -> tuple[float, float]:
        """Send a message; return when it has left its sender, and when it is there."""
        del source, target  # all are equally far
        there = now + self.latency + nbytes / self.bandwidth
        return there, there

    def keeps(self, nbytes: int) -> bool:
        """Tell whether a message leaves before a rank has asked for it: none does."""
        del nbytes
        return False

    def allreduce(self, nbytes: int, rank: int, now: float) -> tuple[float, float]:
        """Return the seconds that links are occupied, and the latency on top."""
        del rank, now
        return nbytes / self.bandwidth, self.latency


class Interconnect:
    """A network of nodes; every method returns seconds of virtual time.

    Parameters
    ----------
    spec : NetworkSpec
        Its numbers.
    size : int
        Ranks.
    model_bytes : int
        Size of the model that is computed with; `spec.wire_bytes` is what it stands
        for on the wire.
    slow : SlowLinksSpec, optional
        Links that are slower than the others.
    seed : int
        Of the traffic of others.

    Attributes
    ----------
    scale : float
        Bytes on the wire per byte of a vector.
    nodes : list of int
        Every rank's node.
    targets_answer : bool
        Whether targets must answer themselves: no hardware does it for them.
    """

    jitter = 0.0
    pieces = 1

    def __init__(
        self,
        spec: NetworkSpec,
        size: int,
        *,
        model_bytes: int = 0,
        slow: SlowLinksSpec | None = None,
        seed: int = 0,
    ) -> None:
        self.spec, self.size = spec, size
        self.targets_answer = spec.progress != "hardware"
        self.scale = spec.wire_bytes / model_bytes if spec.wire_bytes else 1.0
        self.nodes = [rank // spec.ranks_per_node for rank in range(size)]
        count = self.nodes[-1] + 1
        crowd = Crowd(spec.background, seed) if spec.background.probability else None
        links = SlowLinks(slow, self.nodes)
        self._slow = links if slow is not None else None
        self._node_latency = np.array([links.node_latency(node) for node in self.nodes])
        own = per_byte(spec.far.rate)
        slowest = [max(own, links.per_byte(node)) for node in range(count)]
        self._out = [Port(slowest[node], node, crowd) for node in range(count)]
        self._in = [Port(slowest[node], node, crowd) for node in range(count)]
        self._near, self._far = Costs(spec.near), Costs(spec.far)
        self._allreduces: dict[int, NDArray[np.float64]] = {}

    def wire(self, nbytes: int) -> float:
        """Return how many bytes a message has on the wire."""
        return nbytes if nbytes <= CONTROL else nbytes * self.scale

    def message(
        self, source: int, target: int, nbytes: int, now: float
    ) -> tuple[float, float]:
        """Send a message; return when it has left its sender, and when it is there."""
        if self.nodes[source] == self.nodes[target]:
            near = self._near
            there = now + near.overhead + self.wire(nbytes) * near.per_byte
            return there, there + (near.latency if source != target else 0.0)
        return self._carry(source, target, nbytes, now, now + self._far.overhead)

    def keeps(self, nbytes: int) -> bool:
        """Tell whether a message leaves before a rank has asked for it."""
        return self.wire(nbytes) <= self.spec.eager

    def _carry(
        self, source: int, target: int, nbytes: int, now: float, ready: float
    ) -> tuple[float, float]:
        """Take a message that is `ready` then from port to port."""
        slow, latency = self._slow, self._far.latency
        if slow is not None:
            latency += slow.latency(source, target)
        if nbytes <= CONTROL:
            return ready, ready + latency
        size = nbytes * self.scale
        out, into = self.nodes[source], self.nodes[target]
        began, left = self._out[out].carry(now, ready, size)
        wire = slow.wire(source, target) if slow is not None else None
        if wire is not None:
            left = max(left, wire.carry(now, began, size)[1])
        _, arrived = self._in[into].carry(now, began + latency, size)
        return left, max(arrived, left + latency)

    def _late(self, source: int, target: int) -> float:
        """Return by how much a message is later than on other links."""
        return self._slow.latency(source, target) if self._slow is not None else 0.0

    def word(self, origin: int, target: int, now: float) -> float:
        """Start a one-sided operation on a word, as `operation` does."""
        if origin == target:
            return now
        if self.nodes[origin] == self.nodes[target]:
            return now + self._near.word
        done = now + self._far.word
        if self._slow is not None:
            done += 2 * self._slow.latency(origin, target)
        return done

    def operation(
        self, kind: Operation, origin: int, target: int, nbytes: int, now: float
    ) -> float:
        """Start a one-sided operation that is answered at once; return when it is done.

        An operation on the own memory takes no time.
        """
        if origin == target:
            return now
        size = self.wire(nbytes)
        if self.nodes[origin] == self.nodes[target]:
            return now + self._near.operation(kind, size)
        far = self._far
        done = now + far.operation(kind, size)
        if nbytes <= CONTROL:
            return done + 2 * self._late(origin, target)
        asked = now + far.overhead
        if kind in FETCHING:
            asked += far.latency + self._late(origin, target)
            return max(done, self._carry(target, origin, nbytes, now, asked)[1])
        there = self._carry(origin, target, nbytes, now, asked)[1]
        return max(done, there + far.latency + self._late(origin, target))

    def exchange(self, origin: int, target: int, nbytes: int, now: float) -> float:
        """Get a model in blocks, put each back averaged; return when all is done.

        What comes and what goes share no port: a long model takes little more time
        than one way, a short one is a get and then a put.
        """
        size = self.wire(nbytes)
        here, there = self.nodes[origin], self.nodes[target]
        if here == there:
            came = now + self._near.operation("get", size)
            return came + self._near.operation("put", size)
        late = self._far.latency + self._late(origin, target)
        asked = now + self._far.overhead + late
        came = self._carry(target, origin, nbytes, now, asked)[1]
        per_byte = max(self._in[here].per_byte, self._in[there].per_byte)
        last = min(size, BLOCK_BYTES) * per_byte
        ready = max(asked, came - last * max(size / BLOCK_BYTES - 1, 0.0))
        put = self._carry(origin, target, nbytes, now, ready)[1]
        least = now + self._far.operation("get", size)  # as measured, one way
        return max(put, came + last + late, least) + late

    def answers_in(self, target: int, now: float) -> float:
        """Return the seconds until a computing target's progress thread looks."""
        period = self.spec.poll
        if self.spec.progress != "thread" or not period:
            return 0.0
        phase = period * target / self.size  # the threads of ranks are not in step
        return period - (now - phase) % period

    def must_answer(self, origin: int, target: int) -> bool:
        """Tell whether the target's processor takes part in an operation."""
        return self.targets_answer and self.nodes[origin] != self.nodes[target]

    def allreduce(self, nbytes: int, rank: int, now: float) -> tuple[float, float]:
        """Return what an all-reduce takes that all enter `now`, as `rank` sees it.

        Returns
        -------
        tuple of float
            Seconds for which links are occupied, and the latency on top.
        """
        if self.size == 1:
            return 0.0, 0.0
        spec = self.spec.allreduce
        empty = self._allreduce(0, now)[rank]
        occupied = self._allreduce(nbytes, now)[rank] - empty
        if spec.rate:
            occupied = max(occupied, self.wire(nbytes) * BITS / spec.rate)
        return float(occupied), float(max(empty, spec.seconds))

    def _allreduce(self, nbytes: int, now: float) -> NDArray[np.float64]:
        """Return every rank's seconds; priced once where they are always the same."""
        if self.spec.background.probability:
            return self._priced(nbytes, now)
        if nbytes not in self._allreduces:
            self._allreduces[nbytes] = self._priced(nbytes, now)
        return self._allreduces[nbytes]

    def _priced(self, nbytes: int, now: float) -> NDArray[np.float64]:
        spec = self.spec
        links = allreduce_cost.Links(
            nodes=np.array(self.nodes),
            near=(self._near.overhead + self._near.latency, self._near.per_byte),
            seconds=self._far.overhead + self._far.latency + self._node_latency,
            per_byte=np.array([self._out[node].price(now) for node in self.nodes]),
        )
        names: tuple[str, ...] = allreduce_cost.ALGORITHMS
        if spec.allreduce.algorithm != "auto":
            names = (spec.allreduce.algorithm,)
        size = self.wire(nbytes)
        found = [allreduce_cost.seconds(name, size, links) for name in names]
        return min(found, key=np.max)


class Costs:
    """The numbers of one class of pairs, ready for use."""

    def __init__(self, link: LinkSpec) -> None:
        self.latency, self.overhead = link.latency, link.overhead
        self.per_byte = per_byte(link.rate)
        self._measured = {
            kind: (cost.seconds, per_byte(cost.rate))
            for kind, cost in link.operations.items()
        }
        self._asked = 2 * (link.latency + link.overhead)
        self.word = self.operation("word", WORD)

    def operation(self, kind: Operation, size: float) -> float:
        """Return what an operation takes where no other is under way."""
        seconds, per_byte = self._measured.get(kind, (self._asked, self.per_byte))
        return seconds + size * per_byte
