"""Tables, figures, warnings and one page, from the traces of a results folder."""

import shlex
import textwrap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dsgd_bench.analysis.checks import Verification
from dsgd_bench.analysis.rows import Row
from dsgd_bench.errors import TraceError
from dsgd_bench.io.escape import plain
from dsgd_bench.io.files import write_text
from dsgd_bench.io.trial_folder import Outcome
from dsgd_bench.report import (
    across,
    exporters,
    fom,
    looks,
    mllog,
    page,
    renderers,
    server_table,
    validation_table,
    verdicts,
    verification,
)
from dsgd_bench.report.collect import collect
from dsgd_bench.report.fom import sentinel
from dsgd_bench.report.names import (
    CSV,
    FIGURES,
    JSON,
    MARKDOWN,
    PAGE,
    SERVERS,
    VALIDATION,
    is_foreign,
)
from dsgd_bench.report.study import Study
from dsgd_bench.trace import open_trace

if TYPE_CHECKING:
    from dsgd_bench.report.drawing import Drawing

__all__ = ["Report", "Standing", "read_report", "sentinel", "write_report"]

FOREIGN = "what lies there is not of a report"

_ANY_NUMBER = np.errstate(all="ignore")
"""Damaged traces hold infinities: what comes of them is shown, not complained of."""


@dataclass(frozen=True)
class Report:
    """What a results folder says.

    Attributes
    ----------
    studies : tuple of Study
        By name.
    command : str
        What makes the report again.
    remarks : tuple of str
        What the report itself lacks, a sentence each; usually empty.
    files : tuple of Path
        What was written; empty for a report that was only read.
    whole : bool
        Whether all was written but for figures, which are extras.
    """

    studies: tuple[Study, ...]
    command: str
    files: tuple[Path, ...] = ()
    remarks: tuple[str, ...] = ()
    whole: bool = True

    def terminal(self, *, columns: int | None = None) -> str:
        """Return one table per study, its warnings and verdicts, as plain text.

        Parameters
        ----------
        columns : int, optional
            Characters per line; by default those of the terminal.
        """
        limit = renderers.width() if columns is None else columns
        parts = []
        for study in self.studies:
            table = renderers.text(study.results, limit)
            parts += [plain(study.heading), table, *map(plain, study.notes)]
            parts += [_wrapped(caution.text, limit) for caution in study.cautions]
            parts += ["", *verification.terminal(study.verified, limit)]
            parts += [*verdicts.terminal(study.answers, limit), ""]
        for title, compared, notes in across.sections(self.studies):
            parts += [plain(f"{title}:"), renderers.text(compared, limit)]
            parts += [*(_wrapped(note, limit, "  ") for note in notes), ""]
        if self.remarks:
            parts += [*(_wrapped(remark, limit) for remark in self.remarks), ""]
        page = [plain(f"report: {file}") for file in self.files if file.name == PAGE]
        return "\n".join([*parts, *page, plain(self.command)])

    def write(self, out: Path) -> "Report":
        """Write tables, figures and a page; return the report that says so.

        Whatever cannot be drawn or written is named among the remarks, so that the
        numbers can still be shown; a text that no report has written stays.

        Parameters
        ----------
        out : Path
            The folder; it is made.
        """
        drawings, remarks = _draw(self.studies, out / FIGURES)
        figures = [drawing.path for drawing in drawings]
        files, failed = [], {}
        for name, text in _texts(self, drawings, out).items():
            if is_foreign(out / name):
                failed[name] = FOREIGN
                continue
            try:
                out.mkdir(parents=True, exist_ok=True)
                write_text(out / name, text)
                files.append(out / name)
            except OSError as error:
                failed[name] = error.strerror or str(error)
        if failed:
            why = "; ".join(dict.fromkeys(failed.values()))
            remarks.append(
                f"{', '.join(failed)} cannot be written to {out} ({why}): make room"
                " there, or name another folder with --out."
            )
        return replace(
            self,
            files=(*files, *figures),
            remarks=tuple(dict.fromkeys(remarks)),
            whole=not failed,
        )

    def standing(
        self,
        ids: Collection[str] | None = None,
        failed: Collection[str] = (),
        home: Path | None = None,
    ) -> "Standing":
        """Return what the report says of some trials, by default of all.

        Parameters
        ----------
        ids : collection of str, optional
            Which trials count; those of which there is nothing are missing.
        failed : collection of str
            Trials that failed, even if their folders cannot say so.
        home : Path, optional
            The folder in which trials count; not those in folders below.
        """
        studies = [study for study in self.studies if home in (None, study.folder)]
        found = [
            (study.ids[folder], state)
            for study in studies
            for folder, state in study.states.items()
        ]
        rows = [row for study in studies for row in study.rows]
        verified = [each for study in studies for each in study.verified]
        if ids is not None:
            rows = [row for row in rows if row.trial.id in ids]
            verified = [each for each in verified if each.trial_id in ids]
            found = [(trial, state) for trial, state in found if trial in ids]
            found += [
                (trial, Outcome.MISSING) for trial in ids if trial not in dict(found)
            ]
        found = [
            (trial, Outcome.FAILED if trial in failed else was) for trial, was in found
        ]
        return Standing(self, tuple(rows), tuple(verified), tuple(found))


