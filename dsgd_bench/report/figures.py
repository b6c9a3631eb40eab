"""Which figures a report has, and where they are drawn; one file for each."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from dsgd_bench.analysis.comparison import Line
from dsgd_bench.report import (
    drawing,
    link_figure,
    looks,
    loss_figure,
    scaling_figure,
    server_figure,
    slowdown_figure,
    time_figure,
    validation_figure,
)
from dsgd_bench.report.drawing import Drawing, Kind, Lines, Plan
from dsgd_bench.report.study import Study

LONGEST = 160
"""Letters of the name of a figure's file, before what it shows."""


OF_ALL: tuple[Kind[Sequence[Study]], ...] = (
    link_figure.FIGURE,
    validation_figure.FIGURE,
)
"""Figures about all studies of a report together."""

OF_STUDY: tuple[Kind[Study], ...] = (server_figure.FIGURE, scaling_figure.FIGURE)
"""Figures that need all points of one study."""

OF_CASE: tuple[Kind[Lines], ...] = (
    loss_figure.FIGURE,
    slowdown_figure.FIGURE,
    time_figure.FIGURE,
)
"""Figures of the points of one case of a study."""


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
    for each in OF_ALL:
        yield from each.plan(studies, folder)
    for study in studies:
        for kind in OF_STUDY:
            yield from kind.plan(study, folder, _stem(study.name), study.name)
        for case, lines in _cases(study):
            words = [word for word in (study.name, *case.split(", ")) if word]
            of = f"{study.name}, {case}" if case else study.name
            for shown in OF_CASE:
                yield from shown.plan(lines, folder, _stem(*words), of)


def _cases(study: Study) -> Iterator[tuple[str, list[Line]]]:
    for case in dict.fromkeys(line.case for line in study.lines):
        yield case, [line for line in study.lines if line.case == case]


def _stem(*words: str) -> str:
    """Return the start of a file's name: the words without special characters."""
    name = "".join(c if c.isalnum() or c in "-._" else "_" for c in "-".join(words))
    return name[:LONGEST]
