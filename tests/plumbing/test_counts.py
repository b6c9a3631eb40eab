"""What is counted is what is reported: every trial asked for, once, by all verbs."""

import shutil

import pytest
import synthetic

from dsgd_bench import cli
from dsgd_bench.batch.slurm import status
from dsgd_bench.cli import earlier, verb_parts
from dsgd_bench.config.identity import trial_id
from dsgd_bench.errors import TraceError
from dsgd_bench.io import trial_folder
from dsgd_bench.report import read_report, write_report
from dsgd_bench.spec.job import Job
from dsgd_bench.spec.machine import Machine
from dsgd_bench.spec.trial import Study
from dsgd_bench.study import runner

pytestmark = pytest.mark.usefixtures("any_trace_is_valid")

STATES = ("finished", "failed", "unreadable", "missing")


def trial_of(repeat):
    return synthetic.trial(repeat=repeat, target=None)


def fill(folder, repeats=3):
    """Write a study of finished trials; return their folders."""
    return [
        synthetic.save(synthetic.run(trial_of(repeat)), folder)
        for repeat in range(repeats)
    ]


def fails(trial, reason="rank 1 was killed"):
    (trial / trial_folder.READY).unlink()
    (trial / trial_folder.ERROR).write_text(reason)
    (trial / trial_folder.TRACE).unlink()


def counts(standing):
    """Return the figures of merit that count, by name; each trial is in one of them."""
    words = [line.split() for line in standing.lines()]
    found = {name: int(value) for _, name, value, unit in words if unit == "count"}
    found = {name.removeprefix("trials_"): found[name] for name in found}
    assert sum(found[state] for state in STATES) == found["trials"]
    return {name: count for name, count in found.items() if count}


def of_status(folder):
    """Return what `status` counts."""
    return status.look(folder).counts


def last_word(standing):
    return standing.sentinel().split()[1]


def test_trials_and_studies_behind_links_are_reported(tmp_path):
    far, results = tmp_path / "far", tmp_path / "results"
    one, two, three = fill(far / "toy")
    (results / "toy").mkdir(parents=True)
    one.rename(results / "toy" / one.name)
    (results / "toy" / two.name).symlink_to(two)
    (results / "toy" / three.name).symlink_to(three)
    fill(far / "other", repeats=1)
    (results / "other").symlink_to(far / "other")
    (results / "toy" / "up").symlink_to(results)
    found = read_report(results)
    assert counts(found.standing()) == {"trials": 4, "finished": 4}
    assert [(study.name, len(study.rows)) for study in found.studies] == [
        ("other", 1),
        ("toy", 3),
    ]
    assert len(list(found.standing().mllog())) > 4
    assert of_status(results / "toy") == {"finished": 3}


@pytest.mark.parametrize("left", ["{", "[]", "", "\x00", None])
def test_a_failed_trial_whose_job_is_damaged_is_counted_as_failed(tmp_path, left):
    _, _, broken = fill(tmp_path / "toy")
    fails(broken)
    if left is None:
        (broken / trial_folder.JOB).unlink()
    else:
        (broken / trial_folder.JOB).write_text(left)
    found = read_report(tmp_path / "toy")
    assert counts(found.standing()) == {"trials": 3, "finished": 2, "failed": 1}
    assert last_word(found.standing()) == "FAIL"
    text = " ".join(found.terminal().split())  # which is folded where it is wide
    assert f"{broken} failed (rank 1 was killed), and its job.json cannot" in text
    assert of_status(tmp_path / "toy") == {"finished": 2, "failed": 1}


def test_a_study_of_which_nothing_can_be_read_still_has_its_counts(tmp_path):
    one, two = fill(tmp_path / "toy", repeats=2)
    fails(one)
    (two / trial_folder.TRACE).write_text("no trace")
    for trial in (one, two):
        (trial / trial_folder.JOB).write_text("no job")
    standing = write_report(tmp_path / "toy").standing()
    assert counts(standing) == {"trials": 2, "failed": 1, "unreadable": 1}
    assert last_word(standing) == "FAIL"
    assert of_status(tmp_path / "toy") == {"failed": 1, "unreadable": 1}


