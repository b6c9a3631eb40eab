"""Push-sum: numerators and weights travel together, and their ratio is the model.

Averaging with a column-stochastic matrix P, in which a rank only decides how it splits
its own numerator, conserves sum_i x_i on any directed graph, but equal models do not
stay equal.
Weights w_i that start at 1 and go through the same sums undo that: z_i = x_i / w_i (D.
Kempe, A. Dobra and J. Gehrke, FOCS 2003; M. Assran et al., arXiv:1811.10792).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from dsgd_bench.arrays import Array, copy, finish
from dsgd_bench.arrays.updates import debias
from dsgd_bench.exchanges.inbox import Inbox
from dsgd_bench.exchanges.neighbors import Exchange
from dsgd_bench.exchanges.overlapped import Overlapped
from dsgd_bench.exchanges.resumable import State
from dsgd_bench.fabric.base import BACK_OFF_SECONDS, Fabric, Resource, check_vector
from dsgd_bench.fabric.columns import Spans
from dsgd_bench.graphs import Graph

POLL_SECONDS = (*BACK_OFF_SECONDS, 200e-6, 500e-6)
"""Seconds between two polls for a message, which may take a slow rank's step."""

SLOTS = 2
"""Messages of one edge that may be unread; a sender does not run far ahead anyway."""


class WeightedSum:
    """Numerator x and weight w of one rank, in one vector of dim + 1 elements.

    A message is a share of the vector, so x and w go through the same operations in
    the same order, element by element.

    Parameters
    ----------
    start : array of shape (dim,)
        First numerator; the first weight is 1.
    """

    def __init__(self, start: Array) -> None:
        check_vector(start)
        self.packet: Array = np.ones_like(start, shape=start.size + 1)
        self.x: Array = self.packet[:-1]
        self.x[:] = start

    @property
    def w(self) -> float:
        """The weight."""
        return float(self.packet[-1])

    def debias(self, z: Array, weights: bool) -> None:
        """Compute ``z <- x / w``; without `weights` z is x itself."""
        if weights:
            debias(self.x, self.packet[-1:], z)
        else:
            copy(self.x, z)


@dataclass(frozen=True)
class Phase:
    """What one rank sends and receives in one step of a graph's cycle.

    Attributes
    ----------
    kept : float
        Share of its numerator and weight that it keeps.
    sends : tuple of (float, tuple of int)
        Share that goes to each of these ranks; one entry per different share.
    sources : tuple of int
        Ranks that it receives from, ascending.
    """

    kept: float
    sends: tuple[tuple[float, tuple[int, ...]], ...]
    sources: Sequence[int]

    @property
    def targets(self) -> tuple[int, ...]:
        """Ranks that it sends to."""
        return tuple(target for _, targets in self.sends for target in targets)


def phases(graph: Graph, rank: int) -> tuple[Phase, ...]:
    """Return the cycle of `rank` on a graph, with the shares ``graph.shares``."""
    found = []
    for step in range(graph.period):
        given = graph.shares(step)[:, rank].tolist()
        targets = graph.targets(rank, step)
        shares = sorted({given[target] for target in targets})
        sends = tuple(
            (share, tuple(target for target in targets if given[target] == share))
            for share in shares
        )
        found.append(Phase(given[rank], sends, graph.sources(rank, step)))
    return tuple(found)


