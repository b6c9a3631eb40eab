"""Studies as Slurm jobs, with commands in Slurm's place that a test can read."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

from dsgd_bench import cli, config
from dsgd_bench.batch.slurm import queue, records, script, status, submit
from dsgd_bench.batch.slurm.groups import Order
from dsgd_bench.config import naming, read_machine, read_study
from dsgd_bench.config.identity import trial_id
from dsgd_bench.errors import ConfigError
from dsgd_bench.host import mpi_bugs
from dsgd_bench.io import trial_folder
from dsgd_bench.spec.batch import SlurmSpec
from dsgd_bench.spec.job import Job

HERE = Path(__file__).parents[2] / "jobs"
TEMPLATES = sorted(
    path.name for path in HERE.glob("*.sbatch.j2") if path.name != "base.sbatch.j2"
)
SECONDS = 38.0  # of one trial: 100 steps of 0.36 s and what starting takes, 2 s

STUDY = """
[study]
ranks = [4, 1]
repeats = 3
budget = { steps = 100 }
[problem]
kind = "quadratic"
[algorithm]
kind = "allreduce"
[compute]
mode = "emulated"
seconds = 0.36
"""

MACHINE = """
launcher = ["srun", "-n", "{ranks}"]
stop_margin = 90
[slurm]
template = "mpich.sbatch.j2"
time = "01:00:00"
ranks_per_node = 3
cores_per_rank = 2
"""

FAKE = {
    "sbatch": """
        echo "$@" >>{0}/sent
        while [ -e {0}/wait ]; do sleep 0.02; done
        if [ -e {0}/refusal ]; then cat {0}/refusal >&2; exit 1; fi
        job=$((100 + $(wc -l <{0}/sent)))
        echo "$job|PENDING" >>{0}/queue
        echo "$job;cluster" """,
    "squeue": """
        case $* in *--format=%e*) cat {0}/end; exit; esac
        cat {0}/queue""",
    "sacct": """
        if [ -e {0}/accounting ]; then cat {0}/accounting; exit; fi
        echo "Slurm accounting storage is disabled" >&2; exit 1""",
    "scontrol": """
        echo "$@" >>{0}/control
        if [ -e {0}/known ]; then cat {0}/known; exit; fi
        echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1""",
    "module": """
        printf '%s\\n' "$@" >>{0}/modules""",
    "python": """
        env | grep -E '^(SLURM|DSGD|SRUN)' >{0}/environment
        printf '%s\\n' "$@" >{0}/words
        while [ -e {0}/wait ]; do
            if [ -e "$DSGD_BENCH_STOP" ]; then exit 75; fi
            sleep 0.02
        done
        exit "$(cat {0}/status)" """,
}
"""Name -> what it does; {0} is a folder in which tests say and read things."""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Put commands that a test can read in Slurm's place; return their folder."""
    folder, programs = tmp_path / "slurm", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    for name, body in FAKE.items():
        path = programs / name
        path.write_text("#!/bin/bash\n" + body.format(folder) + "\n")
        path.chmod(0o755)
    (folder / "queue").touch()
    (folder / "end").touch()
    (folder / "status").write_text("0")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    return folder


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Put a study, a machine and the templates into the working folder."""
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    for path in HERE.glob("*.j2"):
        shutil.copy(path, place)
    (place / "study.toml").write_text(STUDY)
    (place / "machine.toml").write_text(MACHINE)
    return place


def change(path, *changes):
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def order_of(files, *changes):
    return Order(
        read_study(files / "study.toml", changes),
        changes,
        read_machine(files / "machine.toml"),
        files / "machine.toml",
        files / "results",
    )


def scripts_of(order):
    folder = order.folder / "jobs" / "0001"
    groups = submit.missing(order).groups
    return [script.render(order, group, folder) for group in groups]


def options_of(text):
    """Read #SBATCH lines as Slurm does: words, quotes, no commands."""
    lines = re.findall(r"^#SBATCH (.*)$", text, re.MULTILINE)
    words = [word for line in lines for word in shlex.split(line)]
    pairs = (word.partition("=") for word in words)
    return {name: value for name, _, value in pairs}


