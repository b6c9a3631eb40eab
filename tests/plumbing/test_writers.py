"""Every writer replaces files only: no FIFO, device or folder, and links stay."""

import os
import shutil

import pytest
import synthetic
from test_profile import a_profile
from test_validation import foretold, ran

from dsgd_bench import report, trace
from dsgd_bench.batch.slurm.records import RECORD, Record
from dsgd_bench.bench import output
from dsgd_bench.errors import DsgdError
from dsgd_bench.fabric.virtual.fabric import World
from dsgd_bench.io import trial_folder
from dsgd_bench.replay import figure, whatif
from dsgd_bench.replay import tables as replays
from dsgd_bench.report.names import BEGINNINGS
from dsgd_bench.spec.job import Job
from dsgd_bench.spec.machine import Machine
from dsgd_bench.trial.run import Run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of one trial, its shards and its trace."""
    folder = tmp_path_factory.mktemp("finished")
    of = synthetic.trial("adpsgd", seconds=0.2, target=None)
    World(4).run(Run(of, folder, "toy", "auto", {}))
    return folder


def profile(path, _):
    a_profile().write(path)


def job(path, _):
    Job("toy", synthetic.trial(), Machine()).write(path)


def replay_json(path, finished):
    replays.write_json(path, whatif.ask(finished / "trace.h5"))


def replay_figure(path, finished):
    figure.write(path, whatif.ask(finished / "trace.h5"))


def bench_json(path, _):
    output.write_json(path, "dsgd-bench", {}, [])


def merged(path, finished):
    for shard in finished.glob("rank-*.h5"):
        shutil.copy(shard, path.parent)
    trace.merge(path.parent)


def record(path, _):
    Record("7", "now", 4, 1, 1, "1:00", ()).write(path.parent)


WRITERS = {
    "profile.json": profile,
    "job.json": job,
    "replay.json": replay_json,
    "replay.png": replay_figure,
    "bench.json": bench_json,
    "trace.h5": merged,
    RECORD: record,
}


def fifo(path):
    os.mkfifo(path)


def folder(path):
    path.mkdir()


def device(path):
    path.symlink_to("/dev/null")


each_writer = pytest.mark.parametrize("name", WRITERS)


@each_writer
@pytest.mark.parametrize("make", [fifo, folder, device])
def test_no_writer_replaces_what_is_no_file(tmp_path, finished, name, make):
    make(tmp_path / name)
    before = (tmp_path / name).lstat().st_mode
    with pytest.raises((DsgdError, OSError), match="not a file"):
        WRITERS[name](tmp_path / name, finished)
    assert (tmp_path / name).lstat().st_mode == before
    assert not list(tmp_path.glob(".*")), "nothing half-written is left"


@each_writer
def test_every_writer_writes_through_a_link_to_a_file(tmp_path, finished, name):
    target = tmp_path / "far" / "file"
    target.parent.mkdir()
    target.write_text("old")
    (tmp_path / name).symlink_to(target)
    WRITERS[name](tmp_path / name, finished)
    assert (tmp_path / name).is_symlink()
    assert target.stat().st_size > 10
    assert [path.name for path in target.parent.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "name", ["report.md", "summary.csv", "report.html", "figures/toy-time.png"]
)
def test_a_report_replaces_no_folder_or_fifo(tmp_path, name):
    synthetic.save(synthetic.run(synthetic.trial()), tmp_path / "toy")
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    os.mkfifo(out / name)
    written = report.read_report(tmp_path / "toy").write(out)
    assert any("it is a FIFO, not a file" in remark for remark in written.remarks)
    assert (out / name).is_fifo()


def test_a_report_replaces_no_text_that_no_report_has_written(tmp_path):
    """Of a paper, say, whose folder `--out` names."""
    out = tmp_path / "out"
    out.mkdir()
    for name in BEGINNINGS:
        (out / name).write_text(f"The study of {name}\n")
    written = everything(tmp_path / "results").write(out)
    for name in BEGINNINGS:
        assert (out / name).read_text() == f"The study of {name}\n"
    (remark,) = written.remarks
    assert f"{', '.join(BEGINNINGS)} cannot be written to {out}" in remark
    assert "(what lies there is not of a report)" in remark
    assert not written.whole
    assert {path.suffix for path in written.files} == {".png"}


def test_a_report_replaces_the_one_before_and_empty_files(tmp_path):
    found, out = everything(tmp_path / "results"), tmp_path / "out"
    out.mkdir()
    for name in BEGINNINGS:
        (out / name).touch()
    for _ in range(2):
        written = found.write(out)
        assert written.whole, written.remarks
        assert {path.name for path in written.files} >= BEGINNINGS.keys()


def everything(folder):
    """Return a report that has all files there are: of servers, and of simulations."""
    measured = ran("asgd")
    for each in (measured, foretold(measured)):
        synthetic.save(each, folder / "toy")
    return report.read_report(folder)


def test_a_checkpoint_is_not_written_through_a_link_to_a_folder(tmp_path):
    """Ranks made theirs in whatever the name of an unfinished checkpoint led to."""
    far = tmp_path / "far"
    far.mkdir()
    (far / "rank-0000.h5").write_text("of somebody")
    trial = tmp_path / "trial"
    trial.mkdir()
    (trial / trial_folder.CHECKPOINT_PART).symlink_to(far)
    trace.checkpoint.remove(trial / trial_folder.CHECKPOINT_PART)
    assert (far / "rank-0000.h5").read_text() == "of somebody"
    assert not list(trial.iterdir())
