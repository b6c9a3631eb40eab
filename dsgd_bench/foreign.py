"""Text that is not ours, made safe for where it is shown.

Names of files, reasons in a configuration, messages of other programs and whatever
stands in a trace may hold line ends, escape sequences of terminals, marks that turn the
direction of writing, or the markup of the place where they are shown. Each kind of
output has its function here, and nothing foreign is shown without one.
"""

import unicodedata

HIDDEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
"""Unicode categories of what is not seen, or moves what is: controls, direction marks,
halves of letters, ends of lines and paragraphs."""


def plain(text: str) -> str:
    r"""Return `text` as one line without anything unseen, which is written ``\x1b``."""
    return "".join(map(_shown, text))


def _shown(letter: str) -> str:
    if unicodedata.category(letter) not in HIDDEN:
        return letter
    return letter.encode("unicode_escape").decode("ascii")
