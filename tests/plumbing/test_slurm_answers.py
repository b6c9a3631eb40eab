"""Whatever Slurm's commands answer: nothing is sent twice, and nothing is lost."""

import json
import os
import re
from datetime import timedelta
from pathlib import Path

import fake_slurm
import pytest

from dsgd_bench import cli
from dsgd_bench.batch.slurm import calls, queue, submit
from dsgd_bench.errors import LaunchError
from dsgd_bench.io import trial_folder

ACCEPTED = {
    "the number": "echo $job",
    "the number and the cluster": 'echo "$job;north"',
    "a banner before it": 'echo "Welcome to North, 2026"; echo; echo $job',
    "a banner after it": 'echo $job; echo "12 jobs are before yours"',
    "banners around it": 'printf "== 7 ==\\n%s\\r\\n== 8 ==\\n" $job',
    "a banner that is not UTF-8": 'printf "\\377\\376 \\200\\n%s\\n" $job',
    "a sentence": 'echo "Submitted batch job $job"',
    "a sentence with a cluster": 'echo "Submitted batch job $job on cluster north"',
    "a sentence beside other numbers": 'echo 2026; echo "Submitted batch job $job"',
    "retries": 'echo "sbatch: error: timed out, sleeping and retrying" >&2; echo $job',
}
"""Answers that say that a job was accepted."""

TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv"

UNCLEAR = {
    "nothing": "true",
    "garbage": "head -c 300 /dev/urandom | tr '0-9\\n' 'xy'",
    "garbage and a failure": "printf '\\377\\000\\001' >&2; exit 3",
    "a failure without words": "exit 1",
    "a failure with the number": "echo $job; exit 1",
    "a failure with a sentence": 'echo "Submitted batch job $job" >&2; exit 255',
    "a time-out of sbatch's own": f'echo "{TIMED_OUT} operation" >&2; exit 1',
    "a lost reply": 'echo "sbatch: error: Unable to contact slurm controller '
    '(receive failure)" >&2; exit 1',
    "zero bytes": 'echo "sbatch: error: Zero Bytes were transmitted" >&2; exit 1',
    "two numbers": "echo $job; echo 12345",
    "a number that is too large": "echo 99999999999",
    "no number of a job": "echo 0; echo -5; echo 1e3; echo 5.batch",
    "far too much": "yes | head -c 17000000; echo $job",
    "a signal": "kill -9 $$",
    "no answer": "sleep 30",
    "no answer from its child": "sleep 30 & wait",
    "an end that leaves a child": "sleep 30 &",
}
"""Answers after which a job may be queued or not."""

