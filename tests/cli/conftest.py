"""A command line to test, in a folder of its own."""

from pathlib import Path

import pytest
from command_line import Command


@pytest.fixture
def dsgd_bench(tmp_path: Path) -> Command:
    return Command(tmp_path)
