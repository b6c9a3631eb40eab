"""Text is UTF-8, whatever the locale of a machine says."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "dsgd_bench"
FILES = sorted(PACKAGE.rglob("*.py"))


def without_encoding(tree):
    """Yield every call that opens, reads or writes text in the locale's encoding."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        is_method = isinstance(function, ast.Attribute)
        name = getattr(function, "attr", getattr(function, "id", ""))
        if name != "open" and not (is_method and name in ("read_text", "write_text")):
            continue
        owner = getattr(getattr(function, "value", None), "id", "")
        if owner in ("files", "os", "tarfile", "ledger", "super"):
            continue
        position = 0 if is_method else 1  # of the mode, where a file is opened
        modes = [a.value for a in node.args[position:] if isinstance(a, ast.Constant)]
        named = [k.value for k in node.keywords if k.arg == "mode"]
        modes += [value.value for value in named if isinstance(value, ast.Constant)]
        if name == "open" and (any("b" in str(m) for m in modes) or not_a_file(node)):
            continue
        if not any(k.arg == "encoding" for k in node.keywords):
            yield node.lineno


def not_a_file(node):
    """Say whether a method called open has nothing to do with a path."""
    owner = getattr(node.func, "value", None)
    return isinstance(owner, ast.Call) and getattr(owner.func, "id", "") == "super"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_text_is_read_and_written_as_utf_8(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert list(without_encoding(tree)) == []


@pytest.mark.parametrize(
    "call",
    ["path.open('x')", "open(name)", "path.read_text()", "path.write_text(text)"],
)
def test_a_call_that_leaves_the_encoding_to_the_locale_is_found(call):
    assert list(without_encoding(ast.parse(call))) == [1]


@pytest.mark.parametrize(
    "call",
    ["path.open('rb')", "open(name, encoding='utf-8')", "files.read_text(path)"],
)
def test_others_are_not(call):
    assert list(without_encoding(ast.parse(call))) == []
