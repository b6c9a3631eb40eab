"""The figure of a replay: how long an epoch takes, as it was and otherwise."""

from pathlib import Path
from typing import TYPE_CHECKING

from dsgd_bench.config import naming
from dsgd_bench.errors import ConfigError
from dsgd_bench.io import files
from dsgd_bench.replay.tables import epochs
from dsgd_bench.replay.whatif import Answers
from dsgd_bench.report import looks
from dsgd_bench.report.numbers import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")


def check(path: Path) -> None:
    """Refuse a name that says no format, before anything is replayed.

    Raises
    ------
    ConfigError
        If it does not.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(
            f"--figure {path} cannot be written: its name must end in one of "
            f"{', '.join(FORMATS)}"
        )


def write(path: Path, answers: Answers) -> None:
    """Write horizontal bars, one per replay, in the format that the name ends with.

    Raises
    ------
    ConfigError
        If it cannot be drawn or written.
    """
    try:
        with looks.own_settings(), looks.paper(), files.replacing(path) as scratch:
            _bars(answers).savefig(scratch, format=path.suffix[1:])
    except Exception as error:  # noqa: BLE001 (whatever a library or the disk has, the numbers are printed)
        said = looks.said(error)
        raise ConfigError(f"--figure {path} cannot be written: {said}") from None


def _bars(answers: Answers) -> "Figure":
    from matplotlib.figure import Figure

    names, seconds = zip(*epochs(answers), strict=True)
    figure = Figure(figsize=(7.0, 0.36 * len(names) + 1.0), layout="constrained")
    axes = figure.subplots()
    colors = [
        looks.SPAN_COLORS["update"],
        *[looks.SPAN_COLORS["transfer"]] * (len(names) - 1),
    ]
    bars = axes.barh(names, seconds, color=colors, height=0.7)
    axes.bar_label(bars, [number(value) for value in seconds], padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("time per epoch [s]")
    axes.set_title(naming.description(answers.record.trace.trial))
    return figure