def send(*words, expected=0):
    command = ["submit", "study.toml", "--machine", "machine.toml", *words]
    assert cli.main(command) == expected


def sent(slurm):
    """Return the folders of the jobs that were submitted."""
    path = slurm / "sent"
    lines = path.read_text().splitlines() if path.exists() else []
    assert all(line.startswith("--parsable ") for line in lines)
    return [Path(line.split()[-1]).parent.name for line in lines]


def parses(text):
    done = subprocess.run(
        ["bash", "-n"], input=text, check=False, capture_output=True, text=True
    )
    return done.stderr == "" and done.returncode == 0


# --- the script ---


def test_there_is_a_template_for_each_library():
    names = [name.removesuffix(".sbatch.j2") for name in TEMPLATES]
    assert names == ["cray", "intel", "mpich", "openmpi"]


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_asks_for_the_allocation_and_runs_the_trials(files, template):
    change(files / "machine.toml", ("mpich.sbatch.j2", template))
    small, large = scripts_of(order_of(files))
    assert parses(large)
    options = options_of(large)
    assert options["--nodes"] == "2"  # 4 ranks, at most 3 on a node
    assert options["--ntasks"] == "4"
    assert options["--ntasks-per-node"] == "2"  # dealt evenly, not 3 + 1
    assert options["--cpus-per-task"] == "2"
    assert options["--time"] == "01:00:00"
    assert options["--signal"] == "B:USR1@90"
    assert options["--open-mode"] == "append"
    assert options["--output"] == f"{files}/results/study/jobs/0001/slurm-%j.out"
    assert options["--chdir"] == str(files)
    assert not {"--account", "--array", "--exclusive", "--requeue"} & set(options)
    assert "--no-requeue" in options
    assert f"\n{shlex.quote(sys.executable)} -P -m dsgd_bench run " in large
    assert "--ranks 4 " in large
    assert "SRUN_CPUS_PER_TASK" in large
    single = options_of(small)
    assert (single["--nodes"], single["--ntasks"]) == ("1", "1")


@pytest.mark.parametrize("template", TEMPLATES)
def test_everything_the_machine_file_can_say_arrives(files, template):
    change(
        files / "machine.toml",
        ("mpich.sbatch.j2", template),
        (
            "cores_per_rank = 2",
            """
            account = "project 7"
            partition = "long"
            qos = "low"
            constraint = "a100|h100"
            gpus_per_node = 4
            exclusive = true
            array = 2
            at_once = 1
            restarts = 5
            modules = ["gcc/13", "mpi"]
            preamble = ["ulimit -s unlimited", "export A='b c'"]
            options = ["--mem=0", "--dependency=afterok:12"]
            """,
        ),
    )
    _, text = scripts_of(order_of(files))
    assert parses(text)
    options = options_of(text)
    assert options["--account"] == "project 7"
    assert options["--partition"] == "long"
    assert options["--qos"] == "low"
    assert options["--constraint"] == "a100|h100"
    assert options["--gpus-per-node"] == "4"
    assert options["--array"] == "1-2%1"
    assert options["--output"].endswith("/slurm-%A_%a.out")
    assert {"--exclusive", "--requeue"} <= set(options)
    assert options["--mem"] == "0"
    assert options["--kill-on-invalid-dep"] == "yes"
    assert options["--cpus-per-task"] == "1"  # as many as threads
    order = ["module purge", "module load gcc/13", "module load mpi", "module list"]
    order += ["ulimit -s unlimited\n", "export A='b c'\n", " -P -m dsgd_bench run "]
    places = [text.index(line) for line in order]
    assert places == sorted(places)


def test_a_launcher_that_starts_daemons_by_srun_leaves_them_all_cores(files):
    change(files / "machine.toml", ('"srun"', '"mpirun"'))
    assert not any("SRUN_CPUS" in text for text in scripts_of(order_of(files)))


