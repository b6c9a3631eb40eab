"""What a replay prints, and what it writes as JSON."""

import json
from pathlib import Path

from dsgd_bench.bench.output import table
from dsgd_bench.config import naming
from dsgd_bench.config.identity import trial_id
from dsgd_bench.errors import ConfigError
from dsgd_bench.io.files import write_text
from dsgd_bench.replay.whatif import Answers
from dsgd_bench.report.numbers import number

TRUSTED = 0.15
"""A replay that is off by more explains little, and the output says so."""


def epochs(answers: Answers) -> list[tuple[str, float]]:
    """Return what an epoch takes, in seconds, by what is different."""
    virtual = answers.record.trace.fabric == "virtual"
    return [
        ("as simulated" if virtual else "as measured", answers.record.epoch),
        ("replayed, nothing changed", answers.replayed),
        *answers.scenes.items(),
    ]


def lines(answers: Answers) -> list[str]:
    """Return the answers as a user reads them."""
    trace = answers.record.trace
    rows = [
        {
            "What if": name,
            "s per epoch": number(seconds),
            "Of the replay": _share(seconds / answers.replayed),
        }
        for name, seconds in epochs(answers)
    ]
    return [
        f"# {naming.description(trace.trial)}, {trace.path}",
        f"# network: {answers.network.name or 'of the trial'}",
        *table(rows),
        "",
        _error(answers),
        "",
        *table(_culprits(answers)),
        "",
        "What each costs: the replay is that much shorter without it alone. Costs that",
        "hide behind each other count nowhere, and the sum is not the epoch.",
        "",
        *table(_waited(answers)),
    ]


def _error(answers: Answers) -> str:
    error = answers.error
    words = f"The unchanged replay is off by {100 * error:+.1f} %"
    if abs(error) <= TRUSTED:
        return f"{words}."
    return (
        f"{words}, more than {100 * TRUSTED:.0f} %: it does not explain this run, and "
        "what follows is not to be trusted."
    )


def _culprits(answers: Answers) -> list[dict[str, str]]:
    return [
        {
            "Who cost what": culprit.name,
            "s per epoch": number(culprit.seconds),
            "Of the replay": _share(culprit.seconds / answers.replayed),
        }
        for culprit in answers.culprits
    ]


def _waited(answers: Answers) -> list[dict[str, str]]:
    return [
        {
            "Rank": str(worker),
            "Slower than the others": f"{slower:.3g}x",
            "They waited for it, rank-s per epoch": number(waited),
        }
        for worker, (slower, waited) in enumerate(
            zip(answers.record.slowness, answers.waited, strict=True)
        )
    ]


def _share(share: float) -> str:
    return f"{100 * share:.1f} %".replace("-0.0", "0.0")


def write_json(path: Path, answers: Answers) -> None:
    """Write all numbers; times are seconds per epoch.

    Raises
    ------
    ConfigError
        If the file cannot be written.
    """
    record = answers.record
    content = {
        "trace": str(record.trace.path),
        "trial": trial_id(record.trace.trial),
        "network": answers.network.name,
        "measured": record.epoch,
        "replayed": answers.replayed,
        "error": answers.error,
        "what_if": answers.scenes,
        "cost": {culprit.name: culprit.seconds for culprit in answers.culprits},
        "slowness": record.slowness,
        "waited_for": answers.waited,
    }
    try:
        write_text(path, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"--json {path} cannot be written: {error}") from None
