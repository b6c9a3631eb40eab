"""The script that makes the virtual cluster takes away all that it made."""

import os
import shutil
import socket
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from virtual_cluster import script, until

HOSTS = Path("/etc/hosts")
WHERE = f"{os.environ['PATH']}:/usr/sbin"


@pytest.fixture
def other(cluster):
    """Where a second cluster, beside that of the tests, would be."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # munged's socket is for all users
        place = {"STATE_DIR": folder, "SLURM_PORT": "17817"}
        try:
            yield place
        finally:
            script("down", check=False, **place)


def processes(folder: str) -> list[str]:
    """Return the processes whose command line names a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:  # it has ended
            continue
        if folder in words:
            found.append(words)
    return found


def test_up_and_down_may_be_repeated_and_leave_nothing(other):
    folder = other["STATE_DIR"]
    before = HOSTS.read_text()
    assert "up: 4 nodes" in script("up", **other).stdout
    assert "up already" in script("up", **other).stdout
    assert f"slurm in {folder}" in HOSTS.read_text()
    assert "node4 idle" in script("status", **other).stdout
    assert processes(folder)
    script("down", **other)
    script("down", **other)
    assert not Path(folder).exists()
    assert HOSTS.read_text() == before
    until(lambda: not processes(folder), 10)
    assert script("status", check=False, **other).returncode == 1


def test_a_cluster_that_came_up_in_part_is_taken_down_whole(other, tmp_path):
    folder = other["STATE_DIR"]
    before = HOSTS.read_text()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 17820))
        taken.listen()
        done = script("up", check=False, **other)
        assert done.returncode == 1
        assert "port 17820 is taken" in done.stderr
    # the third node does not start
    real = shutil.which("slurmd", path=WHERE)
    text = f'#!/bin/sh\n[ "$4" != node3 ] && exec {real} "$@"\n'
    (tmp_path / "slurmd").write_text(text)
    (tmp_path / "slurmd").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = script("up", check=False, PATH=path, **other)
    assert done.returncode == 1
    assert "node3 does not start" in done.stderr
    assert processes(folder)
    script("down", **other)
    assert not Path(folder).exists()
    assert HOSTS.read_text() == before
    until(lambda: not processes(folder), 10)


def test_a_folder_with_other_things_in_it_is_left_alone(other):
    precious = Path(other["STATE_DIR"], "precious")
    precious.touch()
    for verb in ("up", "down"):
        done = script(verb, check=False, **other)
        assert done.returncode == 1
        assert "holds something else" in done.stderr
    assert precious.exists()


def test_a_process_that_took_over_a_number_is_not_killed(other):
    folder = Path(other["STATE_DIR"])
    (folder / "made-by-slurm.sh").touch()
    (folder / "run").mkdir()
    # this very process, which is no slurmctld
    (folder / "run" / "slurmctld.pid").write_text(f"{Path('/proc/self').readlink()}\n")
    script("down", **other)
    assert not folder.exists()


def test_a_wrong_word_shows_how_it_is_used():
    done = script("upp", check=False)
    assert done.returncode == 2
    assert "install | up | down" in done.stderr
    assert "install | up | down" in script("--help").stdout
