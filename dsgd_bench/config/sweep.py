"""From one table with lists in it to many tables without.

A list of tables is a set of alternatives; a list where one value is expected is swept.
Swept keys form a product, except those that are zipped: they advance together.
"""

import copy
import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dsgd_bench.errors import ConfigError
from dsgd_bench.io import user_text
from dsgd_bench.spec.ranges import MOST_TRIALS
from dsgd_bench.spec.strict import SHOWN

Table = dict[str, Any]
Path = tuple[str, ...]
"""Where a value lies in nested tables: ``("problem", "shards", "alpha")``."""

Column = list[list[tuple[Path, Any]]]
"""Values of keys that advance together, advance by advance."""


def leaves(table: Table, above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every value that is not itself a table, with its path."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key), value


WORD = re.compile(r"(^[^=]+=\s*)(?!(?:true|false|inf|nan)$)([A-Za-z][\w-]*)$")
"""An assignment of a word that is no value of TOML's own."""


def override(table: Table, changes: Sequence[str]) -> Table:
    """Return `table` with changes such as ``"optimizer.lr=[0.1, 0.2]"`` made.

    A change to a table of alternatives is made in each of them. A single word needs no
    quotes, which a shell would take away: ``compute.device=cuda``.

    Raises
    ------
    ConfigError
        If a change is not a TOML assignment.
    """
    for change in changes:
        try:
            table = merged(table, user_text.toml(WORD.sub(r'\1"\2"', change)))
        except ConfigError as error:
            raise ConfigError(
                f"the override {change[:SHOWN]} cannot be read, as it {error}; write "
                "TABLE.KEY=VALUE with a TOML value, text in double quotes"
            ) from None
    return table


def merged(old: Any, new: Any) -> Any:
    """Return `new` laid over `old`, table by table; lists of tables in each of them."""
    if isinstance(new, dict) and isinstance(old, dict):
        changed = {key: merged(old.get(key), value) for key, value in new.items()}
        return {**old, **changed}
    if isinstance(new, dict) and _is_tables(old):
        return [merged(item, new) for item in old]
    return new


def _is_tables(value: Any) -> bool:
    """Say whether `value` is a list of tables, at least one."""
    tables = isinstance(value, list) and all(isinstance(item, dict) for item in value)
    return tables and bool(value)


def alternatives(value: Any) -> list[Any]:
    """Return every choice of one table from each list of tables, at any depth."""
    if _is_tables(value):
        return [choice for item in value for choice in alternatives(item)]
    if isinstance(value, dict):
        choices = itertools.product(*(alternatives(item) for item in value.values()))
        return [dict(zip(value, choice, strict=True)) for choice in choices]
    return [value]


def how_many(value: Any) -> int:
    """Return how many `alternatives` there are, without making them."""
    if _is_tables(value):
        return sum(map(how_many, value))
    if isinstance(value, dict):
        return math.prod(map(how_many, value.values()))
    return 1


def check_count(trials: int, of: str) -> None:
    """Refuse more trials than a study may have, before they are made.

    Parameters
    ----------
    trials : int
        How many they would be.
    of : str
        What they come from, for the sentence.

    Raises
    ------
    ConfigError
        If they are too many.
    """
    if trials > MOST_TRIALS:
        said = f"{trials:,}" if trials < 10**15 else "more than 10^15"
        raise ConfigError(
            f"the study has {said} trials, those that exclude leaves out counted, from "
            f"{of}, and at most {MOST_TRIALS:,} are taken: sweep fewer values, or make "
            "several studies"
        )


def axes(table: Table, is_list: Callable[[Path, Table], bool]) -> dict[Path, list[Any]]:
    """Return the swept keys of a table and the values each takes.

    Parameters
    ----------
    table : dict
        Without lists of tables.
    is_list : callable
        Says of a path and the table whether the key's own type is a list; then a list
        is its value, and only a list of lists is swept.

    Raises
    ------
    ConfigError
        If a swept list is empty.
    """
    found = {}
    for path, value in leaves(table):
        if not is_swept(value, isinstance(value, list) and is_list(path, table)):
            continue
        if not value:
            raise ConfigError(f"{'.'.join(path)} is an empty list: give it a value")
        found[path] = value
    return found


def is_swept(value: Any, takes_list: bool) -> bool:
    """Say whether a value is many, for a key whose own type is a list or is not."""
    if not isinstance(value, list) or not takes_list:
        return isinstance(value, list)
    return bool(value) and all(isinstance(item, list) for item in value)


def check_zips(groups: Sequence[Sequence[Path]], swept: set[Path]) -> None:
    """Refuse zipped keys that are not swept, or zipped twice.

    Raises
    ------
    ConfigError
        Naming the key.
    """
    names = [path for group in groups for path in group]
    for path in names:
        if path not in swept:
            known = ", ".join(sorted(".".join(p) for p in swept)) or "none"
            raise ConfigError(
                f"study.zip names {'.'.join(path)}, which is not swept: give it a list "
                f"or leave it out (swept are: {known})"
            )
        if names.count(path) > 1:
            raise ConfigError(f"study.zip names {'.'.join(path)} twice: name it once")


def columns(
    swept: dict[Path, list[Any]], groups: Sequence[Sequence[Path]]
) -> list[Column]:
    """Return what advances together, and its values, for one product of all.

    Parameters
    ----------
    swept : dict
        The `axes` of a table.
    groups : sequence of sequences of paths
        Keys that advance together. Those not swept in this table are passed over.

    Raises
    ------
    ConfigError
        If zipped keys have unequally many values.
    """
    zipped = [[path for path in group if path in swept] for group in groups]
    single = [[path] for path in swept if not any(path in group for group in zipped)]
    return [_column(group, swept) for group in zipped + single if group]


def expand(table: Table, columns: Sequence[Column]) -> Iterator[Table]:
    """Yield one table per combination of the swept values.

    Parameters
    ----------
    table : dict
        Without lists of tables.
    columns : sequence of Column
        The `columns` of its `axes`.
    """
    for combination in itertools.product(*columns):
        result = copy.deepcopy(table)
        for path, value in itertools.chain(*combination):
            inner = result
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
        yield result


def _column(group: list[Path], swept: dict[Path, list[Any]]) -> Column:
    """Return the settings of keys that advance together, one list per advance."""
    lengths = {".".join(path): len(swept[path]) for path in group}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} has {count}" for name, count in lengths.items())
        raise ConfigError(
            f"study.zip needs keys with equally many values, but {said}: make the "
            "lists equally long"
        )
    return [
        list(zip(group, values, strict=True))
        for values in zip(*(swept[path] for path in group), strict=True)
    ]
