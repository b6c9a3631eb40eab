"""Strict reading of tables: every key known, every value of its type, or one sentence.

A set of keys is a dict from a name to (type, default); `REQUIRED` as default means that
there is none. Types are those msgspec understands, and nested structs are nested
tables.
"""

import json
import math
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import inspect

from dsgd_bench.errors import ConfigError
from dsgd_bench.spec.ranges import LEAST, TINY

Keys = dict[str, tuple[Any, Any]]
"""Name of a key -> (type, default)."""

ALSO_CALLED = {"gpu": "cuda"}
"""What people also write -> our word, where another one is spelled more alike."""

NOUNS: dict[type[inspect.Type], str] = {
    inspect.BoolType: "true or false",
    inspect.StrType: "text",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.DictType: "a table",
}

NAMES = "names"
"""Key under which a type of text tells which names it begins with."""

SHOWN = 80
"""Characters that a sentence shows of a value."""

SAYS = "says"
"""Key under which a type of text tells in words what it takes."""

REQUIRED = msgspec.NODEFAULT
"""Stands where a key has no default."""


def keys_of(struct: type[msgspec.Struct]) -> Keys:
    """Return the keys that a struct reads from a table."""
    return dict(_keys_of(struct))


@cache  # the trials of a study read the same tables thousands of times
def _keys_of(struct: type[msgspec.Struct]) -> Keys:
    keys: Keys = {}
    for field in msgspec.structs.fields(struct):
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        keys[field.name] = (field.type, default)
    return keys


