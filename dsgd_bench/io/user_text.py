"""Texts that a user wrote: UTF-8 of a limited size, and TOML of a limited depth.

Whatever else lies under the name is refused in words that follow the name of the file:
"is UTF-16: save it as UTF-8".
"""

import codecs
import errno
import os
import re
import select
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from dsgd_bench.errors import ConfigError
from dsgd_bench.io import files

LIMIT = 2**20
"""Bytes of the largest configuration that is read: much more than anybody writes."""

SILENCE = 10.0
"""Seconds without a word after which a pipe is given up."""

DEEPEST = 20
"""Tables and lists within each other; no key of ours has more than five."""

LONGEST_KEY = 200
"""Characters of a key."""

MARKS = (  # those of UTF-32 first, which begin as those of UTF-16 do
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)

LONG_NUMBER = re.compile(r"[0-9][0-9_]{4299}")
"""More digits than Python makes a whole number of."""

DEEP = re.compile(r"(?:[\[{]\s*(?:[\w.\"-]+\s*=\s*)?){50}")
"""Fifty brackets, one in the other."""

HEADER = re.compile(r"^[ \t]*\[+([^\[\]\n]+)\]+[ \t]*$", re.MULTILINE)
KEY = re.compile(r"^[ \t]*([^\s=#\[\]]+)[ \t]*=", re.MULTILINE)


def read(path: Path, *, limit: int = LIMIT) -> str:
    """Return the text of a regular file, or of a pipe that a shell made for us.

    Raises
    ------
    ConfigError
        If it cannot be read, is too large, or is no text in UTF-8.
    """
    try:
        pipe = path.is_fifo() and path.resolve().name.startswith("pipe:[")
        content = _drained(path, limit) if pipe else files.read_bytes(path, limit=limit)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # no name has a NUL character
        raise ConfigError(f"cannot be read: {error}") from None
    return decode(content)


def is_there(path: Path) -> bool:
    """Say whether something lies at `path`; where no name can be like that, nothing."""
    with suppress(OSError, ValueError):  # too long, or a NUL character in it
        return path.exists()
    return False


def decode(content: bytes) -> str:
    """Return the text that `content` is in UTF-8; a mark at its beginning is left out.

    Raises
    ------
    ConfigError
        If it is another encoding, or has a character that no text has.
    """
    for mark, name in MARKS:
        if content.startswith(mark):
            raise ConfigError(f"is {name}: save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8", errors="replace")
        byte = error.object[error.start]
        raise ConfigError(
            f"is not UTF-8 at {_place(before)} (byte 0x{byte:02x}): save it as UTF-8"
        ) from None
    before, nul, _ = text.partition("\0")
    if nul and 4 * text.count("\0") > len(text):
        raise ConfigError("has a NUL at every other place, as UTF-16: save it as UTF-8")
    if nul:
        raise ConfigError(f"has a NUL character at {_place(before)}: leave it out")
    return text


def toml(text: str) -> dict[str, Any]:
    """Return the table that a text in TOML is.

    Raises
    ------
    ConfigError
        If it is not TOML, has a number that is none for this program, or values that
        lie too deep within each other.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not TOML: {error}") from None
    except ValueError:  # from Python's whole numbers
        raise ConfigError(
            f"has a number of thousands of digits{_found(LONG_NUMBER, text)}: give it "
            "less than 20"
        ) from None
    except RecursionError:
        raise _deep(_found(DEEP, text)) from None
    for names, depth in _walk(table):
        if depth > DEEPEST:
            raise _deep(f" in {'.'.join(names[:3])}")
        if names and len(names[-1]) > LONGEST_KEY:
            raise ConfigError(
                f"has a key of {len(names[-1])} characters, {names[-1][:20]}...: give "
                f"it {LONGEST_KEY} at most"
            )
    return table


def _deep(where: str) -> ConfigError:
    return ConfigError(
        f"has values that lie more than {DEEPEST} deep within each other{where}: write "
        "them flat"
    )


def _walk(table: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield keys and depth of every table and list, without calling itself."""
    left: list[tuple[tuple[str, ...], int, Any]] = [((), 0, table)]
    while left:
        names, depth, value = left.pop()
        yield names, depth
        if depth > DEEPEST:
            return
        items = value.items() if isinstance(value, dict) else ((None, v) for v in value)
        for key, item in items:
            inner = names if key is None else (*names, key)
            if isinstance(item, dict | list):
                left.append((inner, depth + 1, item))
            elif key is not None and len(key) > LONGEST_KEY:
                yield inner, depth


def _found(pattern: re.Pattern[str], text: str) -> str:
    """Say where a pattern is found, by line and key."""
    match = pattern.search(text)
    if match is None:
        return ""
    before = text[: match.start() + 1]
    keys, headers = list(KEY.finditer(before)), list(HEADER.finditer(before))
    names = [found[-1][1].strip()[:LONGEST_KEY] for found in (headers, keys) if found]
    key = f" in {'.'.join(names)}" if names else ""
    return f"{key} at line {_line(before)}"


def _place(before: str) -> str:
    column = len(before.rpartition("\n")[2]) + 1
    return f"line {_line(before)}, column {column}"


def _line(before: str) -> int:
    return before.count("\n") + 1


def _drained(path: Path, limit: int) -> bytes:
    """Return all that comes through a pipe until its writers have closed it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        content = b""
        while poll.poll(1e3 * SILENCE):
            piece = os.read(descriptor, limit + 1 - len(content))
            content += piece
            if len(content) > limit:
                raise OSError(errno.EFBIG, f"it has more than {limit} bytes", str(path))
            if not piece:
                return content
    finally:
        os.close(descriptor)
    raise OSError(errno.ETIMEDOUT, f"nothing came for {SILENCE:g} s", str(path))
