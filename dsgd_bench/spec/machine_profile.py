"""The machine profile: what `dsgd-bench probe` has measured, and the network it makes.

A file of JSON. It holds medians and the straight lines fitted to them, in the
vocabulary of LogGP, and turns into the network that a simulation takes.
"""

from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct, structs

from dsgd_bench.errors import ConfigError
from dsgd_bench.io import files, user_text
from dsgd_bench.io.escape import utf8
from dsgd_bench.spec.network import (
    AllReduceSpec,
    LinkSpec,
    NetworkSpec,
    Operation,
    OperationSpec,
)
from dsgd_bench.spec.ranges import (
    Bytes,
    Count,
    FittedRate,
    Index,
    Many,
    NotNegative,
    Ranks,
    Seconds,
)

LARGEST = 2**24
"""Bytes of a machine profile: a thousand times what is written."""

VERSION = 1
"""Of the schema; grows when old profiles cannot be read any more."""

NEAR, FAR = "near", "far"
"""Classes of pairs: two ranks of one node, or of two nodes."""

ALLOCATED, CREATED = "allocate", "create"
"""Windows by ``MPI_Win_allocate``, as our fabric makes them, or ``MPI_Win_create``."""

PASSIVE: Literal["passive"] = "passive"
NEEDS_PROGRESS: Literal["needs-progress"] = "needs-progress"
NONE: Literal["none"] = "none"

Verdict: TypeAlias = Literal["passive", "needs-progress", "none"]
"""How a target that computes answers: by itself; if a thread of its own enters MPI now
and then; not before it calls MPI itself."""

Busy: TypeAlias = dict[str, dict[str, dict[str, "Answer"]]]
"""Class of pairs -> kind of window -> operation -> how it is answered."""

MESSAGES = "send_receive"

VECTORS: dict[Operation, str] = {
    "get": "get",
    "put": "put",
    "accumulate": "accumulate",
    "fetch": "get_accumulate",
}
WORDS = ("fetch_and_op", "compare_and_swap")
"""What a network calls its operations -> what they are called here, where MPI's names
are used; the two of `WORDS` are its ``word``."""


class Measured(Struct, frozen=True, forbid_unknown_fields=True):
    """One operation over a range of sizes, and the line through its times.

    Attributes
    ----------
    sizes : tuple of int
        Bytes.
    medians, p10, p90 : tuple of float
        Seconds, per size.
    samples : tuple of int
        How many times each size was timed.
    seconds : float
        Of an empty one, by the line.
    rate : float
        Bit/s that the line grows with; 0 where size makes no difference.
    overhead : float
        Seconds until the starting call returns, median over small sizes.
    residual_median, residual_max : float
        How far the medians lie from the line, relative to them.
    """

    sizes: tuple[Bytes, ...]
    medians: tuple[Seconds, ...]
    p10: tuple[Seconds, ...]
    p90: tuple[Seconds, ...]
    samples: tuple[Index, ...]
    seconds: Seconds
    rate: FittedRate
    overhead: Seconds
    residual_median: NotNegative
    residual_max: NotNegative


class Answer(Struct, frozen=True, forbid_unknown_fields=True):
    """How long an operation takes whose target computes; seconds.

    Without and with the progress thread; what we conclude.
    """

    alone: Seconds
    with_thread: Seconds
    verdict: Verdict


class GradientTime(Struct, frozen=True, forbid_unknown_fields=True):
    """What a gradient takes if all ranks compute; seconds."""

    batch: Count
    dimension: Many
    seconds: Seconds
    p10: Seconds
    p90: Seconds


