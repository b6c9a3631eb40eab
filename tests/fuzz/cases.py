"""What is done with damaged files, and what is right: a sentence, never a wrong number.

A kind of case is a function from a seed and a number to what was wrong with it.
"""

import contextlib
import functools
import io
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import mutate
import numpy as np
import workers

from dsgd_bench import cli, config, report, trace
from dsgd_bench.config.identity import trial_id
from dsgd_bench.errors import DsgdError, TraceError
from dsgd_bench.fabric.virtual.fabric import World
from dsgd_bench.io.trial_folder import JOB, READY, TRACE, TrialFolder
from dsgd_bench.spec.job import Job
from dsgd_bench.study import runner
from dsgd_bench.study.decision import FINISHED, STOPPED, Ended, failed
from dsgd_bench.study.runner import run_study
from dsgd_bench.trace import checkpoint, trials
from dsgd_bench.trace.reading import MARK, TRAILER
from dsgd_bench.trace.shard import Shard
from dsgd_bench.trial.run import Run

ROOT = Path(__file__).resolve().parents[2]
STUDY = """
[study]
ranks = 2
budget = { steps = 12 }
[problem]
kind = "quadratic"
[algorithm]
kind = ["adpsgd", "sgp", "asgd"]
[compute]
mode = "emulated"
seconds = 0.001
[measure]
copies = 4
"""
SMALL = STUDY.replace('["adpsgd", "sgp", "asgd"]', '"adpsgd"').replace("12", "4")
FIGURES = 0.01
"""Share of the damaged folders that are reported with figures."""

LAST = re.compile(r"DSGD_BENCH_RESULT (OK|FAIL) id=[0-9a-f]{12}")
METRIC = re.compile(r"^FOM (\w+)\[\S+\] (\S+) \S+$", re.M)
COUNT = re.compile(r"^FOM (trials\w*) (\d+) count$", re.M)


def stream(seed: int, kind: str, number: int) -> Random:
    """Return the chance of one case: the same, whichever others are done."""
    return random.Random(f"{seed} {kind} {number}")


def command(*words: object) -> tuple[int, str, str]:
    """Run a command in this process; return status, output and errors."""
    workers.limited()
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            status = cli.main([str(word) for word in words])
        except SystemExit as ended:
            status = int(ended.code or 0)
    return status, out.getvalue(), errors.getvalue()


def virtual(
    job: Job, folder: TrialFolder, ends: Any = None, fresh: Path | None = None
) -> Ended:
    """Run a trial as its ranks would, but in virtual time; return how it ended.

    One that begins anew reads nothing: it is taken from `fresh`, where it lies ready.
    """
    trials.clear(folder, checkpoints=job.machine.when_stopped != "resume")
    job.write(folder.job)
    if fresh is not None and checkpoint.find(folder.path) is None:
        for path in (fresh / folder.name).iterdir():
            shutil.copy(path, folder.path)
        return FINISHED
    run = Run(job.trial, folder.path, job.study, "none", {"hosts": ["node"] * 2}, ends)
    try:
        finished = all(World(job.trial.ranks).run(run))
    except DsgdError as error:
        folder.fail(str(error))
        return failed(str(error))
    (folder.ready if finished else folder.stopped).touch()
    return FINISHED if finished else STOPPED


def draw(wanted: bool) -> None:
    """Let reports have figures, or not: they take seconds, and read nothing more."""
    setattr(report, "find_spec", find_spec if wanted else lambda _: None)  # noqa: B010


def starting(virtual: runner.Start) -> Callable[..., runner.StudyOutcome]:
    """Return `run_study`, but for how a trial is run where nobody says so."""

    def run(*words: Any) -> runner.StudyOutcome:
        return run_study(*words[:4], *(words[4:] or [virtual]))

    return run


def prepare(home: Path) -> None:
    """Make what is damaged: a study with finished, stopped and failed trials."""
    runner.run_study = starting(virtual)
    cli.parser = functools.cache(cli.parser)
    draw(False)
    (home / "toy.toml").write_text(STUDY, encoding="utf-8")
    (home / "small.toml").write_text(SMALL, encoding="utf-8")
    study = config.read_study(home / "toy.toml")
    command("run", home / "toy.toml", "--results", home / "results")
    by_kind = {trial.algorithm.kind: trial_id(trial) for trial in study.trials}
    place = home / "results" / "toy"
    for path in place.glob("*.*"):
        path.unlink()
    shutil.copytree(place, home / "fresh")
    stopped = place / by_kind["sgp"]
    job = Job.read(stopped / JOB)
    asked = [0]

    def ends() -> bool:
        asked[0] += 1
        return asked[0] > 10

    virtual(job, TrialFolder(stopped), ends)
    failed = place / by_kind["asgd"]
    for name in (READY, TRACE):
        (failed / name).unlink()
    TrialFolder(failed).fail(KILLED)
    trace.merge(failed, crashed=KILLED)
    runner.run_study = starting(partial(virtual, fresh=home / "fresh"))


