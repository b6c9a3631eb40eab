"""What is done with damaged files, and what is right: a sentence, never a wrong number.

A kind of case is a function from a seed and a number to what was wrong with it.
"""

import contextlib
import io
import os
import random
import re
import shutil
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import mutate
import numpy as np
import workers

from dsgd_bench import cli, config, rank, report, runner, trace
from dsgd_bench.errors import DsgdError, TraceError
from dsgd_bench.fabric.virtual import World
from dsgd_bench.run import Run
from dsgd_bench.specs import Job
from dsgd_bench.trace import checkpoint, reading
from dsgd_bench.trace.shard import Shard

ROOT = Path(__file__).resolve().parents[2]
STUDY = """
[study]
ranks = 2
budget = { steps = 12 }
[problem]
kind = "quadratic"
[algorithm]
kind = ["allreduce", "adpsgd", "sgp", "asgd"]
[compute]
mode = "emulated"
seconds = 0.001
[measure]
copies = 4
"""
SMALL = STUDY.replace('["allreduce", "adpsgd", "sgp", "asgd"]', '"adpsgd"').replace(
    "12", "4"
)
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


def virtual(job: Job, folder: Path, ends: Any = None, fresh: Path | None = None) -> str:
    """Run a trial as its ranks would, but in virtual time; return why it failed.

    One that begins anew reads nothing: it is taken from `fresh`, where it lies ready.
    """
    runner.clear(folder, keep=runner._kept(job))
    job.write(folder / runner.JOB)
    if fresh is not None and checkpoint.find(folder) is None:
        for path in (fresh / folder.name).iterdir():
            shutil.copy(path, folder)
        return ""
    run = Run(job.trial, folder, job.study, "none", {"hosts": ["node"] * 2}, ends)
    try:
        finished = all(World(job.trial.ranks).run(run))
    except DsgdError as error:
        rank.note_error(folder, str(error))
        return str(error)
    (folder / (rank.READY if finished else rank.STOPPED)).touch()
    return "" if finished else rank.STOPPED


def prepare(home: Path) -> None:
    """Make what is damaged: a study with finished, stopped and failed trials."""
    runner._launch = virtual
    report._remark = lambda: "No figures."  # they take a second, and read nothing
    (home / "toy.toml").write_text(STUDY, encoding="utf-8")
    (home / "small.toml").write_text(SMALL, encoding="utf-8")
    study = config.read_study(home / "toy.toml")
    command("run", home / "toy.toml", "--results", home / "results")
    by_kind = {trial.algorithm.kind: trial.id for trial in study.trials}
    place = home / "results" / "toy"
    for path in place.glob("*.*"):
        path.unlink()
    shutil.copytree(place, home / "fresh")
    stopped = place / by_kind["sgp"]
    job = Job.read(stopped / runner.JOB)
    asked = [0]

    def ends() -> bool:
        asked[0] += 1
        return asked[0] > 10

    virtual(job, stopped, ends)
    failed = place / by_kind["asgd"]
    for name in (rank.READY, "trace.h5"):
        (failed / name).unlink()
    runner._give_up(failed, "rank 1 was killed")
    runner._launch = partial(virtual, fresh=home / "fresh")


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
        return _verbs(home, study, traces[0] if traces else None, truth)


def _chosen(chance: Random, there: list[Path]) -> Path:
    """Choose a file, traces and marks more often than what lies beside them."""
    traces = [path for path in there if path.name == "trace.h5"]
    return chance.choice(traces if traces and chance.random() < 0.4 else there)


def _verbs(
    home: Path, study: Path, one: Path | None, truth: Counter[tuple[str, str]]
) -> str:
    marked = _marked(study)
    wrong = plain(*(answer := command("report", study, "--out", study.parent / "out")))
    wrong = wrong or _miscounted(answer[0], answer[1], marked, truth)
    if wrong:
        return f"report: {wrong}"
    results = ("--results", study.parent)
    others: list[tuple[object, ...]] = [("status", study)]
    others += [("status", home / "toy.toml", *results)]
    if one is not None:
        others.append(("replay", one))
        elsewhere = ("--results", study.parent / "other")
        small = (home / "small.toml", *elsewhere)
        others.append(("simulate", *small, "--compute-from", one))
    others.append(("run", home / "toy.toml", *results))
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


TRIALS = ("allreduce", "adpsgd", "sgp", "asgd")


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
            path, read = there / "checkpoint" / "rank-0001.h5", partial(_saved, there)
        else:
            for shard in source.parent.parent.glob("*/rank-0001.h5"):
                if (shard.parent / "READY").exists():
                    shutil.copytree(shard.parent, there, dirs_exist_ok=True)
                    break
            path, read = there / "rank-0001.h5", partial(_merged, there)
        before = _numbers(read())
        sealed = chance.random() < 0.4
        if not sealed:
            path.write_bytes(path.read_bytes()[: -reading.TRAILER])
        mutate.damage(chance, path)
        workers.limited()
        try:
            after = _numbers(read())
        except TraceError:
            return ""
        changed = after != before
        intact = (
            sealed and path.is_file() and path.read_bytes()[-48:-32] == reading.MARK
        )
        return "sealed, read, and not what was written" if changed and intact else ""


def _saved(there: Path) -> checkpoint.Checkpoint:
    return checkpoint.read(there / "checkpoint", 1)


def _merged(there: Path) -> Any:
    with contextlib.suppress(TraceError):
        trace.merge(there, crashed="damaged on purpose")
    trace.merge(there)
    return Shard.read(there / "rank-0001.h5")


def _numbers(read: Any) -> bytes:
    return np.asarray(read.rows).tobytes() + repr(read.counts).encode()
