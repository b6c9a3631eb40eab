"""Names of the files of a report, and how one is told from another's file."""

import re
from pathlib import Path

from dsgd_bench.io import files

MARKDOWN, CSV, SERVERS, VALIDATION, JSON, PAGE, FIGURES = (
    "report.md",
    "summary.csv",
    "servers.csv",
    "validation.csv",
    "summary.json",
    "report.html",
    "figures",
)

BEGINNINGS = {
    MARKDOWN: re.compile("# dsgd-bench report\n"),
    CSV: re.compile("study[,\n]"),
    JSON: re.compile(r'{\s*"schema": \d+,\s*"command": "dsgd-bench report'),
    PAGE: re.compile("<!doctype html>.*?<title>dsgd-bench: ", re.DOTALL),
    SERVERS: re.compile("study,algorithm,servers,"),
    VALIDATION: re.compile("case,algorithm,slowdown,"),
}
"""How the texts of a report begin, in every version."""


def is_foreign(path: Path) -> bool:
    """Tell whether a file with one of these names is not a report's, and not empty.

    Nothing else says whose it is: ``--out`` may name any folder, and a file that is not
    there, or cannot be read, is left to the one who writes it.
    """
    try:
        beginning = files.read_beginning(path)
    except OSError:
        return False
    return bool(beginning) and not BEGINNINGS[path.name].match(beginning)
