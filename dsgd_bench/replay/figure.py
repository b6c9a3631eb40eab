"""The figure of a replay: how long an epoch takes, as it was and otherwise."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from dsgd_bench import files
from dsgd_bench.errors import ConfigError
from dsgd_bench.replay.tables import epochs
from dsgd_bench.replay.whatif import Answers
from dsgd_bench.report import looks
from dsgd_bench.report.numbers import number


def write(path: Path, answers: Answers) -> None:
    """Write horizontal bars, one per replay, in the format that the name ends with.

    Raises
    ------
    ConfigError
        If the file cannot be written, or its name ends in no format there is.
    """
    with mpl.rc_context(looks.PAPER):
        figure = _bars(answers)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = path.suffix.removeprefix(".") or "png"
            with files.replacing(path) as scratch:
                figure.savefig(scratch, format=kind)
        except (OSError, ValueError) as error:
            raise ConfigError(f"--figure {path} cannot be written: {error}") from None


def _bars(answers: Answers) -> Figure:
    names, seconds = zip(*epochs(answers), strict=True)
    figure = Figure(figsize=(7.0, 0.36 * len(names) + 1.0), layout="constrained")
    axes = figure.subplots()
    colors = [
        looks.SPAN_COLORS["mixing"],
        *[looks.SPAN_COLORS["moving"]] * (len(names) - 1),
    ]
    bars = axes.barh(names, seconds, color=colors, height=0.7)
    axes.bar_label(bars, [number(value) for value in seconds], padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("time per epoch [s]")
    axes.set_title(answers.record.trace.trial.description)
    return figure
