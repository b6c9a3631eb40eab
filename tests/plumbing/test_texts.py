"""Texts that a user wrote: what is none is refused, in words that tell what it is."""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from dsgd_bench import config
from dsgd_bench.cli.verb_parts import network
from dsgd_bench.errors import ConfigError, TraceError
from dsgd_bench.graphs import make
from dsgd_bench.io import user_text
from dsgd_bench.spec import machine_profile
from dsgd_bench.spec.trial import ComputeSpec
from dsgd_bench.trial import gradient_time

STUDY = """
[study]
ranks = 2
budget = { steps = 3 }
[problem]
kind = "quadratic"
[algorithm]
kind = "allreduce"
"""


@pytest.fixture
def refusal(tmp_path):
    """Return a function that gives the sentence with which a study is refused."""

    def read(content: bytes | str, overrides=()) -> str:
        path = tmp_path / "study.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(ConfigError) as caught:
            config.read_study(path, overrides)
        said = str(caught.value)
        assert said.startswith(str(path))
        assert "\n" not in said
        assert len(said) < 500
        return said

    return read


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (STUDY.encode("utf-16"), "the file is UTF-16: save it as UTF-8"),
        (b"\xfe\xff" + STUDY.encode("utf-16-be"), "the file is UTF-16"),
        (STUDY.encode("utf-16-le"), "as UTF-16: save it as UTF-8"),
        (STUDY.encode("utf-32"), "the file is UTF-32: save it as UTF-8"),
        (b"[study]\n# \xe9t\xe9\n", "not UTF-8 at line 2, column 3 (byte 0xe9)"),
        (b"[study]\nranks = 2\0\n", "a NUL character at line 2, column 10"),
        (b"#" * (user_text.LIMIT + 1), f"it has more than {user_text.LIMIT} bytes"),
    ],
)
def test_what_is_not_utf_8_is_named(refusal, content, said):
    assert said in refusal(content)


def test_a_mark_before_utf_8_is_no_fault(tmp_path):
    path = tmp_path / "study.toml"
    path.write_bytes(b"\xef\xbb\xbf" + STUDY.encode())
    assert len(config.read_study(path).trials) == 1


NINES = "9" * 5000
DEEP = "[" * 2000 + "]" * 2000


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"seed = {NINES}", "a number of thousands of digits in study.seed at line 4"),
        (f"seed = 0x{'f' * 5000}", "study.seed is a number of thousands of digits"),
        (f"zip = {DEEP}", "more than 20 deep within each other in study.zip at line 4"),
        (f"zip = {'[' * 30}{']' * 30}", "more than 20 deep within each other in study"),
        ("a." * 2000 + "b = 1", "more than 20 deep within each other in study.a.a"),
        (f"{'k' * 5000} = 1", "a key of 5000 characters, kkkkk"),
        ("seed = 2020-01-01", 'study.seed is "2020-01-01" but must be a whole number'),
        ("seed = 1.0e3", "study.seed is 1000.0 but must be a whole number"),
    ],
)
def test_big_numbers_and_deep_brackets_are_refused_by_key(refusal, line, said):
    text = STUDY.replace("ranks = 2", f"ranks = 2\n{line}")
    assert said in refusal(text)


@pytest.mark.parametrize("change", [f"study.seed={NINES}", f"study.zip={DEEP}"])
def test_big_numbers_in_an_override_are_refused_by_key(refusal, change):
    assert f"the override {change[:20]}" in refusal(STUDY, [change])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["study.ranks=100000000000000000000"], "study.ranks is 1000000000000"),
        (["study.repeats=1000000000"], "study.repeats is 1000000000 but must be"),
        (["study.seed=18446744073709551616"], "study.seed is 18446744073709551616"),
        (["measure.copies=1000000000"], "at least 3 and at most 10000"),
        (["compute={mode=\"emulated\",seconds=1.7e308}"], "compute.seconds is 1.7e"),
        (["compute={mode=\"emulated\",seconds=nan}"], "compute.seconds is NaN"),
        (["problem.kind=\"a\\u0000b\""], "problem.kind has a NUL character"),
    ],
)  # fmt: skip
def test_big_numbers_are_refused_with_both_ends(refusal, changes, said):
    assert said in refusal(STUDY, changes)


