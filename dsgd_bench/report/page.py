"""The report as one HTML file that needs no other: tables, figures, warnings."""

import base64
from collections.abc import Sequence
from typing import Protocol

from dsgd_bench.analysis.comparison import Line
from dsgd_bench.io.escape import html
from dsgd_bench.report import across, tables, verdicts, verification
from dsgd_bench.report.looks import SPAN_COLORS
from dsgd_bench.report.numbers import percent
from dsgd_bench.report.study import Study
from dsgd_bench.report.tables import Table, shown_shares

STYLE = """
:root { color-scheme: light dark;
  --paper: #f4f5f7; --card: #ffffff; --ink: #23272e; --soft: #5d6673;
  --line: #dfe2e7; --hover: #f3f7fb; --warn: #fff6e3; --edge: #e69f00; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #12151a; --card: #1b1f26; --ink: #dfe3e9; --soft: #98a2b0;
  --line: #333a45; --hover: #232932; --warn: #2d2616; --edge: #e69f00; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 94rem; margin: 0 auto; padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .1rem; }
h3 { font-size: 1rem; margin: 0 0 .6rem; }
.soft { color: var(--soft); margin: 0 0 .9rem; }
.card { background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: 1.1rem 1.2rem; margin: 1rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .84rem;
  font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 600; vertical-align: bottom;
  padding: .3rem .5rem; border-bottom: 2px solid var(--line); }
th small { display: block; font-weight: 400; color: var(--soft); }
td { text-align: right; padding: .32rem .5rem; white-space: nowrap; }
th.text, td.text { text-align: left; }
tr.rule td { border-top: 1px solid var(--line); }
tbody tr:hover td { background: var(--hover); }
.bar { display: flex; width: 8.5rem; height: .95rem; border-radius: 3px;
  overflow: hidden; }
.bar i { display: block; height: 100%; }
.key { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; font-size: .82rem;
  color: var(--soft); margin-top: .8rem; }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px;
  margin-right: .35rem; vertical-align: -1px; }
.note { font-size: .82rem; color: var(--soft); margin: .6rem 0 0; }
.answer { margin: .45rem 0; } .answer summary span { font-weight: 400; }
.answer summary small { color: var(--soft); font-weight: 400; }
td.why { white-space: normal; min-width: 22rem; }
.warn { background: var(--warn); border-left: 4px solid var(--edge); }
.warn ul { margin: 0; padding-left: 1.1rem; }
.warn li + li { margin-top: .45rem; }
figure { margin: 0; } figure img { width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: .88rem; margin-top: .5rem; }
details summary { cursor: pointer; font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem;
  font-size: .88rem; margin: .7rem 0 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
code { font: .9em ui-monospace, monospace; }
footer { margin-top: 2.5rem; }
"""


BAR_HEAD = '<th class="text">where the time went<small>% of it</small></th>'


class Drawn(Protocol):
    """A figure for both color schemes; `figures.Drawing` is one."""

    @property
    def caption(self) -> str:
        """What it shows, in a sentence."""

    @property
    def light(self) -> str:
        """SVG for light paper."""

    @property
    def dark(self) -> str:
        """SVG for dark paper."""


def render(studies: Sequence[Study], command: str, drawings: Sequence[Drawn]) -> str:
    """Return the page.

    Parameters
    ----------
    studies : sequence of Study
    command : str
        What made the report; the page's last line.
    drawings : sequence of Drawn
        Figures, embedded as SVG.
    """
    title = f"dsgd-bench: {', '.join(study.name for study in studies)}"
    body = [_study(study) for study in studies]
    body += [_section(section) for section in across.sections(studies)]
    body += [_figure(drawing) for drawing in drawings]
    body += [_provenance(study) for study in studies if study.provenance]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>"
        "<main>\n<h1>dsgd-bench report</h1>\n"
        '<p class="soft">Which distributed SGD algorithm reaches the target first, and'
        " why?</p>\n"
        + "\n".join(body)
        + f'\n<footer class="soft">Made by <code>{html(command)}</code></footer>\n'
        "</main></body>\n</html>\n"
    )


def _study(study: Study) -> str:
    name, _, rest = study.heading.partition(": ")
    notes = "<br>".join(map(html, study.notes))
    return (
        f'<section><h2>{html(name)}</h2><p class="soft">{html(rest)}</p>\n'
        + verification.page(study.verified)
        + _cautions(study)
        + '<div class="card"><h3>Who reached the target, and where the time went</h3>'
        + _table(tables.without(study.results, tables.BARS), study.lines)
        + _key()
        + f'<p class="note">{notes}</p></div>\n'
        + verdicts.page(study.answers)
        + '<div class="card"><h3>Quality, work and traffic</h3>'
        + _table(study.work, ())
        + "</div></section>"
    )


def _section(section: across.Section) -> str:
    notes = "<br>".join(map(html, section.notes))
    return (
        f'<section><div class="card"><h3>{html(section.title)}</h3>'
        f'{_table(section.table, ())}<p class="note">{notes}</p></div></section>'
    )


def _cautions(study: Study) -> str:
    if not study.cautions:
        return ""
    items = "".join(f"<li>{html(caution.text)}</li>" for caution in study.cautions)
    return f'<div class="card warn"><h3>Read this first</h3><ul>{items}</ul></div>\n'


def _table(table: Table, lines: Sequence[Line]) -> str:
    """Return a table; with `lines`, a bar of their shares follows the comparison."""
    heads = [
        f'<th class="{_kind(column.left)}">{html(column.name)}'
        f"<small>{html(column.unit) or '&nbsp;'}</small></th>"
        for column in table.columns
    ]
    names = [column.name for column in table.columns]
    place = names.index(tables.AGAINST) + 1 if lines else 0
    if lines:
        heads.insert(place, BAR_HEAD)
    rows = []
    for number, cells in enumerate(table.cells):
        row = [
            f'<td class="{_kind(column.left)}">{html(cell)}</td>'
            for column, cell in zip(table.columns, cells, strict=True)
        ]
        if lines:
            row.insert(place, f"<td>{_bar(lines[number])}</td>")
        rule = ' class="rule"' if number in table.rules else ""
        rows.append(f"<tr{rule}>{''.join(row)}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{"".join(heads)}</tr></thead>\n'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _kind(left: bool) -> str:
    return "text" if left else "number"


def _bar(line: Line) -> str:
    parts = "".join(
        f'<i style="width:{100 * share:.2f}%;background:{SPAN_COLORS[span]}"'
        f' title="{span} {percent(share)} %"></i>'
        for span, share in shown_shares(line.group).items()
    )
    return f'<div class="bar">{parts}</div>' if parts else ""


def _key() -> str:
    items = "".join(
        f'<span><i style="background:{color}"></i>{span}</span>'
        for span, color in SPAN_COLORS.items()
    )
    return f'<div class="key">{items}</div>'


def _figure(drawing: Drawn) -> str:
    return (
        '<figure class="card"><picture>'
        f'<source media="(prefers-color-scheme: dark)" srcset="{_embed(drawing.dark)}">'
        f'<img alt="{html(drawing.caption)}" src="{_embed(drawing.light)}">'
        f"</picture><figcaption>{html(drawing.caption)}</figcaption></figure>"
    )


def _embed(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _provenance(study: Study) -> str:
    items = "".join(
        f"<dt>{html(name)}</dt><dd>{html(text)}</dd>"
        for name, text in study.provenance.items()
    )
    how = "Simulated" if study.simulated else "Measured"
    return (
        f'<details class="card"><summary>{how} on ({html(study.name)})</summary>'
        f"<dl>{items}</dl></details>"
    )
