"""A damaged HDF5 file ends in a TraceError: no other exception, no crash, no wait."""

import os
import random
from pathlib import Path

import h5py
import numpy as np
import pytest
import test_verify

from dsgd_bench import trace
from dsgd_bench.errors import TraceError
from dsgd_bench.trace import inspector, reading
from dsgd_bench.trace.shard import Shard

TRIES = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the folder of a trial, with shards and a trace."""
    folder = tmp_path_factory.mktemp("trials") / "adpsgd"
    test_verify.make(folder, "adpsgd", ranks=2)
    return folder


def flipped(content, number):
    chance = random.Random(number)
    changed = bytearray(content)
    for _ in range(chance.choice((1, 5, 30))):
        changed[chance.randrange(min(len(changed), 8192))] ^= 1 << chance.randrange(8)
    return bytes(changed)


READERS = {
    "trace.h5": lambda path: trace.open_trace(path)["exchanges"],
    "rank-0001.h5": Shard.read,
}


@pytest.mark.parametrize("name", READERS)
def test_what_is_complete_has_a_seal_and_no_flipped_bit_gets_past_it(
    made, tmp_path, name
):
    content = (made / name).read_bytes()
    assert content[-reading.TRAILER :].startswith(reading.MARK)
    path = tmp_path / name
    for number in range(TRIES):
        path.write_bytes(flipped(content, number))
        with pytest.raises(TraceError, match="not as it was written"):
            READERS[name](path)


@pytest.mark.parametrize("name", READERS)
def test_flipped_bits_of_a_file_without_a_seal_end_in_a_sentence(made, tmp_path, name):
    content = (made / name).read_bytes()[: -reading.TRAILER]
    path, refused = tmp_path / name, 0
    for number in range(TRIES):
        path.write_bytes(flipped(content, number))
        try:
            READERS[name](path)
        except TraceError:
            refused += 1
    assert refused > TRIES // 4


def test_the_library_may_change_a_file_that_has_a_seal(made, tmp_path):
    path = tmp_path / "trace.h5"
    path.write_bytes((made / "trace.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        file["loss"][0, 0] = 7.0
    assert trace.open_trace(path)["loss"][0, 0] == 7.0


def test_a_dataset_that_pretends_to_be_huge_is_refused(made, tmp_path):
    path = tmp_path / "trace.h5"
    path.write_bytes((made / "trace.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        del file["loss"]
        file.create_dataset("loss", (10**6, 10**6), np.float64, chunks=(100, 100))
    with pytest.raises(TraceError, match="loss pretends"):
        trace.open_trace(path)


@pytest.mark.parametrize("kind", ["FIFO", "folder", "device", "loop"])
def test_what_is_no_file_is_not_opened(tmp_path, kind):
    path = tmp_path / "trace.h5"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "trace.h5")
    with pytest.raises(TraceError):
        trace.open_trace(path)
    assert trace.fabric_of(path) == ""


def test_a_process_that_crashes_while_it_reads_is_not_ours(monkeypatch, tmp_path):
    path = tmp_path / "trace.h5"
    path.write_bytes(b"anything")
    program = tmp_path / "inspector.py"
    source = Path(inspector.__file__).read_text(encoding="utf-8")
    assert source.count("    import resource\n") == 1
    crash = "    os.kill(os.getpid(), signal.SIGSEGV)\n"
    changed = source.replace("    import resource\n", crash)
    program.write_text(changed, encoding="utf-8")
    monkeypatch.setattr(inspector, "__file__", str(program))
    monkeypatch.setattr(inspector, "_known", [])
    with pytest.raises(TraceError, match="makes the HDF5 library crash"):
        trace.open_trace(path)
    inspector._known[0].close()


def test_shards_of_two_trials_are_not_merged(made, tmp_path):
    other = tmp_path / "other"
    test_verify.make(other, "allreduce", ranks=2)
    for rank, source in enumerate((made, other)):
        name = f"rank-{rank:04d}.h5"
        (tmp_path / name).write_bytes((source / name).read_bytes())
    with pytest.raises(TraceError, match="not of one trial"):
        trace.merge(tmp_path)