REFUSED = {
    "sbatch: error: Batch job submission failed: Invalid partition name specified": (
        "mend slurm.partition"
    ),
    "sbatch: error: Unable to contact slurm controller (connect failure)": (
        "the batch system may be down"
    ),
    "sbatch: error: QOSMaxSubmitJobPerUserLimit": "mend slurm.qos",
    "sbatch: unrecognized option '--x'": "mend the machine file",
    "\x1b[31mPermission denied\x1b[0m\nDSGD_BENCH_RESULT OK id=1": r"\x1b[31m",
}


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Put commands in Slurm's place whose answers a test writes."""
    return fake_slurm.installed(tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Do not wait long for what does not answer."""
    monkeypatch.setattr(calls, "PATIENCE", 2.0)


@pytest.mark.parametrize("answer", ACCEPTED.values(), ids=ACCEPTED)
def test_a_job_is_accepted_whatever_stands_around_its_number(fake, answer, capsys):
    fake.answers(f"queued; {answer}")
    assert fake.submit() == 0
    assert "job 101: 3 trials on 2 ranks" in capsys.readouterr().out
    (record,) = fake.records().values()
    assert record.job == "101"
    assert record.cluster == ("north" if "north" in answer else "")
    assert fake.submit() == 0
    assert "there is nothing to send: 3 in the hands" in capsys.readouterr().out
    assert fake.sent() == 1


@pytest.mark.parametrize("answer", UNCLEAR.values(), ids=UNCLEAR)
def test_a_job_that_is_queued_is_found_by_its_name(fake, answer, capsys):
    fake.answers(f"queued; {answer}")
    assert fake.submit() == 0
    assert "job 101: 3 trials" in capsys.readouterr().out
    (record,) = fake.records().values()
    assert record.job == "101"
    assert fake.submit() == 0
    assert fake.sent() == 1


@pytest.mark.parametrize("answer", UNCLEAR.values(), ids=UNCLEAR)
def test_after_an_unclear_answer_the_folder_stays_and_nothing_is_sent_again(
    fake,
    answer,
    capsys,
    monkeypatch,
):
    fake.answers(answer)
    assert fake.submit() == cli.REFUSED
    said = capsys.readouterr().err
    ((folder, record),) = fake.records().items()
    assert record.job == ""
    assert said.count("\n") == 1
    for words in ("may be queued", f"squeue --name={record.name}", str(folder)):
        assert words in said
    assert (folder / "job.sh").exists()
    assert fake.submit() == 0
    out = capsys.readouterr().out
    assert "there is nothing to send: 3 in jobs that may be queued" in out
    assert f"sacct --name={record.name}" in out
    assert fake.sent() == 1
    assert cli.main(["status", "results/study"]) == 0
    out = capsys.readouterr().out
    assert "may be queued" in out
    assert re.search(r"3 +queued", out)
    # it appears after all
    (fake.folder / "queue").write_text(f"101|RUNNING|{record.name}\n")
    assert queue.of_records(fake.records()) == {folder: "running"}
    # or it never does
    (fake.folder / "queue").write_text("")
    monkeypatch.setattr(queue, "SETTLING", timedelta(0))
    assert queue.of_records(fake.records()) == {folder: "gone"}
    (fake.folder / "answer").unlink()
    assert fake.submit() == 0
    assert fake.sent() == 2


@pytest.mark.parametrize(("words", "remedy"), REFUSED.items())
def test_a_clear_refusal_leaves_nothing_behind(fake, words, remedy, capsys):
    (fake.folder / "words").write_text(words)
    fake.answers(f"cat {fake.folder}/words >&2; exit 1")
    assert fake.submit() == cli.REFUSED
    said = capsys.readouterr().err
    assert said.startswith("dsgd-bench: Slurm refuses the job 0001-2-ranks: ")
    assert remedy in said
    assert said.count("\n") == 1
    assert "\x1b" not in said
    assert os.listdir(fake.results / "jobs") == [trial_folder.LOCK]  # noqa: PTH208 - names
    fake.answers("queued; echo $job")
    assert fake.submit() == 0
    assert fake.sent() == 2


def test_a_refusal_of_a_job_that_is_queued_all_the_same_is_none(fake):
    fake.answers('queued; echo "sbatch: error: a plugin failed" >&2; exit 1')
    assert fake.submit() == 0
    assert [record.job for record in fake.records().values()] == ["101"]


def test_what_sbatch_was_doing_when_submit_was_interrupted_is_not_forgotten(
    fake,
    monkeypatch,
    capsys,
):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(submit.calls, "ask", interrupted)
        assert fake.submit() == cli.INTERRUPTED
    assert fake.submit() == 0
    assert "3 in jobs that may be queued" in capsys.readouterr().out
    assert fake.sent() == 0


def test_an_sbatch_that_cannot_be_started_sends_nothing(fake, capsys):
    (fake.folder.parent / "bin" / "sbatch").write_bytes(b"\x7fELF no program")
    assert fake.submit() == cli.REFUSED
    assert "sbatch cannot be started" in capsys.readouterr().err
    assert fake.records() == {}


QUEUES = {
    "garbage": "printf '\\377\\001 no jobs here\\n'",
    "a failure": "echo 'slurm_load_jobs error: down' >&2; exit 1",
    "a failure without words": "exit 1",
    "no answer": "sleep 30",
    "far too much": "yes | head -c 17000000",
}


@pytest.mark.parametrize("body", QUEUES.values(), ids=QUEUES)
def test_nothing_is_sent_while_it_is_not_known_which_jobs_there_are(
    fake,
    body,
    capsys,
):
    assert fake.submit() == 0
    (fake.folder / "queue-says").write_text(body)
    assert fake.submit() == cli.REFUSED
    assert "squeue" in capsys.readouterr().err
    assert fake.sent() == 1


def test_banners_around_the_queue_are_no_jobs(fake):
    assert fake.submit() == 0
    (fake.folder / "queue-says").write_text(
        f"echo Welcome; echo 'CLUSTER: x'; cat {fake.folder}/queue; echo 1 job"
    )
    assert list(queue.of_records(fake.records()).values()) == ["pending"]


def test_a_job_without_a_number_is_looked_for_in_accounts_too(fake):
    fake.answers("exit 1")
    assert fake.submit() == cli.REFUSED
    ((folder, record),) = fake.records().items()
    accounts = fake.folder / "accounts"
    accounts.write_text("99|RUNNING|another\n")
    assert queue.of_records({folder: record}) == {folder: "may be queued"}
    lines = (f"101|NODE_FAIL|{record.name}", f"101|COMPLETED|{record.name}")
    accounts.write_text("\n".join(("Welcome", *lines)))
    assert queue.of_records({folder: record}) == {folder: "completed"}
    accounts.write_text(f"101_2|RUNNING|{record.name}\n101_1|FAILED|{record.name}\n")
    assert queue.of_records({folder: record}) == {folder: "running"}


def test_no_two_jobs_have_one_name(fake):
    odd = "a,b ü.toml"
    Path("study.toml").rename(odd)
    for _ in range(3):
        assert fake.submit(study=odd) == 0
        (fake.folder / "queue").write_text("")
    asked = (fake.folder / "asked-sbatch").read_text().splitlines()
    names = {line.split()[1] for line in asked}
    assert len(names) == 3
    assert all(name.startswith("--job-name=a_b__-2-") for name in names)


def test_the_cluster_that_took_a_job_is_asked_for_it(fake, monkeypatch):
    fake.answers('queued; echo "$job;north"')
    assert fake.submit() == 0
    monkeypatch.setenv("SLURM_CLUSTERS", "south")
    queue.of_records(fake.records())
    assert fake.saw("squeue")["SLURM_CLUSTERS"] == "north"
    with pytest.raises(LaunchError):
        calls.ask(["no-such-command"])


def test_a_record_that_is_no_record_is_named(fake, capsys):
    jobs = fake.results / "jobs"
    for content in (b"[", b"\xff", b"{}", b"[" * 100_000, b'{"job": "1 --x"}', None):
        place = jobs / "0001-2-ranks"
        place.mkdir(parents=True, exist_ok=True)
        path = place / "submitted.json"
        if content is None:
            path.unlink()
            os.mkfifo(path)
        else:
            path.write_bytes(content)
        assert fake.submit() == cli.REFUSED
        assert "submitted.json is not what dsgd-bench wrote" in capsys.readouterr().err
    assert fake.sent() == 0


def test_folders_with_other_names_do_not_stop_a_submission(fake):
    for name in ("2024a-notes", "9" * 200 + "-x", "7-x", "notes", "12345678901-x"):
        (fake.results / "jobs" / name).mkdir(parents=True)
    assert fake.submit() == 0
    (folder,) = fake.records()
    assert folder.name == "0008-2-ranks"


# --- what the folder of a job needs ---

OURS = ("trials.txt", "job.sh", "machine", "submitted.json", "STOP-7", "slurm-7.out")


@pytest.mark.parametrize("name", [*OURS, "study", "modules-7.txt", ".toml", "x.TOML"])
def test_a_study_named_as_ours_is_kept_beside_what_the_job_needs(fake, name):
    Path("study.toml").rename(name)
    text = Path(name).read_text()
    assert fake.submit(study=f"./{name}") == 0
    (folder,) = Path("results").glob("*/jobs/*-ranks")
    script = (folder / "job.sh").read_text()
    (line,) = [line for line in script.splitlines() if " -m dsgd_bench run " in line]
    place = line.split('"$folder"/')[1].split()[0].strip("'")
    assert (folder / place).read_text() == text
    assert script.startswith("#!/bin/bash\n")
    listed = (folder / "trials.txt").read_text().splitlines()
    assert len(listed) == 3
    assert json.loads((folder / "submitted.json").read_text())["job"] == "101"
    assert (folder / "machine" / "machine.toml").read_text() == Path(
        "machine.toml"
    ).read_text()