class _Push(Resource):
    """What both forms have: numerator and weight, buffers of what is sent, account."""

    def __init__(
        self,
        fabric: Fabric,
        z: Array,
        cycles: Sequence[Sequence[Phase]],
        weights: bool,
        state: State,
    ) -> None:
        self._fabric, self._ledger = fabric, fabric.ledger
        self._z, self._weights = z, weights
        self._sum = WeightedSum(z)
        state.keep("mass", self._sum.packet)
        self.x = self._sum.x
        different = [len(phase.sends) for cycle in cycles for phase in cycle]
        self._packets = [
            np.empty_like(self._sum.packet) for _ in range(max(different, default=0))
        ]

    def _split(self, phase: Phase) -> list[tuple[Array, int]]:
        """Return the shares to be sent, with their targets; keep the own one."""
        whole, parcels = self._sum.packet, []
        with self._ledger.updating:
            for packet, (share, targets) in zip(
                self._packets, phase.sends, strict=False
            ):
                np.multiply(whole, share, out=packet)
                parcels += [(packet, target) for target in targets]
            if parcels:
                whole *= phase.kept
            finish(whole)
        return parcels

    def _add(self, packet: Array) -> None:
        with self._ledger.updating:
            self._sum.packet += packet
            finish(packet)

    def _debias(self) -> None:
        with self._ledger.updating:
            self._sum.debias(self._z, self._weights)
            self._ledger.weight = self._sum.w


class Push(_Push):
    """Push-sum in step: each rank waits for the messages of this step, no others.

    Parameters
    ----------
    fabric : Fabric
        This rank's fabric.
    z : array of shape (dim,)
        First numerator; holds the model x / w from then on.
    *graphs : Graph
        Those that `mix` will be called with.
    weights : bool
        Without them z is the numerator itself, although weights are still sent.
    state : State, optional
        Of this rank, if it may be stopped and go on.

    Attributes
    ----------
    x : array of shape (dim,)
        The numerator; a gradient moves it.
    """

    def __init__(
        self,
        fabric: Fabric,
        z: Array,
        *graphs: Graph,
        weights: bool = True,
        state: State | None = None,
    ) -> None:
        self._cycles = {graph.name: phases(graph, fabric.rank) for graph in graphs}
        cycles = list(self._cycles.values())
        super().__init__(fabric, z, cycles, weights, state or State())
        most = max(len(phase.sources) for cycle in cycles for phase in cycle)
        self._received = [np.empty_like(self._sum.packet) for _ in range(most)]
        self._exchange = Exchange(fabric)

    def mix(self, graph: Graph, step: int) -> None:
        """Compute ``x_i <- sum_j p_ij x_j``, and w alike, by `graph` in `step`."""
        cycle = self._cycles[graph.name]
        phase = cycle[step % len(cycle)]
        parcels = self._split(phase)
        arrivals = list(zip(self._received, phase.sources, strict=False))
        if parcels or arrivals:
            self._exchange.run(parcels, arrivals)
        for packet, _ in arrivals:
            self._add(packet)

    def debias(self) -> None:
        """Compute ``z <- x / w``; the ledger notes the weight."""
        self._debias()

    def close(self) -> None:
        """Give the channel back; z holds the final model. Collective."""
        self._exchange.close()


