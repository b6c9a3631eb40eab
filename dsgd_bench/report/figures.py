"""Which figures a report has, and where they are drawn; one file for each."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from dsgd_bench.analysis.comparison import Line
from dsgd_bench.analysis.scaling import curves
from dsgd_bench.report import (
    drawing,
    link_figure,
    link_table,
    looks,
    loss_figure,
    scaling_figure,
    server_figure,
    slowdown_figure,
    time_figure,
    validation_figure,
    validation_table,
)
from dsgd_bench.report.drawing import Drawing, Lines, Plan
from dsgd_bench.report.study import Study

LONGEST = 160
"""Letters of the name of a figure's file, before what it shows."""


def draw(studies: Sequence[Study], folder: Path) -> tuple[list[Drawing], list[str]]:
    """Draw every figure that the studies have data for into `folder`.

    Returns
    -------
    list of Drawing, list of str
        What was drawn, and a sentence for what could not be, or not well.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawings: list[Drawing] = []
    remarks: list[str] = []
    for path, drawn, caption in _planned(studies, folder):
        with warnings.catch_warnings(record=True) as caught:
            try:
                drawings.append(drawing.draw(path, drawn, caption))
            except Exception as error:  # noqa: BLE001 (whatever it is, the other figures and all numbers do not depend on it)
                remarks.append(f"{path.name} was not drawn: {looks.said(error)}.")
        remarks += [f"{path.name}: {warning.message}" for warning in caught]
    return drawings, remarks


def _planned(studies: Sequence[Study], folder: Path) -> Iterator[Plan]:
    bounded = link_table.lines(studies)
    if link_figure.has_data(bounded):
        drawn = partial(link_figure.steps_beside_bounds, bounded)
        yield folder / "bounds.png", drawn, link_figure.CAPTION
    compared = validation_table.pairs(studies)
    if validation_figure.has_data(compared):
        drawn = partial(validation_figure.simulated_beside_measured, compared)
        yield folder / "validation.png", drawn, validation_figure.CAPTION
    for study in studies:
        yield from _plan_study(study, folder)
        for case, lines in _cases(study):
            yield from _plan_case(study, case, lines, folder)


def _plan_study(study: Study, folder: Path) -> Iterator[Plan]:
    """Plan what needs all points of a study: servers, and scaling."""
    stem = _stem(study.name)
    if server_figure.has_data(study.loads):
        drawn = partial(server_figure.servers_against_workers, study.loads)
        caption = f"{study.name}: {server_figure.CAPTION}"
        yield folder / f"{stem}-servers.png", drawn, caption
    if scaled := curves(study.rows):
        drawn = partial(scaling_figure.excess_against_gradients, scaled)
        caption = f"{study.name}: {scaling_figure.CAPTION}"
        yield folder / f"{stem}-scaling.png", drawn, caption


def _cases(study: Study) -> Iterator[tuple[str, list[Line]]]:
    for case in dict.fromkeys(line.case for line in study.lines):
        yield case, [line for line in study.lines if line.case == case]


def _plan_case(study: Study, case: str, lines: Lines, folder: Path) -> Iterator[Plan]:
    stem = _stem(*(word for word in (study.name, *case.split(", ")) if word))
    of = f"{study.name}, {case}" if case else study.name
    for name, (has_data, drawn, caption) in FIGURES.items():
        if has_data(lines):
            path = folder / f"{stem}-{name}.png"
            yield path, partial(drawn, lines), f"{of}: {caption}"


def _stem(*words: str) -> str:
    """Return the start of a file's name: the words without special characters."""
    name = "".join(c if c.isalnum() or c in "-._" else "_" for c in "-".join(words))
    return name[:LONGEST]


FIGURES: dict[str, tuple[Callable[[Lines], bool], Callable[[Lines], Figure], str]] = {
    "loss": (loss_figure.has_data, loss_figure.loss_against_time, loss_figure.CAPTION),
    "slowdown": (
        slowdown_figure.has_data,
        slowdown_figure.epoch_against_slowdown,
        slowdown_figure.CAPTION,
    ),
    "time": (time_figure.has_data, time_figure.where_time_went, time_figure.CAPTION),
}
"""Name -> (whether there is data, drawing, caption)."""