def test_an_array_has_no_more_elements_than_there_are_trials(files):
    change(files / "machine.toml", ("cores_per_rank = 2", "array = 9"))
    assert options_of(scripts_of(order_of(files))[0])["--array"] == "1-3"


@pytest.mark.parametrize("name", ["slurm-cpu.toml", "slurm-gpu.toml"])
def test_the_projects_machine_files_make_scripts(files, name):
    order = Order(
        read_study(files / "study.toml"),
        (),
        read_machine(HERE / name),
        HERE / name,
        files / "results",
    )
    texts = scripts_of(order)
    assert len(texts) == 2
    assert all(parses(text) for text in texts)


ATTACKS = {
    "a newline": r'"x\n#SBATCH --uid=0"',
    "a newline at the end": r'"x\n"',
    "a carriage return": r'"x\ry"',
    "an escape": r'"x\u001by"',
    "a separator of lines": r'"x\u2028y"',
    "a quote": '"x\'y"',
    "a double quote": r'"x\"y"',
    "a backquote": '"x`y"',
    "a backslash": r'"x\\y"',
    "nothing": '""',
}


@pytest.mark.parametrize("value", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize(
    "key", ["account", "partition", "qos", "constraint", "template", "time", "modules"]
)
def test_text_that_could_leave_its_place_is_refused(files, key, value):
    value = f"[{value}]" if key == "modules" else value
    lines = [line for line in MACHINE.splitlines() if not line.startswith(f"{key} ")]
    path = files / "machine.toml"
    path.write_text("\n".join([*lines, f"{key} = {value}"]))
    with pytest.raises(ConfigError) as caught:
        read_machine(path)
    assert str(caught.value).startswith(f"{path}: slurm.{key} is ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (r'"a\nb"', "one line of shell"),
        (r'"a\u0000b"', "a NUL character"),
        ('""', "one line of shell"),
    ],
)
def test_a_line_of_the_preamble_is_one_line(files, value, said):
    path = files / "machine.toml"
    path.write_text(MACHINE + f"preamble = [{value}]\n")
    with pytest.raises(ConfigError, match=rf"slurm\.preamble .*{said}"):
        read_machine(path)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("mem=0", "must be a list, every item an option"),
        ("--wrap=a'b", "must be a list, every item an option"),
        ("--nodes=7", "by itself: say slurm.ranks_per_node"),
        ("--time=7", "by itself: say slurm.time"),
    ],
)
def test_an_option_that_is_none_or_set_already_is_refused(files, option, said):
    path = files / "machine.toml"
    path.write_text(MACHINE + f'options = ["{option}"]\n')
    with pytest.raises(ConfigError, match=said):
        read_machine(path)


def test_commands_in_texts_arrive_as_text(files, slurm, monkeypatch):
    """Run the script: nothing of a value is run, and the program gets it whole."""
    evil = "$(touch pwned); touch pwned & #%j"
    place = files / evil
    place.mkdir()
    for path in files.glob("*.*"):
        shutil.move(path, place)
    change(
        place / "machine.toml",
        ("cores", f'account = "{evil}"\nmodules = ["{evil}"]\ncores'),
    )
    changes = (f'algorithm.kind="allreduce" # {evil}',)
    monkeypatch.setattr(sys, "executable", shutil.which("python"))
    order = order_of(place, *changes)
    text = scripts_of(order)[0]
    assert options_of(text)["--account"] == evil
    # %% is how Slurm writes a percent sign in file names
    assert options_of(text)["--output"].startswith(str(place).replace("%", "%%"))
    (place / "results" / "study" / "jobs" / "0001").mkdir(parents=True)
    done = subprocess.run(
        ["bash", "-c", text], check=False, capture_output=True, text=True, cwd=files
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(files.rglob("pwned"))
    words = (slurm / "words").read_text().splitlines()
    assert words[:4] == ["-P", "-m", "dsgd_bench", "run"]
    assert words[words.index("--set") + 1] == changes[0]
    assert words[words.index("--results") + 1] == str(place / "results")
    assert evil in (slurm / "modules").read_text().splitlines()


def test_a_study_whose_name_slurm_would_misread_is_refused(files, slurm, capsys):
    (files / "study.toml").rename(files / "it's.toml")
    command = ["submit", "it's.toml", "--machine", "machine.toml"]
    assert cli.main(command) == cli.REFUSED
    assert "rename it without quotes" in capsys.readouterr().err
    assert sent(slurm) == []


def test_a_missing_template_is_named_with_those_there_are(files):
    change(files / "machine.toml", ("mpich.sbatch", "mpich2.sbatch"))
    with pytest.raises(
        ConfigError, match=r"mpich2.* no file .*intel\.sbatch\.j2, mpich"
    ):
        read_machine(files / "machine.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [("{{ nodse }}", "'nodse' is undefined"), ("{% if %}", "line 1 cannot be used")],
)
def test_a_template_with_an_error_is_one_sentence(files, text, said):
    (files / "mpich.sbatch.j2").write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        scripts_of(order_of(files))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("time_", "seconds"),
    [("90", 5400), ("00:01:30", 90), ("2-03:00:00", 183600), ("100:00:00", 360000)],
)
def test_a_time_limit_is_read_as_slurm_does(time_, seconds):
    assert SlurmSpec(template="x", time=time_, ranks_per_node=1).seconds == seconds


