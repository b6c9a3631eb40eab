"""Machines that are not what they look like: clocks, quotas, shared memory, names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import SECONDS, STUDY, Command

from dsgd_bench import trace
from dsgd_bench.host import cgroups

LONG = STUDY.replace("0.3", "60").replace("0.002", "0.01")

STEADY = STUDY.replace("0.3", "1.5").replace("0.002", "0.03")


def possible(*words: str) -> bool:
    """Tell whether the kernel lets us run a command."""
    try:
        done = subprocess.run(words, check=False, capture_output=True, timeout=SECONDS)
    except FileNotFoundError:
        return False
    return done.returncode == 0


def value(said: str, name: str) -> float:
    (found,) = re.findall(rf"^FOM {name}\[\S+ (\S+) \S+$", said, re.MULTILINE)
    return float(found)


def apart(dsgd_bench: Command, name: str, *unshare: str) -> Path:
    """Write a machine file whose ranks but the first start by ``unshare``."""
    script = dsgd_bench.folder / f"{name}.sh"
    script.write_text(
        "#!/bin/sh\n"
        'test "${PMI_RANK:-$OMPI_COMM_WORLD_RANK}" = 0 && exec "$@"\n'
        f"exec unshare {' '.join(unshare)} " + '"$@"\n'
    )
    script.chmod(0o755)
    path = dsgd_bench.folder / f"{name}.toml"
    path.write_text(f'launcher = ["mpiexec", "-n", "{{ranks}}", "{script}"]\n')
    return path


def run(dsgd_bench: Command, machine: Path) -> tuple[str, trace.Trace]:
    results = dsgd_bench.folder / machine.stem
    study = dsgd_bench.study(text=STEADY)
    done = dsgd_bench("run", study, "--machine", machine, "--results", results)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = results.glob("tiny/*/trace.h5")
    return done.stdout, trace.open_trace(path)


@pytest.mark.slow
@pytest.mark.library
def test_two_machines_of_one_name_are_measured_as_two_of_two_names(dsgd_bench):
    shifted = ("--time", "--monotonic", "5000")
    if not possible("unshare", *shifted, "--uts", "hostname", "other"):
        pytest.skip("time namespaces cannot be made here")
    named = ("--uts", "sh", "-c", "'hostname other; exec \"$@\"'", "sh")
    one, of_one = run(dsgd_bench, apart(dsgd_bench, "one", *shifted))
    two, of_two = run(dsgd_bench, apart(dsgd_bench, "two", *shifted, *named))
    for found in (of_one, of_two):
        assert found.provenance["clocks"] == [0, 1]
        offsets = found["clock_offset_start"]
        assert offsets[0] == 0
        assert offsets[1] == pytest.approx(5000, abs=1)
    assert len(set(of_one.provenance["hosts"])) == 1
    assert len(set(of_two.provenance["hosts"])) == 2
    # Steps are long, so that a busy machine hardly matters. Staleness is 0 where clocks
    # are taken for one.
    assert value(one, "waiting") == pytest.approx(value(two, "waiting"), abs=0.05)
    for said in (one, two):
        assert value(said, "staleness_mean") == pytest.approx(1, abs=0.5)
        assert "DSGD_BENCH_RESULT OK" in said


def test_links_of_a_host_that_is_not_there_are_refused(dsgd_bench):
    machine = dsgd_bench.machine("[links]\nrate = 1e9\nhosts = { nowhere = 1e8 }\n")
    done = dsgd_bench("run", dsgd_bench.study(), "--machine", machine)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "links.hosts of the machine file names nowhere, and the ranks of" in said
    assert "Traceback" not in said


@pytest.fixture
def half_a_core():
    """Return words that start a command in a real control group with half a core."""
    for group in cgroups.groups("cpu"):
        folder = group.folder / f"dsgd-bench-test-{os.getpid()}"
        try:
            folder.mkdir()
            if group.version == 1:
                (folder / "cpu.cfs_period_us").write_text("100000")
                (folder / "cpu.cfs_quota_us").write_text("50000")
            else:
                (folder / "cpu.max").write_text("50000 100000")
        except OSError:
            if folder.exists():
                folder.rmdir()
            continue
        yield ["sh", "-c", f'echo 0 > {folder}/cgroup.procs; exec "$@"', "sh"]
        folder.rmdir()
        return
    pytest.skip("no control group with a CPU quota can be made here")


@pytest.mark.slow
def test_cpu_quota_is_told_by_doctor_plan_and_report(dsgd_bench, half_a_core):
    def said(*words: object) -> str:
        done = subprocess.run(
            [*half_a_core, *dsgd_bench.words(*words)],
            cwd=dsgd_bench.folder,
            env=dsgd_bench.environment(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return " ".join((done.stdout + done.stderr).split())

    measured = STUDY[: STUDY.index("[compute]")]
    study = dsgd_bench.study(text=measured)
    crowded = "2 ranks on 0.5 cores: ranks wait for each other's cores"
    assert crowded in said("doctor")
    assert "2 ranks on 0.5 cores (a control group allows 0.5)" in said("plan", study)
    assert crowded in said("run", study, "--results", "r")
    (path,) = (dsgd_bench.folder / "r").glob("tiny/*/trace.h5")
    found = trace.open_trace(path)
    assert found.provenance["host"]["cpu_quota"] == 0.5
    assert found["shares_core"].tolist() == [1, 1]


@pytest.fixture
def small_shm(dsgd_bench):
    """Return a function that runs a command where /dev/shm has so many MiB."""
    mount = "mount -t tmpfs -o size={}m none /dev/shm"
    if not possible("unshare", "--mount", "sh", "-c", mount.format(1)):
        pytest.skip("no file system can be mounted on /dev/shm here")

    def small(mib: int, *words: str) -> str:
        script = f'{mount.format(mib)}; exec "$@"'
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", *words],
            cwd=dsgd_bench.folder,
            env=dsgd_bench.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return done.stdout + done.stderr

    return small


@pytest.mark.library
def test_a_shared_memory_that_is_too_small_is_named_with_need_and_room(
    dsgd_bench, small_shm
):
    study = dsgd_bench.study()
    named = "2 ranks on one host need about 16 MiB of shared memory, and /dev/shm has"
    assert named in small_shm(1, *dsgd_bench.words("plan", study))
    doctor = " ".join(small_shm(1, *dsgd_bench.words("doctor")).split())
    assert named in doctor
    run = small_shm(1, *dsgd_bench.words("run", study))
    # Open MPI goes on without shared memory: then there is nothing to explain.
    assert named in run or "DSGD_BENCH_RESULT OK" in run


INTERRUPTED = """
import os, signal, subprocess, sys, time
from pathlib import Path
from dsgd_bench.host import shared_memory
how, *command = sys.argv[1:]

