"""Text that is not ours, made safe for where it is shown.

Names of files, reasons in a configuration, messages of other programs and whatever
stands in a trace may hold line ends, escape sequences of terminals, marks that turn the
direction of writing, or the markup of the place where they are shown. Each kind of
output has its function here, and nothing foreign is shown without one. JSON needs none
to be shown, as what is not ASCII is escaped there, but one to be read again: `utf8`.
"""

import html as markup
import json
import re
import unicodedata
from typing import Any

HIDDEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
"""Unicode categories of what is not seen, or moves what is: controls, direction marks,
halves of letters, ends of lines and paragraphs."""

FORMULA = ("=", "+", "-", "@")
"""What a cell begins with that a spreadsheet takes for something to compute."""

_MARKDOWN = re.compile(r"[\\`*~|$]|(?<!\w)_|_(?!\w)|(?<=\])\(")
"""Marks of Markdown within a line; an underscore between letters is none, and brackets
are a link only if a parenthesis follows."""

_PARTS = re.compile(r"[\s,\[\]]+")
"""What parts the words of a line for machines."""


def plain(text: str) -> str:
    r"""Return `text` as one line without anything unseen, which is written ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(map(_shown, text))


def token(text: str) -> str:
    """Return `text` as one word of a line for machines: no blank, bracket or comma."""
    return plain(_PARTS.sub("_", text))


def markdown(text: str) -> str:
    """Return `text` for a line of Markdown that shows it as it is: no HTML, no link."""
    shown = plain(text).replace("&", "&amp;").replace("<", "&lt;")
    return _MARKDOWN.sub(lambda found: "\\" + found[0], shown)


def html(text: str) -> str:
    """Return `text` for a page, between tags or in an attribute."""
    return markup.escape(plain(text))


def cell(value: Any) -> Any:
    """Return a text for CSV, which no spreadsheet computes; numbers are left alone.

    A text that begins like a formula gets an apostrophe before it, as OWASP advises.
    """
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def utf8(value: Any) -> Any:
    """Return what JSON can hold with ``?`` for each byte that was not UTF-8.

    Python keeps such bytes of paths and variables as halves of letters, and writes them
    as JSON that other readers, msgspec's among them, refuse.
    """
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(text.encode("utf-8", errors="replace"))


def _shown(letter: str) -> str:
    if unicodedata.category(letter) not in HIDDEN:
        return letter
    return letter.encode("unicode_escape").decode("ascii")
