"""Options and variables that change what submit means: refused, or not passed on."""

from pathlib import Path

import fake_slurm
import pytest

from dsgd_bench import cli
from dsgd_bench.batch.slurm import calls, options
from dsgd_bench.config import read_machine
from dsgd_bench.errors import ConfigError


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Put commands in Slurm's place whose answers a test writes."""
    return fake_slurm.installed(tmp_path, monkeypatch)


REFUSED = {
    "--wait": "does not wait",
    "--wai": "does not wait",
    "--test-only": "nothing would be sent",
    "--test": "nothing would be sent",
    "--parsable": "submit passes it",
    "--quiet": "number would not be printed",
    "--clusters=north": "SLURM_CLUSTERS",
    "--cluster=north": "SLURM_CLUSTERS",
    "--wrap=true": "the job is the script",
    "--help": "nothing would be sent",
    "--usage": "nothing would be sent",
    "--vers": "nothing would be sent",
    "--dependency=singleton": "a name of its own",
    "--array=1-9": "slurm.array",
}
"""Option -> what the sentence says, in a machine file and in a template alike."""

SET_ALREADY = ("--outp=x", "--error=x", "--arr=1", "--job=x", "--no-req", "--sig=B:1@1")

ALLOWED = (
    *("--mem=0", "--gpus=4", "--mail-type=END", "--wait-all-nodes=1", "--hold"),
    *("--export=NONE", "--reservation=x", "--dependency=afterok:12", "--begin=now"),
    *("--exclude=n1", "--nodelist=n1", "--comment=x", "--time-min=5", "--nice=10"),
)


def with_options(*words):
    text = fake_slurm.MACHINE + f"options = [{', '.join(map(repr, words))}]\n"
    Path("machine.toml").write_text(text)


@pytest.mark.parametrize(("option", "said"), REFUSED.items())
def test_an_option_that_changes_what_submit_means_is_refused(
    option, said, fake, capsys
):
    with_options(option)
    assert fake.submit() == cli.REFUSED
    assert said in capsys.readouterr().err
    assert fake.sent() == 0


@pytest.mark.parametrize("option", SET_ALREADY)
def test_an_option_that_is_cut_short_is_still_one_that_is_set_already(option, fake):
    with_options(option)
    with pytest.raises(ConfigError, match="every job script sets by itself"):
        read_machine("machine.toml")


def test_other_options_of_a_machine_file_stand_in_the_script(fake):
    with_options(*ALLOWED)
    assert fake.submit() == 0
    (folder,) = fake.records()
    text = (folder / "job.sh").read_text()
    for option in ALLOWED:
        assert f"#SBATCH {option}\n" in text.replace("'", "")


LINES = {
    **{f"#SBATCH {option}": said for option, said in REFUSED.items()},
    "#SBATCH -W": "does not wait",
    "#SBATCH --mem=1 -W # and more": "does not wait",
    "#SBATCH -M north": "SLURM_CLUSTERS",
    "#SBATCH -a1-9": "slurm.array",
    "#SBATCH -Q": "number would not be printed",
    "#SBATCH hetjob": "of one job",
    "#SBATCH packjob": "of one job",
    "#PBS -t 1-9": "write #SBATCH lines only",
    "#BSUB -K": "write #SBATCH lines only",
}


@pytest.mark.parametrize(("line", "said"), LINES.items())
def test_a_line_of_a_template_that_changes_what_submit_means_is_refused(
    line, said, fake, capsys
):
    path = Path("base.sbatch.j2")
    path.write_text(
        path.read_text().replace("#SBATCH --chdir", f"{line}\n#SBATCH --chdir")
    )
    for words in ((), ("--dry-run",)):
        assert fake.submit(*words) == cli.REFUSED
        printed = capsys.readouterr().err
        assert said in printed
        assert "the template mpich.sbatch.j2 has the line" in printed
    assert fake.sent() == 0
    assert not fake.records()


def test_what_stands_behind_the_first_command_is_no_option(fake):
    path = Path("base.sbatch.j2")
    path.write_text(path.read_text() + "\n#SBATCH --wait\n")
    assert fake.submit() == 0


@pytest.mark.parametrize("name", options.DROPPED)
def test_a_variable_that_changes_what_submit_means_is_named_and_not_passed_on(
    name, fake, monkeypatch, capsys
):
    monkeypatch.setenv(name, "")  # sbatch asks only whether some of them are there
    assert fake.submit() == 0
    assert f"{name} is not passed on to sbatch: " in capsys.readouterr().err
    assert name not in fake.saw("sbatch")


def test_what_a_script_says_is_not_undone_by_a_variable(fake, monkeypatch, capsys):
    said = {"SBATCH_ACCOUNT": "b", "SBATCH_MEM_PER_NODE": "1G", "SBATCH_TIMELIMIT": "1"}
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert fake.submit() == 0
    seen = fake.saw("sbatch")
    assert seen["SBATCH_ACCOUNT"] == "b"  # the machine file leaves it open
    assert seen["SBATCH_MEM_PER_NODE"] == "1G"
    assert "SBATCH_TIMELIMIT" not in seen
    path = Path("machine.toml")
    path.write_text(path.read_text() + 'account = "a"\noptions = ["--mem=0"]\n')
    (fake.folder / "queue").write_text("")
    capsys.readouterr()
    assert fake.submit() == 0
    assert not set(said) & set(fake.saw("sbatch"))
    err = capsys.readouterr().err
    for name, option in zip(said, ("--account", "--mem", "--time"), strict=True):
        assert (
            f"{name} is not passed on to sbatch: the job's script has {option}" in err
        )


def test_a_cluster_for_sbatch_alone_is_refused(fake, monkeypatch, capsys):
    monkeypatch.setenv("SBATCH_CLUSTERS", "north")
    assert fake.submit() == cli.REFUSED
    assert "name the cluster in SLURM_CLUSTERS" in capsys.readouterr().err
    assert fake.sent() == 0


def test_filters_of_the_user_hide_no_jobs(fake, monkeypatch):
    for name in ("SQUEUE_PARTITION", "SQUEUE_STATES", "SACCT_FORMAT", "SQUEUE_FORMAT2"):
        monkeypatch.setenv(name, "x")
    assert fake.submit() == 0
    assert fake.submit() == 0
    seen = fake.saw("squeue")
    assert not [name for name in seen if name.startswith(("SQUEUE_", "SACCT_"))]


def test_what_a_job_left_in_the_shell_does_not_reach_jobs_and_wishes_of_users_do(
    monkeypatch,
):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    left = ("SLURM_JOB_END_TIME", "SLURM_RESTART_COUNT", "SLURM_HET_SIZE")
    for name in (*left, "SLURM_ARRAY_TASK_ID", "SLURM_EXIT_ERROR", "SLURM_MPI_TYPE"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("SLURM_CONF", "/etc/x")
    seen = {name for name in calls.environment() if name.startswith("SLURM_")}
    assert seen == {"SLURM_MPI_TYPE", "SLURM_CONF"}
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    seen = {name for name in calls.environment() if name.startswith("SLURM_")}
    assert seen == {"SLURM_CONF"}