def is_struct(kind: Any) -> bool:
    """Say whether values of `kind` are tables of their own."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def is_list(kind: Any) -> bool:
    """Say whether values of `kind` are lists."""
    return isinstance(_info(kind), inspect.VarTupleType | inspect.ListType)


def one_of(names: Iterable[str]) -> Any:
    """Return the type whose values are these names."""
    literal: Any = Literal
    return literal[tuple(names)]


def one_of_with_arguments(names: Iterable[str], *, empty: bool = False) -> Any:
    """Return the type of these names, arguments after colons allowed.

    With `empty` there may be no name at all.
    """
    known = tuple(names)
    pattern = f"^({'|'.join(known)})(:.*)?$"
    pattern = f"^$|{pattern}" if empty else pattern
    return Annotated[str, msgspec.Meta(pattern=pattern, extra={NAMES: known})]


def choose(name: str, allowed: Iterable[str], called: str, hint: str = "") -> None:
    """Refuse a name that is not one of `allowed`.

    Parameters
    ----------
    name : str
        What the file says.
    allowed : iterable of str
        What it may say.
    called : str
        What the sentence calls it.
    hint : str, optional
        What was meant, where the caller knows better than the nearest of `allowed`.

    Raises
    ------
    ConfigError
        If it is none of them, with all of them and the nearest.
    """
    known = list(allowed)
    if name not in known:
        choice = f"choose one of {', '.join(known)}{nearest(name, known, hint)}"
        raise ConfigError(f"{called} does not exist: {choice}")


def nearest(name: Any, known: Iterable[object], hint: str = "") -> str:
    """Return the end of a sentence that says what was probably meant, or nothing."""
    words = [str(word) for word in known]
    meant = hint or ALSO_CALLED.get(str(name).lower(), "")
    near = get_close_matches(str(name), words, n=1, cutoff=0.5)
    if hint or meant in words:
        near = [meant]
    return f"; did you mean '{near[0]}'?" if near else ""


def read_value(value: Any, kind: Any, name: str) -> Any:
    """Convert one value to its type; whole numbers pass where a number is asked.

    Raises
    ------
    ConfigError
        If it is of another type, out of bounds, not finite, or text with a NUL
        character, which no name of a file can have.
    """
    if isinstance(kind, UnionType) and value is not None:  # a table or nothing
        kind = next(filter(is_struct, get_args(kind)), kind)
    if is_struct(kind):
        return kind(**read_table(value, keys_of(kind), name))
    info = _info(kind)
    try:
        result = msgspec.convert(value, kind)
    except msgspec.ValidationError:
        result = math.nan
    if _fits(result, _least(info)):
        return result
    if place := _with_nul(value, name):
        raise ConfigError(f"{place} has a NUL character in its text: leave it out")
    least = _least(info)
    if isinstance(value, float) and 0 < value < least:
        raise ConfigError(f"{name} is {value!r}, too near to 0: at least {least:g}")
    near = nearest(str(value).partition(":")[0], _names(info)) if _names(info) else ""
    raise ConfigError(f"{name} is {show(value)} but must be {describe(info)}{near}")


def read_table(
    table: Any,
    keys: Keys,
    name: str,
    *,
    kind: str = "",
    home: Callable[[str], str] | None = None,
) -> dict[str, Any]:
    """Read all `keys` from a table, filling in defaults.

    Parameters
    ----------
    table : object
        What the file says.
    keys : Keys
        What it may say.
    name : str
        Dotted name of the table in sentences; empty for the whole file.
    kind : str, optional
        Kind of algorithm or problem that decides which keys there are.
    home : callable, optional
        Returns the dotted name of the table key that an unknown key may have meant.

    Raises
    ------
    ConfigError
        If it is no table, has an unknown key, lacks a required one, or a value is of
        the wrong type.
    """
    if not isinstance(table, dict):
        allowed = ", ".join(keys)
        raise ConfigError(f"{name} is {show(table)} but must be a table of {allowed}")
    dot = f"{name}." if name else ""
    owner = f" for {kind}" if kind else ""
    for key in table:
        if key not in keys:
            hint = home(key) if home is not None else ""
            hint = "" if hint == dot + key else hint
            choose(key, keys, f"the key {dot}{key}{owner}", hint)
    values = {}
    for key, (type_, default) in keys.items():
        if key not in table and default is REQUIRED:
            raise ConfigError(f"the key {dot}{key} is missing: give it {_what(type_)}")
        if key not in table and is_struct(type_):
            values[key] = default
        else:
            values[key] = read_value(table.get(key, default), type_, dot + key)
    return values


@cache
def _info(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)


def _fits(value: Any, least: float) -> bool:
    """Say whether all in a value is a finite number, or text without a NUL.

    Numbers above 0 and below `least` do not fit.
    """
    if isinstance(value, msgspec.Struct):
        return all(
            _fits(getattr(value, key), _least(_info(kind)))
            for key, (kind, _) in keys_of(type(value)).items()
        )
    if isinstance(value, dict):
        return all(_fits(item, least) for pair in value.items() for item in pair)
    if isinstance(value, tuple | list):
        return all(_fits(item, least) for item in value)
    if isinstance(value, str):
        return "\0" not in value
    if not isinstance(value, float):
        return True
    return math.isfinite(value) and (value <= 0 or value >= least)


def _with_nul(value: Any, name: str) -> str:
    """Return the name of the first text in a value that has a NUL; empty if none."""
    if isinstance(value, str):
        return name if "\0" in value else ""
    if isinstance(value, dict):
        pairs = value.items()
        found = (_with_nul(k, name) or _with_nul(v, f"{name}.{k}") for k, v in pairs)
        return next(filter(None, found), "")
    if isinstance(value, tuple | list):
        return next(filter(None, (_with_nul(item, name) for item in value)), "")
    return ""


def _least(info: inspect.Type) -> float:
    """Return the smallest number above 0 that a type of numbers, or of lists, takes."""
    if isinstance(info, inspect.Metadata):
        return float((info.extra or {}).get(LEAST) or _least(info.type))
    if isinstance(info, inspect.UnionType):
        return max(map(_least, info.types))
    if isinstance(info, inspect.VarTupleType | inspect.ListType):
        return _least(info.item_type)
    if isinstance(info, inspect.DictType):
        return _least(info.value_type)
    return TINY


def _what(kind: Any) -> str:
    """Say what values a type has, tables included."""
    if is_struct(kind):
        return f"a table of {', '.join(keys_of(kind))}"
    return describe(inspect.type_info(kind))


def show(value: Any) -> str:
    """Return a value as the file would write it, or how it begins."""
    try:
        said = json.dumps(value, default=str, ensure_ascii=False)
    except ValueError:  # a whole number of thousands of digits is not written out
        said = "a number of thousands of digits"
    return said if len(said) <= SHOWN else f"{said[:SHOWN]}..."


def _names(info: inspect.Type) -> tuple[Any, ...]:
    """Return the names that values of a type must have, if it is such a type."""
    if isinstance(info, inspect.LiteralType):
        return tuple(info.values)
    if isinstance(info, inspect.Metadata):
        return tuple((info.extra or {}).get(NAMES, ()))
    return ()


def describe(info: inspect.Type) -> str:
    """Say in words what values a type has."""
    if isinstance(info, inspect.UnionType):
        parts = [t for t in info.types if not isinstance(t, inspect.NoneType)]
        return " or ".join(describe(part) for part in parts)
    if _names(info):
        return "one of " + ", ".join(str(value) for value in _names(info))
    if isinstance(info, inspect.Metadata):
        return _describe_more(info)
    if isinstance(info, inspect.VarTupleType | inspect.ListType):
        most = f" of at most {info.max_length}" if info.max_length else ""
        return f"a list{most}, every item {describe(info.item_type)}"
    if isinstance(info, inspect.IntType | inspect.FloatType):
        return NOUNS[type(info)] + _bounds(info)
    return NOUNS.get(type(info), "a value")


def _describe_more(info: inspect.Metadata) -> str:
    """Say what a type has that tells more than its name."""
    extra = info.extra or {}
    if SAYS in extra:
        return str(extra[SAYS])
    least = f", at least {extra[LEAST]:g} if not 0" if LEAST in extra else ""
    return describe(info.type) + least


def _bounds(info: inspect.IntType | inspect.FloatType) -> str:
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    limits = [(word, getattr(info, key)) for key, word in words.items()]
    said = " and ".join(
        f"{word} {limit if isinstance(info, inspect.IntType) else f'{limit:g}'}"
        for word, limit in limits
        if limit is not None
    )
    return f" {said}" if said else ""


def exact(value: float) -> str:
    """Return a number as text that gives it back: "0.1", "1e+06", "0.12345678".

    Where six digits are enough there are no more; numbers that differ look different.
    """
    short = f"{value:g}"
    return short if float(short) == value else repr(value).removesuffix(".0")


def nearly(value: float) -> str:
    """Return a product or quotient as `exact` does, without its last rounding."""
    return exact(float(f"{value:.12g}"))
