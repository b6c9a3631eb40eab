"""What a ledger notes of every step: the one table of its columns.

A field below is a column. Its name and default are what code books on; its unit,
meaning and earlier names are what a trace says of it. The row of a step, the notes that
a new step forgets, the variables of a trace and `docs/trace-format.md` follow from the
fields: a new column is a field here, and a line where it is booked.

They are fields and not strings in a list, so that a misspelt account is an error of the
type checker; and a row is read by `operator.attrgetter`, which is as quick as the names
written out.
"""

from dataclasses import dataclass, field, fields
from typing import Any

NAN = float("nan")


@dataclass(frozen=True)
class Column:
    """One number of every step.

    Attributes
    ----------
    name : str
        Of the variable of a trace, and of what code books on.
    unit : str
        ``"s"``, ``"byte"``, ``"count"`` or ``"1"``.
    doc : str
        What it means, in a few words.
    former : tuple of str
        Names that traces of earlier schemas have for it.
    stored : bool
        Whether it is a variable of the trace; else merging uses it up.
    start : float
        What it is before anything is booked or noted.
    """

    name: str
    unit: str
    doc: str
    former: tuple[str, ...] = ()
    stored: bool = True
    start: float = 0.0


def _column(
    unit: str, doc: str, *, start: float = 0.0, former: str = "", stored: bool = True
) -> Any:
    """Return a field that begins at `start`; `former` lists earlier names."""
    told = {
        "unit": unit,
        "doc": doc,
        "former": former,
        "stored": stored,
        "start": start,
    }
    return field(default=start, metadata=told)


def _note(unit: str, doc: str, **told: Any) -> Any:
    return _column(unit, doc, start=NAN, **told)


@dataclass
class Spans:
    """Seconds by what they were spent on, since the ledger was opened: the accounts."""

    compute: float = _column("s", "computing the gradient, emulated time included")
    injected: float = _column("s", "slowdown injected into the gradient, as realized")
    transfer: float = _column(
        "s", "transferring data on the training thread", former="moving"
    )
    waiting: float = _column("s", "waiting for other ranks on the training thread")
    update: float = _column(
        "s",
        "arithmetic on models: the optimizer's update, averaging, de-biasing, copying",
        former="mixing",
    )
    snapshot: float = _column(
        "s", "copying the model for later evaluation", former="copying"
    )


@dataclass
class Traffic:
    """Bytes and messages by one rule for all: what was handed over to be sent.

    ``out`` leaves this rank, whichever rank started the transfer on it as origin;
    ``in`` is what this rank received or fetched. Control words (locks, versions) do not
    count. `scale` is bytes on the wire per byte of a vector: not 1 only where a
    simulated model stands for a larger one.
    """

    bytes_out: int = _column("byte", "bytes handed over to be sent", start=0)
    bytes_in: int = _column("byte", "bytes received or fetched", start=0)
    messages_out: int = _column("count", "messages handed over to be sent", start=0)
    messages_in: int = _column("count", "messages received or fetched", start=0)
    scale: float = 1.0

    def sent(self, nbytes: int, messages: int = 1) -> None:
        """Book `nbytes` handed over to be sent."""
        self.bytes_out += nbytes
        self.messages_out += messages

    def received(self, nbytes: int, messages: int = 1) -> None:
        """Book `nbytes` received or fetched."""
        self.bytes_in += nbytes
        self.messages_in += messages


@dataclass(kw_only=True)
class Notes:
    """What may be noted about one step, and is forgotten with it; NaN where unknown."""

    injected_asked: float = _column("s", "slowdown as asked for")
    loss: float = _note("1", "loss of the mini-batch")
    samples: float = _note("count", "samples of the mini-batch")
    staleness: float = _note("count", "staleness of the step's gradient, by its family")
    age: float = _note("count", "own step minus that of the oldest model averaged in")
    changes: float = _note("count", "changes of the own replica from read to update")
    included: float = _note("count", "gradients of all workers in the model read")
    delivered: float = _note("count", "own gradients that have reached every worker")
    weight: float = _note("1", "push-sum weight after the step")
    waited_for: float = _note("1", "rank that was waited for")
    meeting_start: float = _note("s", "entry into the first collective", stored=False)
    meeting_end: float = _note("s", "exit from the last collective", stored=False)


def _columns(record: type[Any]) -> tuple[Column, ...]:
    return tuple(
        Column(
            name=each.name,
            unit=each.metadata["unit"],
            doc=each.metadata["doc"],
            former=tuple(each.metadata["former"].split()),
            stored=each.metadata["stored"],
            start=each.metadata["start"],
        )
        for each in fields(record)
        if each.metadata  # all but the scale of the traffic
    )


ACCOUNTS, TRAFFIC, NOTES = map(_columns, (Spans, Traffic, Notes))

OTHER = Column("other", "s", "the rest of the step")
"""What is left of a step; computed when shards are merged, so no column of a row."""

ROW = (
    Column("start", "s", "start of the step since the common start"),
    Column("duration", "s", "duration of the step: the sum of compute to other"),
    *ACCOUNTS,
    Column(
        "overlapped",
        "s",
        "communication overlapped with the gradient, not in duration",
        ("hidden",),
    ),
    Column("flushing", "s", "flushing the trace while training goes on"),
    *TRAFFIC,
    *NOTES,
)
"""A row of the ledger, in this order."""

COLUMNS = tuple(column.name for column in ROW)
SPANS = tuple(column.name for column in ACCOUNTS)
"""Where the training thread's time goes; what is left of a step is 'other'."""
