"""Emulated hosts for the tests of this folder, and jobs that run on them.

Where this machine cannot have such hosts, every test is skipped and says why.
"""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from virtual_hosts import Hosts, up


@pytest.fixture(scope="session")
def all_hosts() -> Iterator[Hosts]:
    hosts = Hosts(f"t{os.getpid()}-")
    try:
        up(hosts, "-n", 4)
        yield hosts
    finally:
        if hosts.namespaces():
            hosts.script("down")


@pytest.fixture
def hosts(all_hosts: Hosts) -> Iterator[Hosts]:
    """Four hosts at 200 Mbit/s each, nothing running on them."""
    up(all_hosts, "-n", 4, "--rate", "200mbit")
    yield all_hosts
    for pid in all_hosts.processes():  # of a test that failed
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


Job = Callable[..., Any]


@pytest.fixture
def job(hosts: Hosts, tmp_path: Path) -> Job:
    """Run a function of `ranks.py` on some hosts; return every rank's result."""

    def run(name: str, *words: object, ranks: int = 4) -> Any:
        answer, log = tmp_path / "answer.json", tmp_path / "log.txt"
        answer.unlink(missing_ok=True)
        program = [str(Path(__file__).parent / "ranks.py"), str(answer), name]
        status = hosts.start(ranks, [*program, *map(str, words)], log)
        assert status == 0, log.read_text()
        return json.loads(answer.read_text())

    return run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.hosts)