def truth(home: Path) -> Counter[tuple[str, str]]:
    """Return the numbers that a report of the undamaged folder prints."""
    _, out, _ = command("report", home / "results" / "toy", "--out", home / "out")
    return Counter(METRIC.findall(out))


def plain(status: int, out: str, errors: str) -> str:
    """Say what is wrong with any command's output, whatever it was to do."""
    if status not in (0, 1, 2, 3, 4, 75):
        return f"status {status}"
    both = out + errors
    if "Traceback (most recent call last)" in both or " raised " in both:
        return f"a traceback: {both[-3000:]}"
    if status == 2 and "dsgd-bench: " not in errors:
        return f"status 2 without a sentence: {both[-500:]}"
    return ""


def configuration(home: Path, seed: int, number: int) -> str:
    """Read a mutated study, and plan it; or a mutated machine file."""
    chance = stream(seed, "configurations", number)
    studies = sorted((ROOT / "configs").rglob("*.toml"))
    machines = sorted((ROOT / "jobs").rglob("*.toml"))
    source = chance.choice([*studies, *machines, home / "toy.toml", home / "toy.toml"])
    content = mutate.text(chance, source.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(dir=home) as folder:
        path = Path(folder) / source.name
        path.write_bytes(content)
        if source in machines:
            for template in source.parent.glob("*.j2"):
                shutil.copy(template, folder)
            with contextlib.suppress(DsgdError):
                config.read_machine(path)
            return ""
        return plain(*command("plan", path))


def folder(home: Path, truth: Counter[tuple[str, str]], seed: int, number: int) -> str:
    """Damage one to three files of a study, and let every verb meet them."""
    chance = stream(seed, "folders", number)
    with tempfile.TemporaryDirectory(dir=home) as place:
        study = Path(place) / "results" / "toy"
        shutil.copytree(home / "results" / "toy", study)
        chosen = []
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            there = sorted(p for p in study.rglob("*") if p.is_file())
            chosen.append(_chosen(chance, there))
            mutate.damage(chance, chosen[-1])
        if chance.random() < 0.2:
            claim = chance.choice(sorted(p for p in study.iterdir() if p.is_dir()))
            (claim / ".claim").write_bytes(chance.choice(mutate.TEXTS))
            if chance.random() < 0.7:
                os.utime(claim / ".claim", (0, 0))  # nobody has been there for long
        traces = [path for path in chosen if path.name == "trace.h5"]
        draw(chance.random() < FIGURES)
        wrong = _report(study, truth)
        draw(False)
        return wrong or _verbs(home, study, chance, traces[0] if traces else None)


def _chosen(chance: Random, there: list[Path]) -> Path:
    """Choose a file, traces and marks more often than what lies beside them."""
    traces = [path for path in there if path.name == "trace.h5"]
    return chance.choice(traces if traces and chance.random() < 0.4 else there)


def _report(study: Path, truth: Counter[tuple[str, str]]) -> str:
    marked = _marked(study)
    status, out, errors = command("report", study, "--out", study.parent / "out")
    wrong = plain(status, out, errors) or _miscounted(status, out, marked, truth)
    return wrong and f"report: {wrong}"


def _verbs(home: Path, study: Path, chance: Random, one: Path | None) -> str:
    """Let the other verbs meet a study, of which `one` trace is damaged."""
    toy, results = home / "toy.toml", ("--results", study.parent)
    others: list[tuple[object, ...]] = []
    others.append(chance.choice((("status", study), ("status", toy, *results))))
    if one is not None:
        others.append(("replay", one))
        elsewhere = ("--results", study.parent / "other")
        small = (home / "small.toml", *elsewhere)
        others.append(("simulate", *small, "--compute-from", one))
    others.append(("run", toy, *results))
    for words in others:
        answer = command(*words)
        if wrong := plain(*answer):
            return f"{words[0]}: {wrong}"
    status, out, _ = answer
    counts = {name: int(count) for name, count in COUNT.findall(out)}
    if "another dsgd-bench" in out:  # there is a claim, and it is a new one
        return ""
    if status in (0, 4) and counts.get("trials") != len(TRIALS):
        return f"run: counts {counts} of {len(TRIALS)} trials, status {status}"
    return ""


KILLED = "rank 1 was killed"
TRIALS = ("adpsgd", "sgp", "asgd")


def _marked(study: Path) -> tuple[int, int]:
    """Return the trials that finished or failed, and all of which there is anything."""
    folders = [path for path in study.iterdir() if path.is_dir()]
    ended = [f for f in folders if (f / "READY").exists() or (f / "ERROR").exists()]
    marks = ("READY", "ERROR", "STOPPED", "job.json", "trace.h5")
    known = [f for f in folders if any((f / mark).exists() for mark in marks)]
    return len(ended), len(known)


def _miscounted(
    status: int, out: str, marked: tuple[int, int], truth: Counter[tuple[str, str]]
) -> str:
    """Say which number of a report is not what was put in."""
    if status == 2:
        return ""
    last = LAST.fullmatch(out.rstrip("\n").rpartition("\n")[2])
    if last is None:
        return f"the last line is {out[-200:]!r}"
    counts = {name: int(count) for name, count in COUNT.findall(out)}
    parts = [
        counts.get(f"trials_{k}")
        for k in ("finished", "failed", "unreadable", "missing")
    ]
    if None not in parts and sum(p or 0 for p in parts) != counts["trials"]:
        return f"the parts do not add up: {counts}"
    if counts["trials"] not in marked:
        return f"{counts['trials']} trials are counted, and there are {marked}"
    if last[1] == "OK" and (new := Counter(METRIC.findall(out)) - truth):
        return f"valid, but other numbers than were recorded: {dict(new)}"
    return ""


def piece(home: Path, seed: int, number: int) -> str:
    """Read a damaged checkpoint or shard, and merge what lies beside it."""
    chance = stream(seed, "pieces", number)
    (source,) = (home / "results" / "toy").glob("*/checkpoint")
    with tempfile.TemporaryDirectory(dir=home) as place:
        there = Path(place)
        if number % 2:
            shutil.copytree(source, there / "checkpoint")
            path = there / "checkpoint" / "rank-0001.h5"
            read = partial(_saved, there, source.parent.name)
        else:
            for shard in source.parent.parent.glob("*/rank-0001.h5"):
                if (shard.parent / "READY").exists():
                    shutil.copytree(shard.parent, there, dirs_exist_ok=True)
                    break
            path, read = there / "rank-0001.h5", partial(_merged, there)
        undamaged = path.read_bytes()
        sealed = chance.random() < 0.4
        if not sealed:
            path.write_bytes(undamaged[:-TRAILER])
        mutate.damage(chance, path)
        workers.limited()
        try:
            after = _numbers(read())
        except TraceError:
            return ""
        if not (sealed and path.is_file() and MARK in path.read_bytes()[-TRAILER:]):
            return ""
        path.write_bytes(undamaged)
        changed = after != _numbers(read())
        return "sealed, read, and not what was written" if changed else ""


def _saved(there: Path, trial: str) -> checkpoint.Checkpoint:
    return checkpoint.read(there / "checkpoint", 1, trial=trial)


def _merged(there: Path) -> Any:
    with contextlib.suppress(TraceError):
        trace.merge(there, crashed="damaged on purpose")
    trace.merge(there)
    return Shard.read(there / "rank-0001.h5")


def _numbers(read: Any) -> bytes:
    return np.asarray(read.rows).tobytes() + repr(read.counts).encode()


def resume(home: Path, seed: int, number: int) -> str:
    """Damage a checkpoint, and let `run` go on from it, as people do, with MPI."""
    chance = stream(seed, "resumes", number)
    (saved,) = (home / "results" / "toy").glob("*/checkpoint")
    with tempfile.TemporaryDirectory(dir=home) as place:
        study = Path(place) / "results" / "toy"
        shutil.copytree(saved.parent, study / saved.parent.name)
        mutate.damage(chance, chance.choice(sorted(study.glob("*/checkpoint/*.h5"))))
        (Path(place) / "one").write_text(saved.parent.name, encoding="utf-8")
        words = ("--trials", f"{place}/one", "--results", study.parent)
        workers.limited()
        done = subprocess.run(
            [sys.executable, "-m", "dsgd_bench", "run", home / "toy.toml", *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=workers.PATIENCE,
        )
    if wrong := plain(done.returncode, done.stdout, done.stderr):
        return wrong
    last = LAST.fullmatch(done.stdout.rstrip("\n").rpartition("\n")[2])
    if last is None or (last[1] == "OK") != (done.returncode in (0, 4)):
        return f"status {done.returncode}, and {done.stdout[-200:]!r} is printed"
    return ""