def test_what_is_stopped_or_interrupted_is_missing_and_counted(tmp_path):
    _, stopped, begun = fill(tmp_path / "toy")
    for trial in (stopped, begun):
        (trial / trial_folder.READY).unlink()
    (stopped / trial_folder.STOPPED).touch()
    (begun / trial_folder.TRACE).unlink()
    standing = read_report(tmp_path / "toy").standing()
    assert counts(standing) == {"trials": 3, "finished": 1, "missing": 2}
    assert last_word(standing) == "OK"
    assert of_status(tmp_path / "toy") == {"finished": 1, "stopped": 1, "missing": 1}


def test_a_finished_trial_with_a_late_error_is_finished_for_all_verbs(tmp_path):
    (trial,) = fill(tmp_path / "toy", repeats=1)
    (trial / trial_folder.ERROR).write_text("too late")
    standing = read_report(tmp_path / "toy").standing()
    assert counts(standing) == {"trials": 1, "finished": 1}
    assert of_status(tmp_path / "toy") == {"finished": 1}


def test_a_copy_of_a_trial_is_named_and_not_counted(tmp_path, capsys):
    folder = run_before(tmp_path / "toy", Machine())
    shutil.copytree(folder / trial_id(trial_of(0)), folder / "0-copy")
    shutil.copytree(
        folder / trial_id(trial_of(1)), folder / "copies" / trial_id(trial_of(1))
    )
    fails(folder / trial_id(trial_of(1)))
    shutil.copytree(folder / trial_id(trial_of(1)), folder / "~copy")
    assert len(read_report(folder).studies) == 2
    found = next(s for s in read_report(folder).studies if s.name == "toy")
    assert len(found.rows) == 4
    assert sum("is a copy of a trial" in c.text for c in found.cautions) == 2
    _, out = conclude(capsys, folder, outcome_of(folder, Machine(), (0, 2, 3)))
    for line in ("trials 4", "trials_finished 3", "trials_failed 1"):
        assert f"FOM {line} count" in out.splitlines()


def test_an_error_that_is_not_utf_8_is_shown(tmp_path):
    _, broken = fill(tmp_path / "toy", repeats=2)
    fails(broken)
    (broken / trial_folder.ERROR).write_bytes(b"M\xfcller")
    assert "M\ufffdller" in read_report(tmp_path / "toy").terminal(columns=200)


def test_a_folder_of_trials_that_have_only_begun_says_so(tmp_path):
    (trial,) = fill(tmp_path / "toy", repeats=1)
    (trial / trial_folder.READY).unlink()
    with pytest.raises(TraceError, match="1 unfinished trials and no other"):
        read_report(tmp_path)


# ------------------------------------------------------------- what a run concludes


def conclude(capsys, folder, outcome):
    of = Study(folder.name, folder, tuple(map(trial_of, range(4))))
    code = verb_parts.conclude(outcome, of, mllog=False)
    return code, capsys.readouterr().out


def run_before(folder, machine, repeats=4):
    for repeat in range(repeats):
        toy = synthetic.run(trial_of(repeat))
        toy.provenance["time_utc"] = f"2025-01-0{repeat + 1}T00:00:00Z"
        place = synthetic.save(toy, folder)
        Job(folder.name, toy.trial, machine).write(place / trial_folder.JOB)
    return folder


def outcome_of(folder, machine, skipped=range(4)):
    found = runner.StudyOutcome(folder, 0.0, machine)
    found.skipped = [trial_of(repeat) for repeat in skipped]
    return found


def test_skipped_trials_are_counted_with_when_and_where_they_were_run(tmp_path, capsys):
    folder = run_before(tmp_path / "toy", Machine())
    code, out = conclude(capsys, folder, outcome_of(folder, Machine()))
    assert code == 0
    said = (
        "skipped 4 of 4 trials, as finished before: run from 2025-01-01T00:00:00Z to"
        " 2025-01-04T00:00:00Z on node1"
    )
    assert out.splitlines()[0] == said
    assert "warning: the numbers" not in out


def test_other_machine_file_is_named_with_the_settings_that_differ(tmp_path, capsys):
    then = Machine(threads_per_rank=1, env={"A_TOKEN": "hidden", "A": "old"})
    now = Machine(
        threads_per_rank=2, env={"A_TOKEN": "gone", "B": "1"}, progress="none"
    )
    folder = run_before(tmp_path / "toy", then, repeats=3)
    run_before(tmp_path / "toy", now, repeats=0)
    (folder / trial_id(trial_of(2)) / trial_folder.JOB).write_text("{")
    _, out = conclude(capsys, folder, outcome_of(folder, now, range(3)))
    (line,) = [line for line in out.splitlines() if line.startswith("warning: the num")]
    assert "the numbers of 2 skipped trials come from other settings" in line
    for words in ('env.A "old", now unset', 'env.B unset, now "1"', "and 1 more"):
        assert words in line
    assert "hidden" not in out
    assert "gone" not in out
    assert "warning: of 1 skipped trial it is not known with which machine file" in out


