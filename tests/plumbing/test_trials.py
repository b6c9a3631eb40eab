"""The trials of a folder: links, what is ours there, and who writes into it when."""

import json
import multiprocessing
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from dsgd_bench.config.identity import trial_id
from dsgd_bench.errors import TraceError
from dsgd_bench.host import identity
from dsgd_bench.io import files
from dsgd_bench.io.trial_folder import (
    CHECKPOINT,
    CHECKPOINT_OLD,
    CHECKPOINT_PART,
    CLAIM,
    ERROR,
    JOB,
    LOCK,
    LOG,
    READY,
    STOPPED,
    TRACE,
    Outcome,
    TrialFolder,
)
from dsgd_bench.spec.job import Job
from dsgd_bench.spec.machine import Machine
from dsgd_bench.spec.network import PRESETS
from dsgd_bench.spec.trial import AlgorithmSpec, BudgetSpec, ProblemSpec, Study, Trial
from dsgd_bench.study import lock, runner, simulation
from dsgd_bench.trace import checkpoint, trials

NOTES = "nobody else has a copy of this"
WRITTEN = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def trial(repeat: int = 0) -> Trial:
    return Trial(
        ranks=2,
        repeat=repeat,
        algorithm=AlgorithmSpec("allreduce"),
        problem=ProblemSpec("softmax"),
        budget=BudgetSpec(steps=1),
        network=PRESETS["ethernet-10"],
    )


def study(repeats: int = 1) -> Study:
    return Study("tiny", Path("tiny.toml"), tuple(map(trial, range(repeats))))


class Silent:
    def starting(self, *_: object) -> None: ...
    def ended(self, *_: object) -> None: ...
    def running(self, *_: object) -> None: ...


def simulate(results: Path, repeats: int = 1) -> runner.StudyOutcome:
    return simulation.simulate_study(study(repeats), results, Silent())


def made(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


# ------------------------------------------------ which trials are there


def test_trials_behind_links_are_found_and_each_is_found_once(tmp_path: Path) -> None:
    results, far = tmp_path / "results", tmp_path / "far"
    one = made(results / "smoke" / "one", READY)
    made(far / "two", ERROR)
    made(far / "study" / "three", JOB)
    made(far / "campaign" / "deep" / "four", TRACE)
    (results / "smoke" / "two").symlink_to(far / "two")
    (results / "a-link-to-one").symlink_to(one)
    (results / "study").symlink_to(far / "study")
    (results / "campaign").symlink_to(far / "campaign")
    found = [each.path.relative_to(results).as_posix() for each in trials.find(results)]
    assert found == ["campaign/deep/four", "smoke/one", "smoke/two", "study/three"]


def test_links_in_circles_and_links_to_nowhere_end(tmp_path: Path) -> None:
    one = made(tmp_path / "smoke" / "one", READY)
    (tmp_path / "smoke" / "up").symlink_to(tmp_path)
    (one / "again").symlink_to(tmp_path / "smoke")
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "nowhere").symlink_to("not/there")
    assert trials.find(tmp_path) == [TrialFolder(one)]


def test_what_lies_deep_behind_a_link_is_not_looked_at(tmp_path: Path) -> None:
    """A link may lead to a whole disk."""
    made(tmp_path / "disk" / "a" / "b" / "c", READY)
    made(tmp_path / "results")
    (tmp_path / "results" / "disk").symlink_to(tmp_path / "disk")
    assert trials.find(tmp_path / "results") == []
    assert len(trials.find(tmp_path)) == 1


@pytest.mark.parametrize(
    ("marks", "state"),
    [
        ([READY, ERROR], Outcome.FINISHED),
        ([ERROR, STOPPED], Outcome.FAILED),
        ([STOPPED], Outcome.STOPPED),
        ([JOB], Outcome.MISSING),
    ],
)
def test_the_gravest_mark_does_not_hide_that_a_trial_has_finished(
    tmp_path: Path, marks: list[str], state: str
) -> None:
    assert TrialFolder(made(tmp_path, *marks)).outcome == state


# ----------------------------------------------- what is ours is removed


def with_foreign_files(folder: Path) -> dict[str, str]:
    """Put files of other people into a folder; return what they hold."""
    found = {"notes.txt": NOTES, "data/rank-0000.h5": NOTES, "trace.h5.bak": NOTES}
    for name, text in found.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return found


def holds(folder: Path, found: dict[str, str]) -> bool:
    return {name: (folder / name).read_text() for name in found} == found


def test_a_run_leaves_foreign_files_in_a_linked_trial_folder(tmp_path: Path) -> None:
    """The folder of a trial was a link to a folder of other people's files."""
    far = tmp_path / "far"
    found = with_foreign_files(far)
    made(tmp_path / "tiny")
    (tmp_path / "tiny" / trial_id(trial())).symlink_to(far)
    assert simulate(tmp_path).finished == 1
    assert holds(far, found)
    assert (far / TRACE).exists()


