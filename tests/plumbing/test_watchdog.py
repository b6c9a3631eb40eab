"""Silence, seen from both sides: by what hangs, and by the process that started it."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from dsgd_bench.errors import HangError
from dsgd_bench.study import watchdog
from dsgd_bench.study.watchdog import Listener, Silence


class Clock:
    """A clock that is moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_silence_lasts_until_the_sign_changes(clock):
    silence = Silence()
    for second in range(1, 6):
        clock.now = float(second)
        silence("same")
    assert silence("same") == pytest.approx(4.0)
    assert silence("other") == 0.0


def test_time_in_which_we_ourselves_stood_still_is_nobodys_silence(clock):
    silence = Silence()
    silence("same")
    clock.now = 3600.0
    assert silence("same") <= 2 * watchdog.PERIOD


def heard(clock, listener, seconds: float) -> None:
    """Listen for some time, a look each second."""
    for _ in range(int(seconds)):
        clock.now += 1.0
        listener()


def test_a_launch_may_be_silent_longer_than_a_rank_but_not_for_ever(clock, tmp_path):
    job = tmp_path / "job"
    job.touch()
    listener = Listener(20.0, job)
    heard(clock, listener, 20.0 + watchdog.MARGIN - 1)
    with pytest.raises(HangError, match="no sign of life for 30 s"):
        heard(clock, listener, 5.0)


def test_a_touched_job_and_a_growing_log_are_signs_of_life(clock, tmp_path):
    job, log = tmp_path / "job", tmp_path / "log"
    job.touch()
    listener = Listener(5.0, job, log)
    for turn in range(10):
        heard(clock, listener, 14.0)
        if turn % 2:
            os.utime(job, (turn, turn))
        else:
            log.write_text("x" * (turn + 1))


def test_where_the_ranks_have_said_how_they_ended_there_is_little_patience(
    clock, tmp_path
):
    job = tmp_path / "job"
    job.touch()
    listener = Listener(1000.0, job, over=lambda: True)
    with pytest.raises(HangError):
        heard(clock, listener, watchdog.ENDING + 2)


def test_ranks_that_cannot_touch_the_file_are_given_more_time(clock, tmp_path):
    beat = tmp_path / "beat"
    beat.touch()
    listener = Listener(5.0, beat, unheard=100.0)
    heard(clock, listener, 90.0)
    os.utime(beat, (1, 1))
    heard(clock, listener, 14.0)
    with pytest.raises(HangError):
        heard(clock, listener, 4.0)


def run(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, words)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_rank_that_does_not_move_shows_its_stacks_and_ends_the_job(tmp_path):
    done = run(
        """
        import os, time
        from dsgd_bench.study import watchdog
        def end(sentence):
            print(sentence, flush=True)
            os._exit(7)
        with watchdog.Watchdog(0.4, lambda: 0, end, "rank 3"):
            time.sleep(60)
        """
    )
    assert done.returncode == 7
    assert "rank 3 has not moved for 0.4 s: the stacks of all ranks" in done.stdout
    assert "most recent call first" in done.stderr


def test_a_rank_in_which_no_thread_of_python_runs_is_ended_too():
    """As MPI_Init and MPI_Finalize are called: the interpreter is held meanwhile."""
    done = run(
        """
        import ctypes
        from dsgd_bench.study import watchdog
        watchdog.LAST_RESORT = 0.5
        with watchdog.Watchdog(0.4, lambda: 0, print, "rank 3"):
            ctypes.PyDLL(None).sleep(60)
        """
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr


def test_a_rank_that_others_listen_to_is_not_ended_for_having_been_stopped():
    done = run(
        """
        import os, signal, subprocess, time
        from dsgd_bench.study import watchdog
        watchdog.LAST_RESORT = 0.1
        signs = iter(range(10**6))
        with watchdog.Watchdog(0.4, lambda: next(signs), print, "rank 3") as dog:
            dog.last_resort = False
            dog.follow(0.4, lambda: next(signs), print, "rank 3")
            subprocess.Popen(["sh", "-c", f"sleep 1.5; kill -CONT {os.getpid()}"])
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(0.5)
        print("goes on")
        """
    )
    assert (done.returncode, done.stdout) == (0, "goes on\n"), done.stderr


def test_a_process_that_hangs_at_its_very_end_is_ended_by_the_system():
    done = run(
        """
        import ctypes, faulthandler
        from dsgd_bench.study import watchdog
        watchdog.end_within(0.5)
        ctypes.PyDLL(None).sleep(60)
        """
    )
    assert done.returncode == -signal.SIGALRM


def test_the_watchdog_touches_its_file_while_the_rank_moves_or_not(tmp_path):
    beat = tmp_path / "beat"
    beat.touch()
    os.utime(beat, (1, 1))
    signs = iter(range(1000))
    with watchdog.Watchdog(0.2, lambda: next(signs), print, "rank 0", beat=beat):
        first = Path(beat).stat().st_mtime_ns
        end = time.monotonic() + 20
        while Path(beat).stat().st_mtime_ns == first and time.monotonic() < end:
            time.sleep(0.02)
    assert Path(beat).stat().st_mtime_ns > first > 10**9