def ranks():
    return sorted(Path("/dev/shm").glob(shared_memory.NOTE + "*"))

run = subprocess.Popen(command, stdout=subprocess.DEVNULL,
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
end = time.monotonic() + 60
while time.monotonic() < end:
    if len(ranks()) == 2 and all('"files": [[' in p.read_text() for p in ranks()):
        break
    time.sleep(0.05)
else:
    sys.exit("the ranks never came")
before = sorted(os.listdir("/dev/shm"))
first = int(ranks()[0].name.removeprefix(shared_memory.NOTE))
if how == "rank":
    os.kill(first, signal.SIGKILL)
elif how == "launcher":
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
else:
    os.kill(run.pid, signal.SIGKILL if how == "run" else signal.SIGINT)
run.wait()
if how == "run":  # it could remove nothing: whoever comes next does
    notes = lambda: shared_memory._notes(Path("/dev/shm"))
    while any(shared_memory._lives(note) for _, note in notes()):
        time.sleep(0.05)
    shared_memory.sweep()
print(before, "->", sorted(os.listdir("/dev/shm")))
"""


@pytest.mark.library
@pytest.mark.parametrize("how", ["rank", "launcher", "run", "interrupt"])
def test_nothing_is_left_in_shared_memory_whatever_is_killed(
    dsgd_bench, small_shm, how
):
    study = dsgd_bench.study(text=LONG)
    command = dsgd_bench.words("run", study)
    said = small_shm(64, sys.executable, "-c", INTERRUPTED, how, *command)
    assert "-> []" in said, said
    assert "dsgd-bench-rank-" in said  # something was there to be removed