class Profile(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What `dsgd-bench probe` has measured on one machine.

    Attributes
    ----------
    dsgd_profile : int
        Version of the schema.
    provenance : dict
        Time, hosts, libraries, environment, command.
    ranks, nodes, ranks_per_node : int
        How many took part, on how many nodes, and on the fullest one.
    pairs : dict
        ``near`` or ``far`` -> operation -> what it takes between two ranks.
    allreduce, neighborhood : dict
        Number of ranks -> an all-reduce of them; an exchange with both neighbors on a
        ring of them.
    busy_target : float
        Seconds that targets computed when `busy` was measured.
    busy : dict
        Class of pairs -> kind of window -> operation -> how it is answered.
    remedies : tuple of str
        What mends operations that wait.
    gradients : dict
        Problem -> what a gradient takes.
    timer : float
        Seconds that looking at the clock takes.
    name : str
        Of the file, without its ending; not written.
    """

    dsgd_profile: int
    provenance: dict[str, Any]
    ranks: Ranks
    nodes: Ranks
    ranks_per_node: Ranks
    pairs: dict[str, dict[str, Measured]]
    allreduce: dict[Ranks, Measured]
    neighborhood: dict[Ranks, Measured]
    busy_target: Seconds
    busy: Busy
    remedies: tuple[str, ...]
    gradients: dict[str, GradientTime]
    timer: Seconds
    name: str = ""

    def network(self, ranks: int, ranks_per_node: int | None = None) -> NetworkSpec:
        """Return the network of `ranks` ranks that this machine would be.

        Parameters
        ----------
        ranks : int
            How many are simulated.
        ranks_per_node : int, optional
            How many of them share a node; by default as many as were measured.

        Raises
        ------
        ConfigError
            If fewer ranks shared a node when it was measured, or only one node was
            measured and more are needed.
        """
        per_node = self.ranks_per_node if ranks_per_node is None else ranks_per_node
        if per_node > self.ranks_per_node:
            raise ConfigError(
                f"the machine profile '{self.name}' was measured with "
                f"{self.ranks_per_node} ranks per node, fewer than the {per_node} "
                f"asked for: probe again with {per_node} ranks on a node"
            )
        if ranks > per_node and FAR not in self.pairs:
            raise ConfigError(
                f"the machine profile '{self.name}' was measured on one node with "
                f"{self.ranks} ranks, and {ranks} ranks need more nodes or more ranks "
                f"on one: probe again on several nodes, or with {ranks} ranks"
            )
        near, far = self.pairs.get(NEAR, {}), self.pairs.get(FAR, {})
        return NetworkSpec(
            name=self.name,
            near=_link(near),
            far=_link(far or near),
            ranks_per_node=per_node,
            allreduce=self._allreduce(ranks),
            progress=self._progress(),
        )

    def _allreduce(self, ranks: int) -> AllReduceSpec:
        """Take the all-reduce of as many ranks, or of the next fewer measured."""
        if not self.allreduce:
            return AllReduceSpec()
        counts = sorted(self.allreduce)
        nearest = max((n for n in counts if n <= ranks), default=counts[0])
        found = self.allreduce[nearest]
        return AllReduceSpec(seconds=found.seconds, rate=found.rate)

    def _progress(self) -> Literal["hardware", "thread", "none"]:
        """Say who answers operations of other nodes, if runs may start the thread."""
        answers = self.busy.get(FAR, {}).get(ALLOCATED, {}).values()
        verdicts = {answer.verdict for answer in answers}
        if NONE in verdicts:
            return "none"
        return "thread" if NEEDS_PROGRESS in verdicts else "hardware"

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all.

        Raises
        ------
        ConfigError
            If it cannot be written.
        """
        content = utf8(msgspec.to_builtins(self))
        text = msgspec.json.format(msgspec.json.encode(content), indent=1)
        try:
            files.write_bytes(path, text + b"\n")
        except OSError as error:
            raise ConfigError(
                f"the machine profile {path} cannot be written ({error.strerror}): "
                "make room there, or name another file with --output"
            ) from None


def _link(operations: dict[str, Measured]) -> LinkSpec:
    """Return what messages and one-sided operations of one class of pairs cost.

    A message takes o + L + m G, so L is what the line starts with, less o.
    """
    if not operations:
        return LinkSpec()
    messages = operations[MESSAGES]
    overhead = min(messages.overhead, messages.seconds)
    costs: dict[Operation, OperationSpec] = {
        ours: OperationSpec(operations[name].seconds, operations[name].rate)
        for ours, name in VECTORS.items()
    }
    words = [operations[name].seconds for name in WORDS]
    costs["word"] = OperationSpec(sum(words) / len(words))
    return LinkSpec(messages.seconds - overhead, overhead, messages.rate, costs)


def read(path: Path) -> Profile:
    """Read a machine profile.

    Raises
    ------
    ConfigError
        If there is no such file, or it is no machine profile, or one of another
        version.
    """
    advice = "write one with `dsgd-bench probe`, on the ranks of an MPI job"
    try:
        found = msgspec.json.decode(user_text.read(path, limit=LARGEST))
    except ConfigError as error:
        raise ConfigError(f"{path}: the machine profile {error}; {advice}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}: this is no machine profile, as it is not JSON ({error}): {advice}"
        ) from None
    version = found.get("dsgd_profile") if isinstance(found, dict) else None
    if version is None:
        raise ConfigError(
            f"{path}: this is no machine profile, as it has no dsgd_profile: {advice}"
        )
    if version != VERSION:
        raise ConfigError(
            f"{path}: this is a machine profile of schema {version}, and this version "
            f"reads {VERSION}: {advice}"
        )
    try:
        profile = msgspec.convert(found, Profile, strict=False)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}: the machine profile is damaged ({error}): {advice}"
        ) from None
    for pair, operations in profile.pairs.items():
        if missing := {MESSAGES, *VECTORS.values(), *WORDS} - set(operations):
            raise ConfigError(
                f"{path}: the machine profile is damaged (pairs.{pair} lacks "
                f"{', '.join(sorted(missing))}): {advice}"
            )
    return structs.replace(profile, name=path.stem)
