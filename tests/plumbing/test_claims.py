"""One trial, one runner: on one host, between hosts, and after a death."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from dsgd_bench.errors import TraceError
from dsgd_bench.io import trial_folder
from dsgd_bench.study import lock

pytestmark = pytest.mark.timeout(60)


def of_another_host(folder: Path, *, age: float = 0.0, **more: object) -> None:
    """Leave a claim as a process on another host would."""
    claim = {"host": "far", "kernel": "another", "process": 1, "job": "", "start": "0"}
    path = folder / trial_folder.CLAIM
    path.write_text(json.dumps({**claim, **more}))
    then = time.time() - age
    os.utime(path, (then, then))


def hold(folder: Path, ready: Any) -> None:
    with lock.held(folder) as ours:
        ready.put(ours)
        time.sleep(60)


def a_holder(folder: Path) -> multiprocessing.process.BaseProcess:
    context = multiprocessing.get_context("spawn")
    ready = context.Queue()
    process = context.Process(target=hold, args=(folder, ready))
    process.start()
    assert ready.get(timeout=30)
    return process


def test_a_folder_is_held_once_and_given_back(tmp_path: Path) -> None:
    with lock.held(tmp_path) as first, lock.held(tmp_path) as second:
        assert first
        assert not second
        assert (tmp_path / trial_folder.CLAIM).exists()
    assert not (tmp_path / trial_folder.CLAIM).exists()
    with lock.held(tmp_path) as again:
        assert again


def test_who_was_refused_does_not_take_the_claim_away(tmp_path: Path) -> None:
    with lock.held(tmp_path):
        with lock.held(tmp_path):
            pass
        assert (tmp_path / trial_folder.CLAIM).exists()


def test_a_killed_holder_on_this_host_is_replaced_at_once(tmp_path: Path) -> None:
    holder = a_holder(tmp_path)
    with lock.held(tmp_path) as while_it_lives:
        assert not while_it_lives
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert (tmp_path / trial_folder.CLAIM).exists()
    with lock.held(tmp_path) as ours:
        assert ours


def test_a_claim_of_another_host_counts_while_it_is_touched(tmp_path: Path) -> None:
    of_another_host(tmp_path)
    with lock.held(tmp_path) as ours:
        assert not ours
    of_another_host(tmp_path, age=lock.STALE + 1)
    with lock.held(tmp_path) as ours:
        assert ours


@pytest.mark.parametrize("process", [0, -1, "me", None])
def test_a_claim_without_a_process_counts_until_it_is_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process: object
) -> None:
    """Signals to 0 and -1 reach many processes, some of which always run."""
    monkeypatch.setattr(lock, "_flock", lambda _: lock.UNKNOWN)
    ours = json.loads(lock._ourselves().text())
    for age, expected in ((0.0, False), (lock.STALE + 1, True)):
        of_another_host(tmp_path, age=age, **{**ours, "process": process})
        with lock.held(tmp_path) as taken:
            assert taken is expected


def test_the_claim_of_an_earlier_start_of_the_same_job_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A requeued job may land on other nodes; its first start is dead."""
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    of_another_host(tmp_path, job="18")
    with lock.held(tmp_path) as of_another_job:
        assert not of_another_job
    of_another_host(tmp_path, job="17", start="1")
    with lock.held(tmp_path) as of_another_step:
        assert not of_another_step
    of_another_host(tmp_path, job="17", start="0")
    with lock.held(tmp_path) as ours:
        assert ours


def test_a_holder_touches_its_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT", 0.02)
    with lock.held(tmp_path):
        os.utime(tmp_path / trial_folder.CLAIM, (0.0, 0.0))
        until = time.monotonic() + 20
        while (tmp_path / trial_folder.CLAIM).stat().st_mtime == 0.0:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_of_many_who_take_over_from_a_dead_one_at_most_one_succeeds(
    tmp_path: Path,
) -> None:
    """Without locks, as on a file system that has none."""
    of_another_host(tmp_path, age=lock.STALE + 1)
    path = tmp_path / trial_folder.CLAIM
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        words = [(path, f'{{"process": {number}}}') for number in range(4)]
        won = pool.starmap(lock._taken_over, words)
    assert sum(won) <= 1


def test_a_folder_that_cannot_be_written_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(TraceError, match="choose another with --results"),
        lock.held(tmp_path / "file" / "missing"),
    ):
        pass


@pytest.mark.parametrize("name", [trial_folder.LOCK, trial_folder.CLAIM])
def test_a_fifo_where_a_claim_belongs_is_a_sentence_and_no_wait(
    tmp_path: Path, name: str
) -> None:
    os.mkfifo(tmp_path / name)
    with (
        pytest.raises(TraceError, match="a FIFO, not a file"),
        lock.held(tmp_path),
    ):
        pass