@pytest.mark.parametrize("time_", ["90:00", "1:60:00", "1h", "0", "-1", "1-12"])
def test_a_time_limit_that_can_be_misread_is_refused(files, time_):
    change(files / "machine.toml", ("01:00:00", time_))
    with pytest.raises(ConfigError, match=r"slurm\.time is .* minutes"):
        read_machine(files / "machine.toml")


def test_a_job_must_be_longer_than_what_it_needs_to_stop(files):
    change(files / "machine.toml", ("01:00:00", "00:01:30"))
    with pytest.raises(ConfigError, match="not longer than stop_margin"):
        read_machine(files / "machine.toml")


# --- the job ---


@pytest.fixture
def job(files, slurm, monkeypatch):
    """Return a function that starts a job's script with a program of the test."""
    change(files / "machine.toml", ("cores_per_rank = 2", "restarts = 2"))
    monkeypatch.setattr(sys, "executable", shutil.which("python"))
    order = order_of(files)
    (order.folder / "jobs" / "0001").mkdir(parents=True)
    text = scripts_of(order)[1]

    def start(**variables):
        env = {**os.environ, "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "2"}
        return subprocess.Popen(["bash", "-c", text], env=env | variables)

    return start


def environment(slurm):
    lines = (slurm / "environment").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def wait_for(path):
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.02)


