"""Tables, figures, warnings and one page, from the traces of a results folder."""

import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from dsgd_bench.errors import TraceError
from dsgd_bench.report import exporters, page, server_table, terminal, verdicts
from dsgd_bench.report.collect import collect
from dsgd_bench.report.study import Study

if TYPE_CHECKING:
    from dsgd_bench.report.figures import Drawing

__all__ = ["Report", "read_report", "write_report"]

MARKDOWN, CSV, SERVERS, JSON, PAGE, FIGURES = (
    "report.md",
    "summary.csv",
    "servers.csv",
    "summary.json",
    "report.html",
    "figures",
)


@dataclass(frozen=True)
class Report:
    """What a results folder says.

    Attributes
    ----------
    studies : tuple of Study
        By name.
    command : str
        What makes the report again.
    remark : str
        What the report itself lacks, in a sentence; usually empty.
    files : tuple of Path
        What was written; empty for a report that was only read.
    """

    studies: tuple[Study, ...]
    command: str
    files: tuple[Path, ...] = ()
    remark: str = ""

    def terminal(self, *, columns: int | None = None) -> str:
        """Return one table per study, its warnings and verdicts, as plain text.

        Parameters
        ----------
        columns : int, optional
            Characters per line; by default those of the terminal.
        """
        limit = terminal.width() if columns is None else columns
        parts = []
        for study in self.studies:
            table = terminal.render(study.results, columns=limit)
            parts += [study.heading, table, *study.notes]
            parts += [_wrapped(caution.text, limit) for caution in study.cautions]
            parts += ["", *verdicts.terminal(study.answers, limit), ""]
        if self.remark:
            parts += [self.remark, ""]
        page = [f"report: {file}" for file in self.files if file.name == PAGE]
        return "\n".join([*parts, *page, self.command])


def read_report(folder: Path) -> Report:
    """Read every finished or failed trial below `folder`; write nothing.

    Raises
    ------
    TraceError
        If there is none.
    """
    studies = sorted(map(Study.of, collect(folder)), key=lambda study: study.name)
    return Report(tuple(studies), f"dsgd-bench report {shlex.quote(str(folder))}")


def write_report(folder: Path, out: Path | None = None) -> Report:
    """Read the trials below `folder` and write tables, figures and a page.

    Parameters
    ----------
    folder : Path
        A results folder: of one study, or of many.
    out : Path, optional
        Where to write; by default `folder`.

    Returns
    -------
    Report
        The same, for the terminal.

    Raises
    ------
    TraceError
        If there is no finished or failed trial, or a file cannot be written.
    """
    report = read_report(folder)
    out = folder if out is None else out
    try:
        out.mkdir(parents=True, exist_ok=True)
        files = _write(report, out)
    except OSError as error:
        raise TraceError(
            f"the report cannot be written to {out} ({error.strerror or error}): make"
            " room there, or name another folder"
        ) from None
    return Report(report.studies, report.command, files, _remark())


def _write(report: Report, out: Path) -> tuple[Path, ...]:
    drawings = _draw(report.studies, out / FIGURES)
    pictures = [drawing.path.relative_to(out).as_posix() for drawing in drawings]
    studies, command = report.studies, report.command
    texts = {
        MARKDOWN: exporters.markdown(studies, command, pictures),
        CSV: exporters.comma_separated(studies),
        JSON: exporters.as_json(studies, command),
        PAGE: page.render(studies, command, drawings),
    }
    loads = {study.name: study.loads for study in studies if study.loads}
    if loads:
        texts[SERVERS] = server_table.comma_separated(loads)
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    return (*(out / name for name in texts), *(drawing.path for drawing in drawings))


def _draw(studies: Sequence[Study], folder: Path) -> list["Drawing"]:
    if _remark():
        return []
    # Drawing is slow to import, and the terminal's table needs none of it.
    from dsgd_bench.report import figures

    return figures.draw(studies, folder)


def _remark() -> str:
    """Return why there are no figures, or nothing."""
    if find_spec("matplotlib") is not None:
        return ""
    return (
        "The report has no figures, because matplotlib is not installed: pip install"
        " 'dsgd-bench[report]'."
    )


def _wrapped(text: str, limit: int) -> str:
    """Return a warning as a list item of at most 100 characters per line."""
    return textwrap.fill(
        text, min(limit, 100), initial_indent="! ", subsequent_indent="  "
    )
