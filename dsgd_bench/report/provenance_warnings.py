"""What differs between the runs of one table: hosts, software, machine files."""

from collections.abc import Iterator, Mapping
from typing import Any

from dsgd_bench.host import provenance
from dsgd_bench.io.escape import plain
from dsgd_bench.report.evidence import Evidence

VOLATILE = (
    "environment",
    "time_utc",
    "load_average",
    "executable",
    "cpus_allowed",
    "placement",
    "clocks",
    "kernel_id",  # another one after each boot
    "known_bugs",
    "gpus",  # one entry per rank; their kind is "gpu"
    "links",  # a condition of its own: points of other links are other points
)
"""Provenance that may differ between runs of one table."""

IDLE = ("watchdog", "stop_margin", "when_stopped", "slurm.", "links.")
"""Beginnings of a machine file's keys that change no number of a whole run; links are
a condition of its own."""


def mixed_provenance(evidence: Evidence) -> Iterator[str]:
    """Name what differs between hosts or software of one table."""
    # More ranks may need more hosts: that alone mixes nothing.
    found: dict[tuple[str, int], set[str]] = {}
    for row in evidence.rows:
        for name, value in facts(row.provenance).items():
            found.setdefault((name, row.trial.ranks), set()).add(value)
    mixed = {name: values for (name, _), values in found.items() if len(values) > 1}
    if mixed:
        words = "; ".join(
            f"{name}: {' and '.join(sorted(values))}"
            for name, values in sorted(mixed.items())[:4]
        )
        yield (
            f"The runs differ in more than the study ({words}). Their times are not"
            " comparable. Run the whole study on one machine with one library, into"
            " one results folder each."
        )


def mixed_machines(evidence: Evidence) -> Iterator[str]:
    """Name what differs between the machine files of one table."""
    files = [provenance.settings(each) for each in evidence.collected.machines]
    found: dict[str, set[str]] = {}
    for key in sorted({key for flat in files for key in flat}):
        values = {provenance.setting(key, flat) for flat in files}
        if len(values) > 1 and not key.startswith(IDLE):
            found[plain(key)] = values
    if found:
        words = "; ".join(
            f"{key}: {' and '.join(sorted(values))}"
            for key, values in list(found.items())[:4]
        )
        yield (
            f"The runs were started with different machine files ({words}). Their times"
            " are not comparable. Run the whole study with one of them, into a results"
            " folder of its own."
        )


def facts(provenance: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return the provenance that must agree, flat: ``{"host.cpu": "...", ...}``."""
    flat: dict[str, str] = {}
    for name, value in provenance.items():
        if name in VOLATILE or value is None:
            continue
        if isinstance(value, Mapping):
            flat |= facts(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            flat[prefix + name] = ", ".join(sorted({str(item) for item in value}))
        else:
            flat[prefix + name] = str(value)
    return flat