def test_a_linked_folder_with_names_like_ours_that_no_run_made_is_refused(
    tmp_path: Path,
) -> None:
    far = made(tmp_path / "far")
    (far / LOG).write_text(NOTES)
    made(tmp_path / "tiny")
    (tmp_path / "tiny" / trial_id(trial())).symlink_to(far)
    ((_, reason),) = simulate(tmp_path).failed
    assert f"is a link to {far}, where log.txt lies but no job.json" in reason
    assert (far / LOG).read_text() == NOTES


def test_clearing_removes_what_runs_leave_and_nothing_else(tmp_path: Path) -> None:
    ours = (
        ERROR,
        STOPPED,
        LOG,
        TRACE,
        "rank-0000.h5",
        "rank-12345.h5",
        ".trace-17.h5",
        ".claim-host-17",
        ".clock-host-17",
        ".probe-17",
        f"{files.SCRATCH}0123abcd",
    )
    kept = (
        JOB,
        LOCK,
        CLAIM,
        "rank-x.h5",
        "log.txt.old",
        "ready",
    )
    made(tmp_path, *ours, *kept)
    for name in (
        CHECKPOINT,
        CHECKPOINT_OLD,
        CHECKPOINT_PART,
    ):
        made(tmp_path / name, "rank-0000.h5")
    trials.clear(TrialFolder(tmp_path), checkpoints=False)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*kept, CHECKPOINT, CHECKPOINT_OLD}
    trials.clear(TrialFolder(tmp_path), checkpoints=True)
    assert {path.name for path in tmp_path.iterdir()} == set(kept)


def test_clearing_removes_links_and_not_what_they_lead_to(tmp_path: Path) -> None:
    far, folder = tmp_path / "far", made(tmp_path / "trial", JOB)
    found = with_foreign_files(far)
    (folder / TRACE).symlink_to(far / "notes.txt")
    (folder / "rank-0000.h5").symlink_to(tmp_path / "nowhere")
    (folder / CHECKPOINT).symlink_to(far / "data")
    trials.clear(TrialFolder(folder), checkpoints=True)
    assert [path.name for path in folder.iterdir()] == [JOB]
    assert holds(far, found)