def test_a_report_names_what_differs_between_machine_files(tmp_path):
    folder = run_before(tmp_path / "toy", Machine(), repeats=3)
    for repeat, machine in enumerate(
        [
            Machine(threads_per_rank=2, watchdog=7.0),
            Machine(env={"OMP_PLACES": "cores", "MY_KEY": "hidden"}),
        ]
    ):
        job = folder / trial_id(trial_of(repeat)) / trial_folder.JOB
        Job("toy", trial_of(repeat), machine).write(job)
    (folder / trial_id(trial_of(2)) / trial_folder.JOB).write_text("{")
    text = " ".join(read_report(folder).terminal(columns=100).split())
    assert "different machine files" in text
    assert 'env.OMP_PLACES: "cores" and unset; threads_per_rank: 1 and 2)' in text
    assert "watchdog" not in text
    assert "hidden" not in text


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        (Machine(), Machine(), []),
        (
            Machine(),
            Machine(threads_per_rank=4),
            ["threads_per_rank 1, now 4"],
        ),
        (
            Machine(launcher=("srun", "{ranks}")),
            Machine(launcher=("mpirun", "{ranks}")),
            ['launcher ["srun", "{ranks}"], now ["mpirun", "{ranks}"]'],
        ),
        (
            Machine(env={"X\nFOM loss 0 1": "\x1b[2J"}),
            Machine(),
            ['env.X\\nFOM loss 0 1 "\\u001b[2J", now unset'],
        ),
    ],
)
def test_settings_of_machine_files_are_compared_key_by_key(then, now, said):
    assert earlier.differences(then, now) == said


def test_the_counts_of_a_run_are_those_of_the_trials_asked_for(tmp_path, capsys):
    folder = run_before(tmp_path / "toy", Machine())
    shutil.rmtree(folder / trial_id(trial_of(0)))
    fails(folder / trial_id(trial_of(1)))
    (folder / trial_id(trial_of(1)) / trial_folder.JOB).write_text("{")
    (folder / trial_id(trial_of(2)) / trial_folder.TRACE).write_text("{")
    other = synthetic.save(synthetic.run(synthetic.trial("adpsgd")), folder)
    outcome = outcome_of(folder, Machine(), (2, 3))
    outcome.failed = [(trial_of(1), "rank 1 was killed")]
    outcome.elsewhere = 1
    code, out = conclude(capsys, folder, outcome)
    assert code == verb_parts.FAILED
    lines = out.splitlines()
    for name, count in {
        "trials": 4,
        "trials_finished": 1,
        "trials_failed": 1,
        "trials_unreadable": 1,
        "trials_missing": 1,
    }.items():
        assert f"FOM {name} {count} count" in lines
    assert lines[-1].startswith("DSGD_BENCH_RESULT FAIL")
    assert other.name not in out


def test_a_run_in_which_all_failed_counts_them_too(tmp_path, capsys):
    folder = run_before(tmp_path / "toy", Machine(), repeats=1)
    shutil.rmtree(folder / trial_id(trial_of(0)))
    outcome = runner.StudyOutcome(folder, 0.0, Machine())
    outcome.failed = [(trial_of(repeat), "no disk") for repeat in range(4)]
    code, out = conclude(capsys, folder, outcome)
    assert code == verb_parts.FAILED
    assert "FOM trials 4 count" in out.splitlines()
    assert "FOM trials_failed 4 count" in out.splitlines()
    assert out.splitlines()[-1].startswith("DSGD_BENCH_RESULT FAIL")


def test_report_and_run_name_the_same_trials_by_one_hash(tmp_path, capsys):
    folder = run_before(tmp_path / "toy", Machine())
    fails(folder / trial_id(trial_of(1)))
    (folder / trial_id(trial_of(1)) / trial_folder.JOB).write_text("{")
    outcome = outcome_of(folder, Machine(), (0, 2, 3))
    outcome.failed = [(trial_of(1), "rank 1 was killed")]
    _, out = conclude(capsys, folder, outcome)
    cli.main(["report", str(folder)])
    assert out.splitlines()[-1] == capsys.readouterr().out.splitlines()[-1]
