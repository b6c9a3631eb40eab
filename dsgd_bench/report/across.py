"""Tables that set points beside each other, within a study or across several."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dsgd_bench.report import link_table, scaling_table, validation_table
from dsgd_bench.report.study import Study
from dsgd_bench.report.tables import Table


class Section(NamedTuple):
    """One table with its title, and how to read it, a sentence each."""

    title: str
    table: Table
    notes: Sequence[str]


def sections(studies: Sequence[Study]) -> Iterator[Section]:
    """Yield the tables that the studies have anything to say in."""
    bounds = link_table.table(studies)
    if bounds:
        yield Section(link_table.TITLE, bounds, link_table.NOTES)
    compared = validation_table.table(studies)
    if compared:
        notes = validation_table.notes(studies)
        yield Section(validation_table.TITLE, compared, notes)
    for study in studies:
        scaled = scaling_table.table(study)
        if scaled:
            title = f"{study.name}: {scaling_table.TITLE}"
            yield Section(title, scaled, scaling_table.notes(study))
