"""Parameter servers: one model in parts on server ranks, which answer the workers.

A worker sends every server its part of a vector and receives a vector of the same size
back; what a server does with the one and answers with the other is the algorithm's. A
single rank is worker and server at once, without a message.

`Center`
    answers every worker at once, in the order of arrival.
`SynchronousCenter`
    waits for all workers, adds up what they sent, in the order of their ranks, and
    answers one after the other, so that the first send again while others are answered.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np

from dsgd_bench.arrays import Array, finish
from dsgd_bench.exchanges.overlapped import Overlapped
from dsgd_bench.exchanges.resumable import State
from dsgd_bench.fabric.base import Fabric, Resource, check_vector
from dsgd_bench.fabric.columns import Spans

Answer = Callable[[Array, Array, int], Array]
"""``answer(center, message, sender)`` changes the server's part of the model in place
and returns what is sent back: the part itself, the message, or an array of its own."""

SENT_AT, VERSION, STALENESS, LAST = range(4)
"""Words of a header: when it was sent; of a worker, the version of the model that its
vector comes from, of a server, the new one, the staleness of what it answers, and the
rank that it waited for last."""

LEAVING = -1.0
"""In place of a version, by a worker that will send nothing more."""


class Center(Resource):
    """The model in parts; collective to make and to close.

    Parameters
    ----------
    fabric : Fabric
        This rank's fabric.
    x : array of shape (dim,)
        Initial model, equal on every rank. On a server it becomes the part that this
        one serves, and zeros elsewhere: the sum over the servers is the whole model.
    answer : callable
        What a server does with a message.
    servers : int
        Number of servers: the last ranks, or none where there is only one rank.
    state : State, optional
        Of this rank, if it may be stopped and go on.

    Attributes
    ----------
    workers : int
        Number of workers.
    part : array
        The part of the model that this rank serves; empty on a worker, but the whole
        model on a single rank.
    """

    def __init__(
        self,
        fabric: Fabric,
        x: Array,
        answer: Answer,
        servers: int,
        state: State | None = None,
    ) -> None:
        check_vector(x)
        state = state or State()
        workers = fabric.size - servers if fabric.size > 1 else 1
        self._fabric, self._ledger, self._rank = fabric, fabric.ledger, fabric.rank
        self._answer = answer
        self.workers = workers
        self._parts = _parts(x.size, range(workers, fabric.size))
        if fabric.rank in self._parts:
            part = self._parts[fabric.rank]
            x[: part.start] = 0.0
            x[part.stop :] = 0.0
            self.part = x[part]
        else:  # without servers, a worker keeps the model itself
            self.part = x[:0] if self._parts else state.keep("center", x.copy())
        self._x = x
        self._message = np.empty_like(self.part)
        self._versions = state.keep("versions", np.zeros(1, np.int64))
        # by a worker, every server's version
        self._known = state.keep("known", np.zeros(fabric.size))
        self._basis, self._next_basis = self._known.copy(), self._known.copy()
        self._outgoing = np.zeros((fabric.size, 4))
        self._incoming = np.zeros((fabric.size, 4))
        self._header = np.zeros(4)
        # servers take headers from any worker, vectors from one that they choose; and
        # they may answer on one thread while they receive on another
        self._headers, self._messages = fabric.messages(), fabric.messages()
        self._answers = fabric.messages()
        self._overlapped = Overlapped(fabric)
        self._here = workers
        self._served_at, self._last = -np.inf, fabric.rank

    # --- workers

    def exchange(self, out: Array, into: Array) -> None:
        """Send `out` and receive the answer in `into`; waits for the servers.

        Until the last server has sent its answer that is waiting, then transfer.
        """
        started = self._fabric.now()
        np.copyto(self._basis, self._known)
        self._transfer(out, into)
        np.copyto(self._basis, self._known)
        self._book(started)

    def exchanging(self, out: Array, into: Array) -> AbstractContextManager[None]:
        """Exchange while the ``with`` block runs; both vectors are lent meanwhile.

        What is computed in the block comes from the version known when it began.
        """
        np.copyto(self._next_basis, self._known)
        if not self._parts:  # an update by this thread, overlapped with nothing
            self._transfer(out, into)
            np.copyto(self._basis, self._next_basis)
            return nullcontext()

        def work(account: Spans) -> None:
            started = self._fabric.now()
            self._transfer(out, into)
            account.transfer += self._fabric.now() - started

        return self._overlapped.during(work, self._book_overlapped)

    def _book_overlapped(self, started: float) -> None:
        np.copyto(self._basis, self._next_basis)
        self._book(started)

    def _transfer(self, out: Array, into: Array) -> None:
        if not self._parts:
            with self._ledger.updating:  # the only rank is worker and server at once
                np.copyto(self._message, out)
                np.copyto(into, self._answer(self.part, self._message, self._rank))
            self._versions += 1
            self._known[0] = self._versions[0]
            self._ledger.staleness = self._known.item(0) - 1 - self._basis.item(0)
            return
        headers, messages, back = self._headers, self._messages, self._answers
        own = self._fabric.offsets[self._rank]
        for server, part in self._parts.items():
            back.receive(self._incoming[server], server)
            back.receive(into[part], server)
        for server, part in self._parts.items():
            header = self._outgoing[server]
            header[SENT_AT] = self._fabric.now() - own
            header[VERSION] = self._basis[server]
            headers.send(header, server)
            messages.send(out[part], server)
        headers.wait()
        messages.wait()
        back.wait()
        answers = self._incoming[self.workers :]
        self._known[self.workers :] = answers[:, VERSION]
        slowest = answers[:, SENT_AT].argmax()
        self._served_at = answers[slowest, SENT_AT].item() + own
        self._last = int(answers[slowest, LAST])
        self._ledger.staleness = answers[:, STALENESS].max().item()
        self._ledger.traffic.sent(out.nbytes, len(answers))
        self._ledger.traffic.received(into.nbytes, len(answers))

    def _book(self, started: float) -> None:
        self._ledger.free_since = now = self._fabric.now()
        if not self._parts:
            return  # nothing was waited for
        blocked = now - started
        waiting = min(max(self._served_at - started, 0.0), blocked)
        self._ledger.training.waiting += waiting
        self._ledger.training.transfer += blocked - waiting
        if waiting > 0.0 and self._last != self._rank:
            self._ledger.waited_for = self._last

    # --- servers

    def serve(self) -> Iterator[Array]:
        """Answer until the last worker has left; yield the model after each message."""
        yield self._x
        while (sender := self._next()) is not None:
            self._receive(sender, self._message)
            self._reply(sender, self._worked(self._message, sender), self._rank)
            self._answers.wait()
            self._moved()
            yield self._x

    def _next(self) -> int | None:
        """Wait for a message; return the worker that sends it, None if all have left.

        Until it was sent that is waiting, then transfer.
        """
        fabric = self._fabric
        self._mark = started = fabric.now()
        while self._here:
            sender, _ = self._headers.take(self._header)
            if self._header[VERSION] == LEAVING:
                self._here -= 1
                continue
            np.copyto(self._incoming[sender], self._header)
            sent_at = self._header[SENT_AT].item() + fabric.offsets[self._rank]
            self._mark = min(max(sent_at, started), fabric.now())
            self._ledger.training.waiting += self._mark - started
            return sender
        return None

    def _receive(self, sender: int, out: Array) -> None:
        self._messages.receive(out, sender)
        self._messages.wait()
        self._ledger.traffic.received(out.nbytes)
        self._moved()

    def _worked(self, message: Array, sender: int) -> Array:
        """Let the algorithm change the model; return its answer."""
        with self._ledger.updating:
            answer = self._answer(self.part, message, sender)
            finish(self.part)
        self._mark = self._fabric.now()
        self._versions += 1
        return answer

    def _reply(self, worker: int, answer: Array, last: int) -> None:
        """Start sending the answer, with the staleness of what the worker sent."""
        header = self._outgoing[worker]
        header[SENT_AT] = self._fabric.now() - self._fabric.offsets[self._rank]
        header[VERSION] = version = self._versions.item(0)
        header[STALENESS] = version - 1 - self._incoming[worker, VERSION]
        header[LAST] = last
        self._answers.send(header, worker)
        self._answers.send(answer, worker)
        self._ledger.traffic.sent(answer.nbytes)

    def _moved(self) -> None:
        """Book the time since the last mark as transfer."""
        now = self._fabric.now()
        self._ledger.training.transfer += now - self._mark
        self._mark = now

    def close(self) -> None:
        """Announce to the servers that this worker leaves, wait for all ranks, free."""
        if self._rank < self.workers:
            self._header[VERSION] = LEAVING
            for server in self._parts:
                self._headers.send(self._header, server)
        self._overlapped.close()
        self._headers.close()
        self._messages.close()
        self._answers.close()


class SynchronousCenter(Center):
    """A center that waits for all workers; parameters as for `Center`.

    `answer` gets the mean of what they sent, and the rank that sent last. It does not
    return the mean: the next one comes into that memory while answers are under way.

    All answers at once would arrive together, and the servers' links stand idle the
    other way until then. One after the other they end no later, but the first to be
    answered sends its next gradient meanwhile. No server waits: a worker is ready for
    its answer before it sends.
    """

    def __init__(
        self,
        fabric: Fabric,
        x: Array,
        answer: Answer,
        servers: int,
        state: State | None = None,
    ) -> None:
        super().__init__(fabric, x, answer, servers, state)
        self._one = np.empty_like(self._message)
        # several servers begin with different workers, whose links they would share
        first = max(self._rank - self.workers, 0) * self.workers // max(servers, 1)
        self._turns = [(first + turn) % self.workers for turn in range(self.workers)]

    def serve(self) -> Iterator[Array]:
        """Answer until the workers have left; yield the model after each message."""
        yield self._x
        while True:
            last = self._add_up()
            self._overlapped.join()  # only now may the model change
            if last is None:
                return
            answer = self._worked(self._message, last)
            self._overlapped.begin(partial(self._answer_all, answer, last))
            for _ in range(self.workers):
                yield self._x

    def _answer_all(self, answer: Array, last: int, account: Spans) -> None:
        """Answer one worker after the other, while the next gradients arrive."""
        started = self._fabric.now()
        for worker in self._turns:
            self._reply(worker, answer, last)
            if worker not in self._fabric.near:  # on this node they share no link
                self._answers.wait()
        self._answers.wait()
        account.transfer += self._fabric.now() - started

    def _add_up(self) -> int | None:
        """Form the mean of what all workers send; return the worker that sent last.

        Added in the order of ranks, whichever arrives first. None if the workers have
        left.
        """
        ready: set[int] = set()
        for worker in range(self.workers):
            while worker not in ready:
                sender = self._next()
                if sender is None:
                    return None
                ready.add(sender)
            self._receive(worker, self._one)
            self._add(self._one, worker)
        with self._ledger.updating:
            self._message *= 1 / self.workers
        return int(self._incoming[: self.workers, SENT_AT].argmax())

    def _add(self, one: Array, worker: int) -> None:
        with self._ledger.updating:
            if worker == 0:
                np.copyto(self._message, one)
            else:
                self._message += one
            finish(one)
        self._mark = self._fabric.now()


def _parts(length: int, servers: range) -> dict[int, slice]:
    """Return the slice of the model that each server has, as equal as can be."""
    count = len(servers)
    return {
        server: slice(length * number // count, length * (number + 1) // count)
        for number, server in enumerate(servers)
    }