@pytest.mark.parametrize("sign", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize("restarts", [0, 1, 2])
def test_a_signal_stops_the_ranks_and_usr1_puts_the_job_back(
    job, slurm, sign, restarts
):
    (slurm / "wait").touch()
    (slurm / "known").touch()
    running = job(SLURM_RESTART_COUNT=str(restarts))
    wait_for(slurm / "words")
    running.send_signal(sign)
    assert running.wait(30) == 75
    asked = slurm / "control"
    asked = asked.read_text() if asked.exists() else ""
    back = restarts < 2 and sign == signal.SIGUSR1  # SIGTERM comes with scancel
    assert asked == ("requeue 7\n" if back else "")


@pytest.mark.parametrize("status", [0, 1, 2, 3, 4])
def test_a_job_ends_as_its_program_does(job, slurm, status):
    (slurm / "status").write_text(str(status))
    assert job().wait(30) == status
    assert not (slurm / "control").exists()  # not put back


def test_a_restarted_job_does_not_find_the_old_file_stop(job, slurm, files):
    folder = files / "results" / "study" / "jobs" / "0001"
    (folder / "STOP-7").touch()
    assert job(SLURM_RESTART_COUNT="1").wait(30) == 0
    assert environment(slurm)["DSGD_BENCH_STOP"] == str(folder / "STOP-7")
    assert not (folder / "STOP-7").exists()


@pytest.mark.parametrize("said", ["2030-01-01T00:00:00", "N/A", ""])
def test_the_end_of_the_job_is_asked_for_where_slurm_does_not_tell(job, slurm, said):
    (slurm / "end").write_text(said)
    assert job(TZ="UTC").wait(30) == 0
    # 2030 began 21915 days, of 60 years with 15 leap days, after 1970
    expected = str(21915 * 86400) if said.startswith("2030") else None
    assert environment(slurm).get("SLURM_JOB_END_TIME") == expected


def test_the_end_of_the_job_is_taken_from_slurm_where_it_tells(job, slurm):
    (slurm / "end").write_text("2030-01-01T00:00:00")
    assert job(SLURM_JOB_END_TIME="12345", SLURM_EXPORT_ENV="NONE").wait(30) == 0
    seen = environment(slurm)
    assert seen["SLURM_JOB_END_TIME"] == "12345"
    assert seen["SRUN_CPUS_PER_TASK"] == "2"
    assert "SLURM_EXPORT_ENV" not in seen  # else srun gives ranks no environment


# --- submission ---


def test_trials_are_grouped_by_size_in_the_studys_order(files):
    order = order_of(files)
    groups = submit.missing(order).groups
    assert [group.ranks for group in groups] == [1, 4]
    for group in groups:
        same = [trial for trial in order.study.trials if trial.ranks == group.ranks]
        assert list(group.trials) == same


def test_core_hours_are_cores_times_hours(files):
    one, four = submit.missing(order_of(files)).groups
    assert four.seconds == pytest.approx(3 * SECONDS)
    # 4 ranks of 2 cores; the jobs may last an hour
    assert four.core_hours == pytest.approx(3 * SECONDS * 8 / 3600)
    assert four.most_core_hours == pytest.approx(8.0)
    assert one.most_core_hours == pytest.approx(2.0)
    change(
        files / "machine.toml", ("cores_per", "exclusive = true\narray = 2\ncores_per")
    )
    _, four = submit.missing(order_of(files)).groups
    # two whole nodes, each with room for 3 ranks of 2 cores; two such jobs
    assert four.core_hours == pytest.approx(3 * SECONDS * 12 / 3600)
    assert four.most_core_hours == pytest.approx(24.0)


def test_a_duration_that_is_not_known_is_not_invented(files, slurm, capsys):
    change(files / "study.toml", ('mode = "emulated"\nseconds = 0.36', ""))
    send("--dry-run")
    out = capsys.readouterr().out
    assert "unknown core-hours estimated, 10 at most" in out
    assert "warning" not in out


def test_a_group_that_cannot_end_in_time_is_warned_of(files, slurm, capsys):
    # 114 s are to fit into one job of 180 s less 90 s to stop in
    change(files / "machine.toml", ("01:00:00", "00:03:00"))
    send("--dry-run")
    warning = " ".join(capsys.readouterr().out.split())
    assert (
        "3 trials on 4 ranks take about 114 s together, more than 1 x 180 s" in warning
    )
    change(files / "machine.toml", ("cores_per_rank", "restarts = 1\ncores_per_rank"))
    send("--dry-run")
    assert "warning" not in capsys.readouterr().out


def test_a_rehearsal_prints_scripts_and_leaves_no_trace(files, slurm, capsys):
    send("--dry-run")
    out = capsys.readouterr().out
    assert out.count("#!/bin/bash\n") == 2
    assert "6 trials, 0.317 core-hours estimated, 10 at most" in out  # 3 x 38 s x (8+2)
    assert sent(slurm) == []
    assert not (files / "results").exists()


def test_a_rehearsal_needs_no_slurm(files, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    send("--dry-run")


def test_a_job_keeps_what_it_reads_as_it_was(files, slurm):
    send("--set", "study.repeats=2")
    assert sent(slurm) == ["0001-1-ranks", "0002-4-ranks"]
    folder = files / "results" / "study" / "jobs" / "0002-4-ranks"
    (files / "study.toml").write_text("changed")
    (files / "machine.toml").write_text("changed")
    study = read_study(folder / "study.toml", ["study.repeats=2"])
    machine = read_machine(folder / "machine" / "machine.toml")
    assert machine.slurm.ranks_per_node == 3
    listed = records.read_trials(folder / "trials.txt")
    assert list(listed) == [
        trial_id(trial) for trial in study.trials if trial.ranks == 4
    ]
    text = (folder / "job.sh").read_text()
    assert "--set study.repeats=2 " in text
    assert str(folder) in text
    assert not list(folder.glob(".*"))


def test_nothing_is_sent_twice_while_a_job_waits_or_runs(files, slurm, capsys):
    send()
    assert len(sent(slurm)) == 2
    capsys.readouterr()
    for state in ("PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUE_HOLD"):
        (slurm / "queue").write_text(f"101|{state}\n102|{state}\n")
        send()
        out = capsys.readouterr().out
        assert "there is nothing to send: 6 in the hands of jobs that wait" in out
    assert len(sent(slurm)) == 2


def test_only_what_is_missing_is_sent_when_jobs_have_ended(files, slurm):
    send()
    order = order_of(files)
    by_size = {n: [t for t in order.study.trials if t.ranks == n] for n in (1, 4)}
    for trial in (*by_size[1], by_size[4][0]):
        mark(order, trial, "READY")
    (slurm / "queue").write_text("101|COMPLETED\n102|TIMEOUT\n")
    send()
    assert sent(slurm)[2:] == ["0003-4-ranks"]
    listed = order.folder / "jobs" / "0003-4-ranks" / "trials.txt"
    left = {trial_id(trial): naming.description(trial) for trial in by_size[4][1:]}
    assert records.read_trials(listed) == left


def mark(order, trial, name, text=""):
    folder = order.folder / trial_id(trial)
    folder.mkdir(parents=True)
    (folder / name).write_text(text)
    if name == "READY":
        with h5py.File(folder / "trace.h5", "w") as trace:
            trace.attrs["dsgd_fabric"] = "mpi"


def test_failed_trials_can_be_sent_alone(files, slurm, capsys):
    order = order_of(files)
    broken, done = order.study.trials[0], order.study.trials[1]
    mark(order, broken, "ERROR", "rank 2 raised ValueError\n")
    mark(order, done, "READY")
    send("--failed")
    assert sent(slurm) == [f"0001-{broken.ranks}-ranks"]
    listed = order.folder / "jobs" / sent(slurm)[0] / "trials.txt"
    assert listed.read_text() == f"{trial_id(broken)} {naming.description(broken)}\n"
    assert "not sent: 1 finished, 4 not failed\n" in capsys.readouterr().out
    send("--failed")  # now it is in a job's hands
    assert len(sent(slurm)) == 1
    send()  # the rest
    assert len(sent(slurm)) == 3


def rename_to_earlier(order):
    """Give every trial's folder a name of an earlier version; return the names."""
    places = {}
    for number, trial in enumerate(order.study.trials):
        folder = order.folder / trial_id(trial)
        if folder.exists():
            Job(order.study.name, trial, order.machine).write(folder / "job.json")
            places[trial_id(trial)] = f"{number:012x}"
            folder.rename(order.folder / places[trial_id(trial)])
    return places


def test_what_an_earlier_version_finished_is_neither_sent_nor_missing(files, slurm):
    order = order_of(files)
    done, broken = order.study.trials[:2]
    mark(order, done, "READY")
    mark(order, broken, "ERROR", "it broke\n")
    assert len(rename_to_earlier(order)) == 2
    found = submit.missing(order)
    assert found.finished == 1
    assert sum(len(group.trials) for group in found.groups) == 5
    asked = status.look(order.folder, order.study)
    assert asked.counts == {"finished": 1, "failed": 1, "missing": 4}
    assert asked.reasons == {trial_id(broken): "it broke"}
    assert status.look(order.folder).counts == {"finished": 1, "failed": 1}


def test_what_a_job_of_an_earlier_version_holds_is_not_sent_again(files, slurm):
    order = order_of(files)
    held = order.study.trials[0]
    mark(order, held, "STOPPED")
    (was,) = rename_to_earlier(order).values()
    send()
    for path in order.folder.glob("jobs/*/submitted.json"):
        path.write_text(path.read_text().replace(trial_id(held), was))
    (slurm / "queue").write_text("101|RUNNING\n102|RUNNING\n")
    assert submit.missing(order).held == 6
    assert status.look(order.folder, order.study).counts == {"queued": 6}


def test_what_sbatch_refuses_is_not_recorded(files, slurm, capsys):
    (slurm / "refusal").write_text(
        "sbatch: error: invalid partition specified: fast\n"
        "sbatch: error: Batch job submission failed: Invalid partition name\n"
    )
    send(expected=cli.REFUSED)
    said = capsys.readouterr().err
    assert "invalid partition specified: fast" in said
    assert "mend slurm.partition" in said
    assert said.count("\n") == 1
    jobs = files / "results" / "study" / "jobs"
    assert [path.name for path in jobs.iterdir()] == [trial_folder.LOCK]
    (slurm / "refusal").unlink()
    send()
    assert len(sent(slurm)) == 3  # the refused one and both


def test_without_slurm_there_is_one_sentence(files, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    send(expected=cli.REFUSED)
    assert "there is no sbatch on the PATH" in capsys.readouterr().err


def test_known_bugs_are_warned_of_before_core_hours_are_spent(
    files, slurm, capsys, monkeypatch
):
    def foreseen(ranks, nodes, variables):
        return [f"seen on {ranks} ranks of {nodes} nodes"] if nodes > 1 else []

    monkeypatch.setattr(mpi_bugs, "foreseen", foreseen)
    change(files / "machine.toml", ('"srun"', '"true"'))
    send("--dry-run")
    assert "known bug: seen on 4 ranks of 2 nodes" in capsys.readouterr().err


def test_a_machine_without_slurm_takes_no_jobs(files, slurm, capsys):
    (files / "machine.toml").write_text("watchdog = 60")
    send(expected=cli.REFUSED)
    assert "machine.toml has no table [slurm]" in capsys.readouterr().err


def test_of_two_submissions_at_once_only_one_sends(files, slurm, capsys):
    (slurm / "wait").touch()  # sbatch does not answer yet
    words = ["submit", "study.toml", "--machine", "machine.toml"]
    first = subprocess.Popen(
        [sys.executable, "-m", "dsgd_bench", *words],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
    )
    wait_for(slurm / "sent")
    send(expected=cli.REFUSED)
    assert "another dsgd-bench submit is at work" in capsys.readouterr().err
    (slurm / "wait").unlink()
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert sent(slurm) == ["0001-1-ranks", "0002-4-ranks"]


def test_a_submission_from_within_a_job_does_not_hand_that_job_on(
    slurm, monkeypatch, tmp_path
):
    for name in ("SLURM_JOB_ID", "SLURM_JOB_END_TIME", "SLURM_CONF"):
        monkeypatch.setenv(name, "7")
    said = queue.ask(["env"]).stdout
    assert "SLURM_CONF=7" in said
    assert "SLURM_JOB" not in said


# --- the queue ---


def test_a_job_is_looked_for_in_the_queue_then_in_accounts_then_one_by_one(slurm):
    (slurm / "queue").write_text("1|PENDING\n2|RUNNING\n9|RUNNING\n")
    (slurm / "accounting").write_text("3|CANCELLED by 0\n")
    (slurm / "known").write_text("JobId=4 JobName=a JobState=TIMEOUT Reason=x\n")
    assert queue.states(["1", "2", "3", "4"]) == {
        "1": "pending",
        "2": "running",
        "3": "cancelled",
        "4": "timeout",
    }


def test_without_accounting_the_controller_is_asked_and_forgets(slurm):
    (slurm / "known").write_text("JobId=4 JobState=COMPLETED Reason=None\n")
    assert queue.states(["4"]) == {"4": "completed"}
    (slurm / "known").unlink()
    assert queue.states(["4"]) == {"4": "gone"}


def test_an_array_is_as_alive_as_its_liveliest_element(slurm):
    (slurm / "queue").write_text("1|COMPLETED\n1|RUNNING\n1|PENDING\n")
    assert queue.states(["1"]) == {"1": "running"}
    (slurm / "queue").write_text("1|COMPLETED\n1|PENDING\n")
    assert queue.states(["1"]) == {"1": "pending"}
    (slurm / "queue").write_text("1|COMPLETED\n1|FAILED\n")
    assert queue.states(["1"]) == {"1": "completed, failed"}


def test_of_a_requeued_job_accounts_say_the_last_state(slurm):
    (slurm / "accounting").write_text("5|REQUEUED\n5|COMPLETED\n6_1|FAILED\n")
    assert queue.states(["5", "6"]) == {"5": "completed", "6": "failed"}


def test_nothing_is_sent_when_the_queue_does_not_answer(files, slurm, capsys):
    send()
    (slurm / "queue").unlink()  # then squeue fails
    send(expected=cli.REFUSED)
    assert "squeue refuses to answer" in capsys.readouterr().err
    assert len(sent(slurm)) == 2


# --- status ---


def test_status_counts_every_trial_once_and_says_why_some_failed(files, slurm, capsys):
    send()
    order = order_of(files)
    one = [trial for trial in order.study.trials if trial.ranks == 1]
    four = [trial for trial in order.study.trials if trial.ranks == 4]
    (slurm / "queue").write_text("101|COMPLETED\n102|RUNNING\n")
    mark(order, one[0], "READY")
    mark(order, one[1], "STOPPED", "the job was about to end\n")
    mark(order, four[0], "ERROR", "rank 3 raised ValueError: [x]\nmore\n")
    mark(order, four[1], trial_folder.CLAIM)
    capsys.readouterr()
    for words in (["results/study"], ["study.toml", "--results", "results"]):
        assert cli.main(["status", *words]) == 0
        out = capsys.readouterr().out
        assert re.findall(r"^ +1 +(\w+)", out, re.MULTILINE) == [
            "finished",
            "failed",
            "stopped",
            "running",
            "queued",
            "missing",
        ]
        assert re.search(r"101 +completed +1 +1 +3 +1 ", out)
        assert re.search(r"102 +running +4 +2 +3 +0 ", out)
        assert f"({trial_id(four[0])}) failed: rank 3 raised ValueError: [x]\n" in out
        assert "more" not in out


def test_status_of_a_folder_without_trials_is_refused(files, slurm, capsys):
    (files / "empty").mkdir()
    assert cli.main(["status", "empty"]) == cli.REFUSED
    assert "has no trial and no job" in capsys.readouterr().err


def test_status_before_anything_was_run_says_that_all_is_missing(files, slurm, capsys):
    assert cli.main(["status", "study.toml"]) == 0
    assert re.search(r"^ +6 +missing", capsys.readouterr().out, re.MULTILINE)


# --- parts of a study ---


def test_a_study_can_be_cut_down_to_some_ranks(files):
    study = read_study(files / "study.toml")
    assert {trial.ranks for trial in config.on_ranks(study, [4]).trials} == {4}
    assert config.on_ranks(study, [1, 4]) == study
    with pytest.raises(ConfigError, match="no trial on 3 ranks: choose from 1, 4"):
        config.on_ranks(study, [3])


def test_a_study_can_be_cut_down_to_a_list_of_trials(files):
    study = read_study(files / "study.toml")
    path = files / "trials.txt"
    path.write_text(
        f"{trial_id(study.trials[2])} what it is\n\n{trial_id(study.trials[0])}\n"
    )
    kept = config.listed(study, path).trials
    assert kept == (study.trials[0], study.trials[2])  # in the study's order
    path.write_text("0123456789ab\n")
    with pytest.raises(ConfigError, match="lists no trial of"):
        config.listed(study, path)
    with pytest.raises(ConfigError, match="cannot be read"):
        config.listed(study, files / "none.txt")
