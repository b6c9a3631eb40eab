"""Who cost what in a run, and what it would have taken otherwise."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dsgd_bench.errors import ConfigError
from dsgd_bench.replay.record import (
    NOTEWORTHY,
    Change,
    Record,
    seconds_per_epoch,
)
from dsgd_bench.replay.scenes import fitted, replay
from dsgd_bench.spec.network import NetworkSpec

FREE = 1e6
"""A network this many times faster costs nothing."""


@dataclass(frozen=True)
class Culprit:
    """What one cause cost.

    Attributes
    ----------
    name : str
    seconds : float
        Seconds per epoch that the run is shorter without it.
    """

    name: str
    seconds: float


@dataclass(frozen=True)
class Answers:
    """All that is known after the replays; times are seconds per epoch.

    Attributes
    ----------
    record : Record
        The run.
    network : NetworkSpec
        Over which it was replayed.
    replayed : float
        The replay in which nothing is changed.
    scenes : dict of str to float
        Replays in which something is, by what that is.
    culprits : tuple of Culprit
        The costliest first.
    waited : list of float or None
        By worker: what the others waited for it, as the trace has it.
    """

    record: Record
    network: NetworkSpec
    replayed: float
    scenes: dict[str, float]
    culprits: tuple[Culprit, ...]
    waited: list[float | None]

    @property
    def error(self) -> float:
        """By which share the unchanged replay is off."""
        return self.replayed / self.record.epoch - 1


def ask(
    path: Path,
    *,
    network: NetworkSpec | None = None,
    without_slow: tuple[int, ...] = (),
    times: float | None = None,
) -> Answers:
    """Replay a run unchanged, and with one thing after the other changed.

    Parameters
    ----------
    path : Path
        Trace of the run.
    network : NetworkSpec, optional
        Over which it is replayed, instead of one that is fitted to the trace.
    without_slow : tuple of int
        Workers that shall not be slow, in one replay all of them.
    times : float, optional
        A network so many times faster, above 0; together with `without_slow` in the
        same replay.

    Raises
    ------
    TraceError
        If the trace lacks what a replay needs.
    ConfigError
        If a rank is no worker, or `times` is not above 0.
    """
    if times is not None and not 0 < times < FREE:
        raise ConfigError(
            f"--faster-network is {times:g} but must be above 0 and below {FREE:g}"
        )
    record = Record(path)
    for rank in without_slow:
        if rank >= record.workers:
            raise ConfigError(
                f"--without-slow names rank {rank}, which is no worker of {path}: name "
                f"some of 0 to {record.workers - 1}"
            )
    network = network or fitted(record)

    @cache
    def took(change: Change) -> float:
        return seconds_per_epoch(replay(record, network, change))

    base = took(Change())
    asked = Change(frozenset(without_slow), times or 1.0)
    changes = {_words(asked): asked} if asked != Change() else {}
    changes["no slowdown"] = Change(frozenset(range(record.workers)))
    changes["network free"] = Change(network=FREE)
    scenes = {words: took(change) for words, change in changes.items()}
    culprits = [
        Culprit(name, base - took(change)) for name, change in _suspects(record)
    ]
    culprits.sort(key=lambda culprit: -culprit.seconds)
    waited = [record.waited_for(worker) for worker in range(record.workers)]
    return Answers(record, network, base, scenes, tuple(culprits), waited)


def _words(change: Change) -> str:
    """Return what the command asked for, in words."""
    words = []
    if change.fast:
        ranks = ", ".join(map(str, sorted(change.fast)))
        words.append(f"rank{'s' * (len(change.fast) > 1)} {ranks} not slow")
    if change.network != 1.0:
        words.append(f"network {change.network:g}x faster")
    return ", ".join(words)


def _suspects(record: Record) -> list[tuple[str, Change]]:
    """Return each cause and the change that takes it away."""
    slow = [
        (f"rank {worker}, {ratio:.3g}x slower", Change(frozenset({worker})))
        for worker, ratio in enumerate(record.slowness)
        if ratio > NOTEWORTHY
    ]
    links = record.trace.trial.slowdown.links
    if links.label:
        slow.append((f"slow {links.label}", Change(links=False)))
    return [
        *slow,
        ("network", Change(network=FREE)),
        ("jitter of gradient times", Change(steady=True)),
        ("update, snapshot, other", Change(work=False)),
    ]
