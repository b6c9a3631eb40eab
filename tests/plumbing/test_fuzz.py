"""A part of `make fuzz`, in pieces: damaged files end in sentences."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PIECES = {"configurations": (500, 2), "folders": (30, 2), "pieces": (50, 1)}
"""Cases of each kind, and into how many tests they are split: a tenth of all, but for
folders, each of which takes some tenths of a second of a processor."""


def shares():
    for kind, (size, parts) in PIECES.items():
        for part in range(parts):
            first, last = size * part // parts, size * (part + 1) // parts
            yield pytest.param(kind, first, last, id=f"{kind}-{part}")


@pytest.mark.slow
@pytest.mark.timeout(600)  # some hundred commands, on a machine that may be busy
@pytest.mark.parametrize(("kind", "first", "last"), list(shares()))
def test_damaged_files_end_in_a_sentence(kind, first, last):
    words = ["--jobs", "1", "--only", f"{kind}:{first}-{last}"]
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "fuzz" / "fuzz.py", *words],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{kind}: {last - first} tried, 0 wrong" in done.stdout
