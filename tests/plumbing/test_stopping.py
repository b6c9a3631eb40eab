"""When to stop: a file, or the end of the job."""

import time
from pathlib import Path

import pytest

from dsgd_bench.study import stopping

MARGIN = 60.0


@pytest.fixture(autouse=True)
def outside_of_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(stopping.FILE, raising=False)
    monkeypatch.delenv(stopping.END, raising=False)


def test_outside_of_jobs_nobody_stops() -> None:
    assert not stopping.expected()
    assert not stopping.due(MARGIN)
    with stopping.Watch(MARGIN) as watch:
        assert not watch()


def test_a_file_says_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "STOP"
    monkeypatch.setenv(stopping.FILE, str(file))
    assert stopping.expected()
    assert not stopping.due(MARGIN)
    file.touch()
    assert stopping.due(MARGIN)


@pytest.mark.parametrize(("left", "due"), [(MARGIN + 20, False), (MARGIN - 20, True)])
def test_it_is_time_so_many_seconds_before_the_end_of_the_job(
    left: float, due: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(stopping.END, str(int(time.time() + left)))
    assert stopping.expected()
    assert stopping.due(MARGIN) is due


def test_an_end_that_is_no_time_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Slurm has it where jobs have no limit."""
    monkeypatch.setenv(stopping.END, "Unknown")
    assert not stopping.due(MARGIN)


def test_a_watch_notices_the_file_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "STOP"
    monkeypatch.setenv(stopping.FILE, str(file))
    monkeypatch.setattr(stopping, "PERIOD", 0.01)
    with stopping.Watch(MARGIN) as watch:
        assert not watch()
        file.touch()
        until = time.monotonic() + 20
        while not watch():
            assert time.monotonic() < until
            time.sleep(0.01)
