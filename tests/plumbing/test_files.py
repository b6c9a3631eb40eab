"""Only files are read and replaced, whole, whatever lies under their names."""

import os
import stat

import pytest

from dsgd_bench.io import escape, files


def names_in(folder):
    return [path.name for path in folder.iterdir()]


def make_fifo(path):
    os.mkfifo(path)


def make_folder(path):
    path.mkdir()


def make_device_link(path):
    path.symlink_to("/dev/zero")


OTHERS = pytest.mark.parametrize(
    ("make", "said"),
    [
        (make_fifo, "a FIFO"),
        (make_folder, "a folder"),
        (make_device_link, "a device"),
    ],
)


@OTHERS
def test_what_is_no_file_is_never_read_nor_waited_for(tmp_path, make, said):
    make(tmp_path / "it")
    with pytest.raises(OSError, match=f"it is {said}, not a file"):
        files.read_text(tmp_path / "it")


@OTHERS
def test_what_is_no_file_is_never_replaced(tmp_path, make, said):
    make(tmp_path / "it")
    before = (tmp_path / "it").lstat().st_mode
    with pytest.raises(OSError, match=f"it is {said}, not a file"):
        files.write_text(tmp_path / "it", "new")
    assert (tmp_path / "it").lstat().st_mode == before
    assert names_in(tmp_path) == ["it"]


def test_a_link_stays_and_the_file_behind_it_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "file"
    target.write_text("old")
    link = tmp_path / "link"
    link.symlink_to(target)
    files.write_text(link, "new")
    assert stat.S_ISLNK(link.lstat().st_mode)
    assert target.read_text() == "new"
    assert names_in(tmp_path / "there") == ["file"]


def test_a_file_stays_as_it_was_if_writing_fails(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fails(scratch):
        scratch.write_text("ne")
        raise OSError

    with pytest.raises(OSError, match=r"^$"), files.replacing(path) as scratch:
        fails(scratch)
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["file"]


def test_a_file_that_is_too_large_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert files.read_bytes(tmp_path / "file", limit=5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        files.read_bytes(tmp_path / "file", limit=4)


def test_what_is_not_utf_8_is_replaced(tmp_path):
    (tmp_path / "file").write_bytes(b"M\xfcller")
    assert files.read_text(tmp_path / "file") == "M�ller"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Grüße, 漢字 🙂", "Grüße, 漢字 🙂"),
        ("a\nFOM loss 0 1", "a\\nFOM loss 0 1"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("\udc80", "\\udc80"),
    ],
)
def test_foreign_text_is_one_line_without_anything_unseen(text, shown):
    assert escape.plain(text) == shown