def test_a_sweep_of_a_billion_trials_is_counted_and_refused(refusal):
    thousand = list(range(1, 1001))
    changes = [
        f"optimizer.lr={thousand}",
        f"optimizer.weight_decay={thousand}",
        "study.repeats=1000",
    ]
    said = refusal(STUDY, changes)
    assert "the study has 1,000,000,000 trials" in said
    assert "optimizer.lr, optimizer.weight_decay, study.repeats = 1000" in said
    assert "at most 10,000" in said


def test_alternatives_that_explode_are_counted_and_refused(refusal):
    two = "[{kind = 'none'}, {kind = 'none'}]"
    tables = "\n".join(f"t{k} = {two}" for k in range(60))
    assert "more than 10^15 trials" in refusal(f"{STUDY}[problem.tables]\n{tables}\n")


@pytest.mark.parametrize("kind", ["folder", "FIFO", "device"])
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path, kind):
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        path = Path("/dev/zero")
    for read in (config.read_study, config.read_machine, machine_profile.read):
        with pytest.raises(ConfigError, match=f"it is a {kind}, not a file"):
            read(path)
    with pytest.raises(ConfigError, match=f"it is a {kind}, not a file"):
        make(f"file:{path}", 4)
    spec = ComputeSpec(mode="resampled", trace=str(path))
    with pytest.raises(TraceError, match="from which no gradient times are drawn"):
        gradient_time.mean(spec)


def test_a_name_that_no_file_can_have_is_refused(tmp_path):
    long = "a" * 300
    with pytest.raises(ConfigError, match="neither a file nor a network"):
        network(long, 4)
    machine = tmp_path / "machine.toml"
    machine.write_text(f'[slurm]\ntemplate = "{long}"\ntime = "9"\nranks_per_node = 1')
    with pytest.raises(ConfigError, match="which is no file beside the machine file"):
        config.read_machine(machine)
    with pytest.raises(ConfigError, match="File name too long"):
        config.read_study(tmp_path / long)


def through_a_pipe(content: bytes) -> str:
    """Read what a shell's <(...) would give."""
    out, into = os.pipe()

    def write() -> None:
        with suppress(BrokenPipeError), os.fdopen(into, "wb") as pipe:
            pipe.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        return user_text.read(Path(f"/dev/fd/{out}"))
    finally:
        os.close(out)
        writer.join()


def test_a_pipe_of_a_shell_is_read_to_its_end_and_no_further_than_the_limit():
    assert through_a_pipe(STUDY.encode() * 1000) == STUDY * 1000
    with pytest.raises(ConfigError, match="it has more than"):
        through_a_pipe(b"#" * (2 * user_text.LIMIT))


def test_a_pipe_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(user_text, "SILENCE", 0.05)
    out, into = os.pipe()
    with pytest.raises(ConfigError, match="nothing came for"):
        user_text.read(Path(f"/dev/fd/{out}"))
    os.close(out)
    os.close(into)


@pytest.mark.parametrize("words", [
    ["simulate", "STUDY", "--seed", "18446744073709551616"],
    ["simulate", "STUDY", "--seed", NINES],
    ["simulate", "STUDY", "--ranks", "100000000000000000000"],
    ["simulate", "STUDY", "--ranks", "2,x"],
    ["run", "STUDY", "--ranks", "-1"],
    ["doctor", "-n", "100000000000000000000"],
    ["doctor", "-n", "0"],
    ["replay", "trace.h5", "--without-slow", NINES],
    ["bench", "average", "-i", "100000000000000000000"],
    ["bench", "average", "-m", "999999G"],
    ["bench", "average", "-m", NINES],
    ["bench", "recording", "--seconds", "inf"],
    ["bench", "recording", "-n", "100000000000000000000"],
    ["probe", "-i", NINES],
])  # fmt: skip
def test_big_numbers_on_the_command_line_are_refused(words, tmp_path):
    (tmp_path / "study.toml").write_text(STUDY)
    command = [sys.executable, "-m", "dsgd_bench"]
    ended = subprocess.run(
        [*command, *(word.replace("STUDY", "study.toml") for word in words)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    last = ended.stderr.splitlines()[-1]
    assert ended.returncode == 2
    assert words[-2] in last
    assert "Traceback" not in ended.stderr
    assert len(last) < 300
    assert sorted(p.name for p in tmp_path.iterdir()) == ["study.toml"]