@pytest.mark.parametrize("name", [LOG, ERROR, JOB, "rank-0000.h5"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_no_run_can_have_made_is_in_the_way_and_stays(
    tmp_path: Path, name: str, make: Any
) -> None:
    make(tmp_path / name)
    made(tmp_path, TRACE)
    with pytest.raises(TraceError, match=f"{name} is in the way"):
        trials.clear(TrialFolder(tmp_path), checkpoints=True)
    assert {path.name for path in tmp_path.iterdir()} == {name, TRACE}


def test_a_foreign_file_in_a_checkpoint_survives_it(tmp_path: Path) -> None:
    made(tmp_path / CHECKPOINT, "rank-0000.h5", "notes.txt")
    checkpoint.discard(tmp_path)
    assert [path.name for path in tmp_path.rglob("*.*") if path.is_file()] == [
        "notes.txt"
    ]
    assert checkpoint.find(tmp_path) is None, "what is left is no checkpoint"


def test_one_odd_trial_does_not_keep_the_others_from_running(tmp_path: Path) -> None:
    made(tmp_path / "tiny")
    (tmp_path / "tiny" / trial_id(trial(1))).symlink_to(tmp_path / "nowhere" / "else")
    (tmp_path / "tiny" / trial_id(trial(2))).write_text(NOTES)
    outcome = simulate(tmp_path, repeats=4)
    assert outcome.finished == 2
    assert {each.repeat for each, _ in outcome.failed} == {1, 2}
    assert all("cannot be written" in reason for _, reason in outcome.failed)
    assert (tmp_path / "tiny" / trial_id(trial(2))).read_text() == NOTES


# -------------------------------------------- who writes there, and when

WATCH: list[Any] = []
"""What is called for every change to the file system, while there is one."""


def _audited(event: str, arguments: tuple[Any, ...]) -> None:
    changes = event in {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}
    if event == "open" and isinstance(arguments[2], int):
        changes = bool(arguments[2] & WRITTEN)
    if changes and WATCH:
        WATCH[0](arguments[0])


sys.addaudithook(_audited)


@contextmanager
def watched(folder: Path) -> Iterator[list[str]]:
    """Yield the names that are changed in a folder while nobody has claimed it."""
    early: list[str] = []
    busy: list[bool] = []

    def look(path: Any) -> None:
        if busy or not isinstance(path, str | os.PathLike):
            return
        busy.append(True)
        with suppress(ValueError):
            name = Path(os.fspath(path)).relative_to(folder).as_posix()
            if not (folder / CLAIM).exists():
                early.append(name)
        busy.clear()

    WATCH.append(look)
    try:
        yield early
    finally:
        WATCH.clear()


def test_whatever_is_written_into_a_trials_folder_is_written_under_its_claim(
    tmp_path: Path,
) -> None:
    """By the contract, not by luck: probes and clocks of others were cleared away."""
    folder = tmp_path / "tiny" / trial_id(trial())
    with watched(folder) as early:
        made(folder, "probe")
        assert set(early) == {".", "probe"}, "the watch sees what is written"
        early.clear()
        simulate(tmp_path)
    assert set(early) <= {".", LOCK, CLAIM}
    with watched(folder) as early:
        simulate(tmp_path)
    assert early == [], "finished trials are only looked at"


def test_a_claim_that_is_refused_writes_nothing_but_the_lock(tmp_path: Path) -> None:
    folder = made(tmp_path / "trial")
    claim = {"host": "far", "kernel": "another", "process": 1}
    (folder / CLAIM).write_text(json.dumps(claim))
    before = {LOCK, CLAIM}
    with lock.held(folder) as ours:
        assert not ours
        assert {path.name for path in folder.iterdir()} == before


def test_the_clock_of_the_file_system_is_read_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process clears the folder while this one looks at the clock."""
    ask = os.fstat

    def interrupted(descriptor: int) -> os.stat_result:
        for path in tmp_path.iterdir():
            path.unlink()
        return ask(descriptor)

    monkeypatch.setattr(lock.os, "fstat", interrupted)
    assert lock.now_there(tmp_path) > 0
    assert not list(tmp_path.iterdir())


def test_a_folder_that_goes_between_making_and_claiming_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, left, opens = tmp_path / "study" / "trial", [3], os.open

    def late(path: Any, *words: Any, **more: Any) -> int:
        if Path(path).name == LOCK and left[0]:
            left[0] -= 1
            shutil.rmtree(folder.parent)
        return opens(path, *words, **more)

    monkeypatch.setattr(lock.os, "open", late)
    with lock.held(folder) as ours:
        assert ours
        assert (folder / CLAIM).exists()


def test_a_lock_on_a_file_that_is_no_longer_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is removed and made again while the lock is being taken."""
    folder, original, seen = made(tmp_path / "trial"), lock._flock, list[int]()

    def late(descriptor: int) -> str:
        seen.append(descriptor)
        if len(seen) == 1:
            shutil.rmtree(folder)
            made(folder, LOCK)
        return original(descriptor)

    monkeypatch.setattr(lock, "_flock", late)
    with lock.held(folder) as first, lock.held(folder) as second:
        assert first
        assert not second
    assert len(seen) == 3


def test_nobody_gives_back_the_claim_of_another(tmp_path: Path) -> None:
    with lock.held(tmp_path) as ours:
        assert ours
        (tmp_path / CLAIM).write_text("of one who took us for dead")
    assert (tmp_path / CLAIM).exists()


def test_no_lock_empties_a_foreign_file(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text(NOTES)
    (tmp_path / LOCK).symlink_to("notes")
    with lock.held(tmp_path):
        pass
    assert (tmp_path / "notes").read_text() == NOTES


def test_a_process_of_another_container_with_our_number_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers share host name and kernel, and both begin to count at 1."""
    monkeypatch.setattr(lock, "_flock", lambda _: lock.UNKNOWN)
    with lock.held(tmp_path) as first:
        assert first
        monkeypatch.setattr(identity, "namespace", lambda _: "of another container")
        with lock.held(tmp_path) as second:
            assert not second


def share(results: Path, repeats: int) -> tuple[int, int, list[str]]:
    outcome = simulate(results, repeats)
    return outcome.finished, outcome.elsewhere, [why for _, why in outcome.failed]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_race_one_folder_four_runs_share_a_study_and_each_trial_is_run_once(
    tmp_path: Path,
) -> None:
    repeats = 24
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        ended = pool.starmap(share, [(tmp_path, repeats)] * 4)
    assert [failed for *_, failed in ended] == [[]] * 4
    assert sum(finished for finished, *_ in ended) == repeats
    folders = list((tmp_path / "tiny").iterdir())
    assert Counter(TrialFolder(each).outcome for each in folders) == {
        Outcome.FINISHED: repeats
    }
    kept = {READY, JOB, TRACE, LOCK}
    assert {path.name for folder in folders for path in folder.iterdir()} == kept


# ------------------------------------------------------- what is written


def test_a_job_is_written_whole_and_not_over_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(TraceError, match="it is a FIFO"):
        Job("tiny", trial(), Machine()).write(tmp_path / "fifo")
    Job("tiny", trial(), Machine()).write(tmp_path / "job")
    assert Job.read(tmp_path / "job").trial == trial()


def test_a_file_keeps_who_may_read_it(tmp_path: Path) -> None:
    (tmp_path / "private").touch(0o600)
    files.write_text(tmp_path / "private", "new")
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
