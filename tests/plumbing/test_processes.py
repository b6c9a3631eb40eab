"""Commands that end, fail, hang or are interrupted; none leaves anything behind."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from dsgd_bench.errors import LaunchError
from dsgd_bench.host import processes

SOON = 20.0
"""Seconds after which something that should have happened at once has not."""


def alive(pid: int) -> bool:
    """Say whether a process runs; one that only waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(happened) -> bool:
    end = time.monotonic() + SOON
    while not (done := happened()) and time.monotonic() < end:
        time.sleep(0.02)
    return done


def gone(pids: list[int]) -> bool:
    return wait_until(lambda: not any(map(alive, pids)))


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log.txt"


@pytest.mark.parametrize("status", [0, 1, 75])
def test_the_exit_status_is_the_commands(log, status):
    assert processes.run(["sh", "-c", f"exit {status}"], os.environ, log) == status


def test_death_by_a_signal_is_a_negative_status(log):
    assert processes.run(["sh", "-c", "kill -9 $$"], os.environ, log) == -signal.SIGKILL


def test_both_outputs_go_to_the_log_and_line_by_line_to_the_listener(log):
    lines = []
    script = "echo first; echo second >&2; printf unfinished"
    processes.run(["sh", "-c", script], os.environ, log, lines.append)
    assert lines == ["first", "second", "unfinished"]
    assert log.read_text() == "first\nsecond\nunfinished"


def test_the_environment_is_the_one_given(log):
    processes.run(["/bin/sh", "-c", "echo $FLAVOR$HOME"], {"FLAVOR": "sour"}, log)
    assert log.read_text() == "sour\n"


def test_an_earlier_log_is_replaced(log):
    log.write_text("of another run\n")
    processes.run(["true"], os.environ, log)
    assert log.read_text() == ""


def test_a_command_that_does_not_exist_is_one_sentence(log):
    with pytest.raises(LaunchError, match="no-such-launcher cannot be started"):
        processes.run(["no-such-launcher"], os.environ, log)


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(LaunchError, match="true cannot be started"):
        processes.run(["true"], os.environ, tmp_path / "missing" / "log.txt")


def family_of_sleepers(extra: str = "") -> list[str]:
    """Return a command that starts a child and a child in a session of its own."""
    script = f"{extra} sleep 600 & echo $!; setsid sleep 600 & echo $!; echo $$; wait"
    return ["sh", "-c", script]


class StopError(Exception):
    pass


def listen_then_stop(pids: list[int]):
    def listener(line: str) -> None:
        pids.append(int(line))
        if len(pids) == 3:
            raise StopError

    return listener


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.parametrize("deaf", ["", "trap '' TERM;"])
def test_an_exception_ends_all_children_even_deaf_ones_in_other_sessions(log, deaf):
    pids: list[int] = []
    command = family_of_sleepers(deaf)
    with pytest.raises(StopError):
        processes.run(command, os.environ, log, listen_then_stop(pids), patience=0.5)
    assert gone(pids)


def test_children_that_outlive_their_parent_are_ended(log):
    command = ["sh", "-c", "setsid sleep 600 & echo $!"]
    assert processes.run(command, os.environ, log) == 0
    assert gone([int(log.read_text())])


def test_other_launches_are_left_alone(log, tmp_path):
    other = subprocess.Popen(
        ["sleep", "600"], env={**os.environ, processes.MARK: "another launch"}
    )
    try:
        processes.run(["true"], os.environ, log)
        assert alive(other.pid)
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_leaves_no_orphans_and_says_it_was_interrupted(log, number):
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        from pathlib import Path
        from dsgd_bench.host import processes
        # a job in the background may have inherited that it ignores Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        try:
            processes.run({family_of_sleepers()!r}, os.environ, Path({str(log)!r}))
        except KeyboardInterrupt:
            sys.exit(130)
        """
    )
    runner = subprocess.Popen([sys.executable, "-c", script])
    try:
        assert wait_until(lambda: log.exists() and len(log.read_text().split()) == 3)
        pids = [int(word) for word in log.read_text().split()]
        assert all(map(alive, pids))
        runner.send_signal(number)
        assert runner.wait(SOON) == 130
        assert gone(pids)
    finally:
        runner.kill()
        runner.wait()


def test_signal_handlers_are_put_back(log):
    before = signal.getsignal(signal.SIGTERM)
    processes.run(["true"], os.environ, log)
    assert signal.getsignal(signal.SIGTERM) is before
