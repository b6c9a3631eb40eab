"""One table for the terminal, in Markdown and on the page."""

import re

import pytest

from dsgd_bench.report import renderers
from dsgd_bench.report.tables import AGAINST, Column, Table

TABLE = Table(
    (
        Column("algorithm", "", str, left=True),
        Column("epoch", "s", str),
        Column(AGAINST, "x", str),
        Column("because", "", str, left=True, wide=True),
    ),
    (("sgp, <b>", "0.5", "1.2", "a | b"), ("asgd", "0.25", "2.4", "c")),
    rules=(1,),
)
SHARES = ({"compute": 0.75, "waiting": 0.25}, {})


def tags(page: str, name: str) -> list[str]:
    return re.findall(rf"<{name}[ >].*?</{name}>", page, re.DOTALL)


def test_text_folds_the_columns_that_do_not_fit_under_their_labels():
    wide, narrow = renderers.text(TABLE, 100), renderers.text(TABLE, 40)
    assert wide.count("algorithm") == 1
    assert narrow.count("algorithm") == narrow.count("because") == 2
    assert max(map(len, narrow.splitlines())) <= 40
    assert wide.splitlines()[4] == "", "a rule begins a block"


def test_markdown_has_units_in_the_heads_and_text_to_the_left():
    assert renderers.markdown(TABLE).splitlines() == [
        f"| algorithm | epoch [s] | {AGAINST} [x] | because |",
        "| :-- | --: | --: | :-- |",
        r"| sgp, &lt;b> | 0.5 | 1.2 | a \| b |",
        "| asgd | 0.25 | 2.4 | c |",
    ]


def test_html_has_every_cell_once_and_escaped():
    page = renderers.html(TABLE)
    assert len(tags(page, "th")) == 4
    assert len(tags(page, "td")) == 8
    assert '<td class="text">sgp, &lt;b&gt;</td>' in page
    assert '<td class="number">0.25</td>' in page
    assert '<td class="text why">c</td>' in page
    assert page.count('<tr class="rule">') == 1


def test_bars_stand_beside_the_comparison_and_only_where_there_are_shares():
    page = renderers.html(TABLE, SHARES)
    heads = tags(page, "th")
    assert AGAINST in heads[2]
    assert "where the time went" in heads[3]
    first, second = (tags(row, "td") for row in tags(page, "tr")[1:])
    assert len(first) == len(second) == 5
    assert re.findall(r"width:([\d.]+)%", first[3]) == ["75.00", "25.00"]
    assert second[3] == "<td></td>"


@pytest.mark.parametrize(("unit", "lines"), [("s", 2), ("", 0)])
def test_heads_take_a_second_line_only_where_a_column_has_a_unit(unit, lines):
    table = Table((Column("case", "", str), Column("epoch", unit, str)), ())
    assert renderers.html(table).count("<small>") == lines
