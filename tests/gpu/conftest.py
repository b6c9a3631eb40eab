"""The command line, in a temporary folder, for tests that compute on a GPU."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# as `dsgd_bench.arrays.cuda` has it; here a test may import CuPy first
os.environ.setdefault("CUPY_CUDA_PER_THREAD_DEFAULT_STREAM", "1")

SECONDS = 150  # far more than any command here takes; a hang ends the test


@pytest.fixture
def dsgd_bench(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dsgd_bench", *words],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    return run
