"""Shared memory of killed ranks is removed, and nobody else's, whatever its name."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dsgd_bench.host import identity, shared_memory

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells in /proc who uses a file"
)

RANK = """
import mmap, os, sys, time
from pathlib import Path
from dsgd_bench.host import shared_memory
folder, stage = Path(sys.argv[1]), sys.argv[2]
shared_memory.begin(folder)
file = folder / (sys.argv[3:] or ["mpich_shm_ours_0"])[0]
file.write_bytes(bytes(4096))
memory = mmap.mmap(os.open(file, os.O_RDWR), 4096)
if stage == "recorded":
    shared_memory.record(folder)
print("up", flush=True)
time.sleep(60)
"""


@pytest.fixture
def shm(tmp_path):
    """Return a folder that stands for /dev/shm, with a file of another program."""
    (tmp_path / "mpich_shm_another_0").write_bytes(bytes(4096))
    os.utime(tmp_path / "mpich_shm_another_0", (1e9, 1e9))  # from long before
    return tmp_path


def start(folder: Path, stage: str, *name: str) -> subprocess.Popen[bytes]:
    rank = subprocess.Popen(
        [sys.executable, "-c", RANK, str(folder), stage, *name], stdout=subprocess.PIPE
    )
    assert rank.stdout is not None
    assert rank.stdout.readline() == b"up\n"
    return rank


def end(rank: subprocess.Popen[bytes]) -> None:
    rank.kill()
    rank.wait()
    assert rank.stdout is not None
    rank.stdout.close()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_a_killed_rank_had_mapped_is_removed_once_it_is_dead(shm):
    rank = start(shm, "recorded")
    try:
        assert shared_memory.sweep(shm) == []
        assert "mpich_shm_ours_0" in names(shm)
    finally:
        end(rank)
    assert shared_memory.sweep(shm) == [str(shm / "mpich_shm_ours_0")]
    assert names(shm) == {"mpich_shm_another_0"}


@pytest.mark.parametrize(
    "name",
    [
        "mpich_shm_ours_0",
        "mpich_shar_tmp8qteRK",
        "sm_segment.vm.0.1.0",
        "ucx_shm_posix_32f2c0e7",
    ],
)
def test_a_rank_that_died_in_mpi_init_leaves_nothing_either(shm, name):
    if identity.namespace(identity.PROCESSES) != shared_memory.ALL_PROCESSES:
        pytest.skip("this container does not see all processes of its machine")
    end(start(shm, "beginning", name))
    assert shared_memory.sweep(shm) == [str(shm / name)]
    assert names(shm) == {"mpich_shm_another_0"}


def test_what_a_living_process_uses_stays_though_a_dead_one_names_it(shm):
    dead, living = start(shm, "recorded"), start(shm, "recorded")
    end(dead)
    try:
        shared_memory.sweep(shm)
        assert "mpich_shm_ours_0" in names(shm)
    finally:
        end(living)
    shared_memory.sweep(shm)
    assert names(shm) == {"mpich_shm_another_0"}


def test_a_file_that_took_the_name_meanwhile_is_not_ours(shm):
    end(start(shm, "recorded"))
    ours, new = shm / "mpich_shm_ours_0", shm / "new"
    new.write_bytes(b"of another program")
    new.replace(ours)
    shared_memory.sweep(shm)
    assert ours.read_bytes() == b"of another program"


def forged(shm: Path, **changes: object) -> Path:
    """Leave the note of a dead rank, with changes."""
    end(start(shm, "recorded"))
    (place,) = shm.glob(shared_memory.NOTE + "*")
    place.write_text(json.dumps(json.loads(place.read_text()) | changes))
    return place


@pytest.mark.parametrize(
    "changes", [{"kernel": "another boot"}, {"processes": "pid:[1]"}, {"more": 1}]
)
def test_notes_from_elsewhere_are_left_alone(shm, changes):
    place = forged(shm, **changes)
    assert shared_memory.sweep(shm) == []
    assert place.exists()
    assert (shm / "mpich_shm_ours_0").exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"files": 7}', "\0" * 100, "x" * 70000]
)
def test_notes_that_are_none_do_no_harm(shm, text):
    (shm / f"{shared_memory.NOTE}1").write_text(text)
    assert shared_memory.sweep(shm) == []


def test_a_note_names_nothing_outside_of_shared_memory(shm, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "precious"
    other.write_text("kept")
    status = other.stat()
    forged(shm, files=[[str(other), status.st_dev, status.st_ino]])
    shared_memory.sweep(shm)
    assert other.read_text() == "kept"


def test_the_folder_of_a_killed_launcher_of_open_mpi_is_removed(
    shm, tmp_path_factory, monkeypatch
):
    temporary = tmp_path_factory.mktemp("tmp")
    monkeypatch.setattr(shared_memory.tempfile, "gettempdir", lambda: str(temporary))
    dead = subprocess.Popen(["true"])
    dead.wait()
    sessions = [temporary / f"ompi.{pid}" for pid in (dead.pid, os.getpid())]
    sessions.append(temporary / f"mine.{dead.pid}")
    for session in sessions:
        session.mkdir()
        (session / "file").touch()
        forged(shm, session=str(session))
        shared_memory.sweep(shm)
    assert [session.exists() for session in sessions] == [False, True, True]


def test_the_folder_of_a_launcher_killed_before_its_ranks_began_is_removed(tmp_path):
    from dsgd_bench.host import processes

    (tmp_path / "ompi.1").mkdir()  # of another launcher
    killed = "mkdir -p $TMPDIR/ompi.$$/file && kill -KILL $$"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    log = tmp_path / "log"
    status = processes.run(["sh", "-c", killed], environment, log)
    assert status == -signal.SIGKILL
    assert names(tmp_path) == {"ompi.1", "log"}


@pytest.mark.parametrize("waits", [False, True])
def test_a_rank_that_ends_well_takes_its_note_along_unless_its_starter_looks(
    shm, waits
):
    code = RANK.replace("time.sleep(60)", "file.unlink()")
    starter = {"DSGD_BENCH_LAUNCH": f"{os.getpid()}-1"} if waits else {}
    subprocess.run(
        [sys.executable, "-c", code, str(shm), "recorded"],
        env={**os.environ, **starter},
        check=True,
        capture_output=True,
    )
    assert bool(list(shm.glob(shared_memory.NOTE + "*"))) is waits
    shared_memory.sweep(shm)
    assert names(shm) == {"mpich_shm_another_0"}


def test_a_run_removes_what_its_killed_command_left(shm, tmp_path_factory, monkeypatch):
    from dsgd_bench.host import processes

    monkeypatch.setattr(shared_memory.sweep, "__defaults__", (shm,))
    log = tmp_path_factory.mktemp("log") / "log"

    def kill(line: str) -> None:
        (place,) = shm.glob(shared_memory.NOTE + "*")
        os.kill(int(place.name.removeprefix(shared_memory.NOTE)), signal.SIGKILL)

    command = [sys.executable, "-c", RANK, str(shm), "recorded"]
    assert processes.run(command, dict(os.environ), log, kill) == -signal.SIGKILL
    assert names(shm) == {"mpich_shm_another_0"}
