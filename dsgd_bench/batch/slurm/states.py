"""Every state that Slurm has for a job, and what it means for the job's trials.

The table of docs/cluster.md is this one; a test holds them together. Names and codes
are those of ``squeue``, ``sacct`` and ``scontrol``, flags of a job included, which some
versions show in place of its state.
"""

import re
from collections.abc import Sequence

RUNNING, PENDING = "running", "pending"
BACK, OVER = "may come back", "over"

STATES = {
    "PENDING": ("PD", PENDING),
    "CONFIGURING": ("CF", PENDING),
    "POWER_UP_NODE": ("", PENDING),
    "EXPEDITING": ("", PENDING),
    "REQUEUED": ("RQ", PENDING),
    "REQUEUE_FED": ("RF", PENDING),
    "REQUEUE_HOLD": ("RH", PENDING),
    "RESV_DEL_HOLD": ("RD", PENDING),
    "SPECIAL_EXIT": ("SE", PENDING),
    "SUSPENDED": ("S", PENDING),
    "RUNNING": ("R", RUNNING),
    "COMPLETING": ("CG", RUNNING),
    "STAGE_OUT": ("SO", RUNNING),
    "SIGNALING": ("SI", RUNNING),
    "RESIZING": ("RS", RUNNING),
    "STOPPED": ("ST", RUNNING),
    "PREEMPTED": ("PR", BACK),
    "NODE_FAIL": ("NF", BACK),
    "LAUNCH_FAILED": ("", BACK),
    "RECONFIG_FAIL": ("", BACK),
    "REVOKED": ("RV", BACK),
    "UPDATE_DB": ("", BACK),
    "COMPLETED": ("CD", OVER),
    "FAILED": ("F", OVER),
    "CANCELLED": ("CA", OVER),
    "TIMEOUT": ("TO", OVER),
    "OUT_OF_MEMORY": ("OOM", OVER),
    "DEADLINE": ("DL", OVER),
    "BOOT_FAIL": ("BF", OVER),
}
"""Slurm's word -> its short code, if it has one, and what it counts as.

What `may come back` holds its trials only while the queue lists the job: Slurm puts
such jobs back by itself, and lists all that it may put back. In accounts it is over.
"""

CODES = {code: name for name, (code, _) in STATES.items() if code}

GONE = "gone"
"""State of a job that neither queue nor accounts know."""

UNSURE = "may be queued"
"""State of a job of which it is not known whether Slurm has accepted it."""


def alive(state: str) -> bool:
    """Tell whether a job in a state that `together` returned holds its trials."""
    return state.startswith((RUNNING, PENDING, "may "))


def unsure(state: str) -> bool:
    """Tell whether it is not known what became of a job."""
    return state.startswith("may be ")


def together(words: Sequence[str], *, listed: bool) -> str:
    """Return one state for all elements of a job, which is that of the liveliest.

    Parameters
    ----------
    words : sequence of str
        What Slurm says of each.
    listed : bool
        Whether the queue lists the job; else this is from accounts.

    Returns
    -------
    str
        ``running``, ``pending``, ``may come back (...)``, ``may be alive (...)`` for
        words that are not known, how it ended in lower case, or ``gone``.
    """
    names = [name for word in words for name in _names(word)]
    if not names:
        return GONE
    kinds = {name: STATES[name][1] if name in STATES else "" for name in names}
    for kind in (RUNNING, PENDING):
        if kind in kinds.values():
            return kind
    back = sorted(name.lower() for name in names if kinds[name] == BACK)
    unknown = sorted({name for name in names if not kinds[name]})
    if back and listed:
        return f"{BACK} ({', '.join(dict.fromkeys(back))})"
    if unknown:
        return f"may be alive ({', '.join(unknown)})"
    return ", ".join(sorted({name.lower() for name in names}))


def _names(word: str) -> list[str]:
    """Return the states in a word such as ``CANCELLED by 7``, ``OUT_OF_ME+`` or ``PD``.

    Tables cut long words and end them with a plus sign; some versions give several.
    """
    first = next(iter(word.upper().split()), "")
    return [_name(part) for part in re.split(r"[,|&]", first) if part]


def _name(word: str) -> str:
    word = CODES.get(word, word)
    if not word.endswith("+"):
        return word
    stem = word.rstrip("+")
    longer = [name for name in STATES if stem and name.startswith(stem)]
    return longer[0] if len(longer) == 1 else stem or word