class OverlappedPush(_Push):
    """Push-sum overlapped with gradients: messages may take up to `tau` steps.

    One-sided, over an `Inbox`. What is sent in step k is split off at once and put by a
    helper thread; the receiver adds it when it is there, and waits for it at the end of
    step k + tau. With tau = 0 the transfer is awaited in the same step, and messages
    are taken in the order of `Push`.

    No worker waits forever. (1) A worker that waits, for a message or for a full ring,
    adds every message that arrives, and one that computes does so afterwards; so every
    ring has room after a while, and every message that was begun arrives. (2) Of the
    workers that wait for a message, one has taken the fewest steps: its message is from
    a step that its source has begun, or will come to, because the source does not wait.
    With tau = 0 only messages of the own step are taken: then a ring is filled by
    messages that the receiver, in an earlier step than the sender, is still to come to,
    and of the workers in the earliest step none waits for room. (3) A worker that
    leaves announces it, and no worker waits for it any more; it goes on adding messages
    until its sources have left.

    Parameters
    ----------
    fabric, z, weights, state
        As for `Push`.
    graph : Graph
        Along whose edges is sent; its cycle goes one phase further with every sending
        step.
    tau : int
        Gradient steps until a message is waited for. Every max(tau, 1)-th step sends.

    Attributes
    ----------
    x : array of shape (dim,)
        The numerator; a gradient moves it.
    """

    def __init__(
        self,
        fabric: Fabric,
        z: Array,
        graph: Graph,
        *,
        tau: int,
        weights: bool = True,
        state: State | None = None,
    ) -> None:
        state = state or State()
        self._cycle = phases(graph, fabric.rank)
        super().__init__(fabric, z, [self._cycle], weights, state)
        self._every, self._late = max(tau, 1), tau > 0
        sources = {source for phase in self._cycle for source in phase.sources}
        targets = {target for phase in self._cycle for target in phase.targets}
        self._arrival = np.empty_like(self._sum.packet)
        self._inbox = Inbox(
            fabric, self._arrival, sorted(sources), sorted(targets), slots=SLOTS
        )
        taken = fabric.gather(state.step)  # all that was sent before a stop is in
        self._newest = {source: taken[source] - 1 for source in sources}
        self._overlapped = Overlapped(fabric)
        self._looked = 0.0
        self._step = 0

    def send(self, step: int) -> None:
        """Split off this step's shares and start sending them."""
        self._step = step
        self._end_sending()
        parcels = self._split(self._phase(step))
        if not self._late:
            self._transfer(parcels, step, self._ledger.training)
        elif parcels:
            self._overlapped.begin(partial(self._transfer, parcels, step))

    def wait_for(self, step: int) -> None:
        """Wait until all messages that were sent to this rank in `step` are in."""
        for source in self._phase(step).sources:
            tries = 0
            while self._newest[source] < step:
                if self._take(None if self._late else source):
                    tries = 0
                elif self._inbox.left(source):
                    break
                else:
                    tries = self._pause(tries)

    def collect(self, step: int) -> None:
        """Add all that has arrived, and compute ``z <- x / w``.

        As staleness the ledger notes `step` minus the step of the oldest message taken
        in, at least 0; as age the same, below 0 for a message of a later step.
        """
        self._step = step
        while self._late and self._take():
            pass
        self._debias()

    def _phase(self, step: int) -> Phase:
        return self._cycle[step // self._every % len(self._cycle)]

    def _transfer(
        self, parcels: Sequence[tuple[Array, int]], step: int, account: Spans
    ) -> None:
        for packet, target in parcels:
            tries = 0
            while not self._inbox.push(target, packet, step, account=account):
                started = self._fabric.now()
                self._fabric.pause(POLL_SECONDS[min(tries, len(POLL_SECONDS) - 1)])
                account.waiting += self._fabric.now() - started
                tries += 1

    def _end_sending(self) -> None:
        """Wait until the last messages have been put, adding what arrives."""
        tries = 0
        while self._overlapped.running:
            tries = 0 if self._take() else self._pause(tries)
        self._overlapped.join()

    def _take(self, source: int | None = None) -> bool:
        """Add the next message, if there is one."""
        self._looked = self._fabric.now()
        found = self._inbox.take(self._arrival, source)
        if found is None:
            return False
        self._add(self._arrival)
        source, stamp = found
        self._newest[source] = stamp
        self._ledger.averaged(self._step - stamp)
        self._ledger.staleness = max(0.0, self._ledger.age)
        return True

    def _pause(self, tries: int) -> int:
        """Back off after a poll in vain; both are waiting. Return the tries."""
        self._fabric.pause(POLL_SECONDS[min(tries, len(POLL_SECONDS) - 1)])
        self._ledger.training.waiting += self._fabric.now() - self._looked
        return tries + 1

    def close(self) -> None:
        """Add all that is in flight; z holds the final model. Collective."""
        self._end_sending()
        self._inbox.leave()
        tries = 0
        while not self._inbox.exhausted:
            if not self._take():
                tries = self._pause(tries)
        self._debias()
        self._overlapped.close()
        self._inbox.close()