@dataclass(frozen=True)
class Standing:
    """How some trials of a report stand: for exit statuses and for other programs.

    Attributes
    ----------
    report : Report
        Whose trials these are.
    rows : tuple of Row
        The trials, crashed ones included.
    verified : tuple of Verification
        Of those that finished.
    states : tuple of (str, str)
        Id of every trial, and what became of it, see `Collected`.
    """

    report: Report
    rows: tuple[Row, ...]
    verified: tuple[Verification, ...]
    states: tuple[tuple[str, str], ...]

    @property
    def crashed(self) -> bool:
        """Whether a trial has failed to run."""
        return any(state == Outcome.FAILED for _, state in self.states)

    @property
    def invalid(self) -> bool:
        """Whether a finished trial fails verification, or cannot even be read."""
        unreadable = any(state == Outcome.UNREADABLE for _, state in self.states)
        return unreadable or any(trial.failed for trial in self.verified)

    @property
    def missed(self) -> bool:
        """Whether a finished trial with a target did not reach it."""
        return any(row.trial.target and not row.reached for row in self.rows)

    def lines(self) -> Iterator[str]:
        """Yield the figures of merit, see `fom.lines`."""
        states = [state for _, state in self.states]
        return fom.lines(self.rows, self.verified, states)

    def mllog(self) -> Iterator[str]:
        """Yield the lines of MLPerf's loggers of every trial that is valid."""
        valid = {trial.trial_id for trial in self.verified if not trial.failed}
        for study in self.report.studies:
            for row in study.rows:
                if row.trial.id in valid:
                    yield from mllog.lines(open_trace(study.traces[row.trial.id]))

    def sentinel(self) -> str:
        """Return the last line for machines: valid unless a trial is not."""
        ids = [trial for trial, _ in self.states]
        return sentinel(not (self.crashed or self.invalid), ids)


@np.errstate(all="ignore")  # damaged traces hold infinities
def read_report(*folders: Path) -> Report:
    """Read every finished or failed trial below `folders`; write nothing.

    Raises
    ------
    TraceError
        If there is none.
    """
    found = [Study.of(each) for folder in folders for each in collect(folder)]
    studies = sorted(found, key=lambda study: study.name)
    command = shlex.join(["dsgd-bench", "report", *map(str, folders)])
    return Report(tuple(_told_apart(studies)), command)


def _told_apart(studies: Sequence[Study]) -> Iterator[Study]:
    """Yield the studies; those of one name get the folder above theirs into it."""
    names = [study.name for study in studies]
    for study in studies:
        if names.count(study.name) == 1:
            yield study
        else:
            home = study.folder.resolve().parent.name
            yield replace(study, name=f"{study.name} in {home}")


def write_report(*folders: Path, out: Path | None = None) -> Report:
    """Read the trials below `folders` and write tables, figures and a page.

    Parameters
    ----------
    *folders : Path
        Results folders: each of one study, or of many.
    out : Path, optional
        Where to write; by default the first of `folders`.

    Returns
    -------
    Report
        The same, for the terminal.

    Raises
    ------
    TraceError
        If there is no finished or failed trial, or a file cannot be written.
    """
    report = read_report(*folders).write(folders[0] if out is None else out)
    if not report.whole:
        raise TraceError(report.remarks[-1])
    return report


def _texts(report: Report, drawings: Sequence["Drawing"], out: Path) -> dict[str, str]:
    """Return what every file of the report holds, by its name."""
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
    if validation_table.pairs(studies):
        texts[VALIDATION] = validation_table.comma_separated(studies)
    return texts


def _draw(studies: Sequence[Study], folder: Path) -> tuple[list["Drawing"], list[str]]:
    """Draw what can be drawn; say of the rest why not."""
    if find_spec("matplotlib") is None:
        return [], [
            "The report has no figures, because matplotlib is not installed: pip"
            " install 'dsgd-bench[report]'."
        ]
    try:
        # slow to import, and the terminal's table needs none of it
        with looks.own_settings():
            from dsgd_bench.report import figures
        return figures.draw(studies, folder)
    except Exception as error:  # noqa: BLE001 (anything may be wrong with a library, its settings or the disk, and the numbers do not depend on it)
        return [], [f"The report has no figures: {looks.said(error)}."]


def _wrapped(text: str, limit: int, mark: str = "! ") -> str:
    """Return a warning as a list item of at most 100 characters per line."""
    return textwrap.fill(
        plain(text),
        min(limit, 100),
        initial_indent=mark,
        subsequent_indent="  ",
        break_on_hyphens=False,  # names of files can be copied
        break_long_words=False,
    )
