"""Looks at the machine before core-hours are spent: MPI, launcher, HDF5, cores.

The parts that need ranks are asked of a small MPI job; the rest is read here.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any

from dsgd_bench import launch, provenance, rank
from dsgd_bench.errors import LaunchError
from dsgd_bench.fabric import progress
from dsgd_bench.specs import Machine

GOOD, NOTE, BAD = "ok", "note", "bad"
ANSWER = "DSGD_BENCH_DOCTOR "


@dataclass(frozen=True)
class Finding:
    """One line of the examination: what, how it is, whether that is well."""

    what: str
    found: str
    verdict: str


def examine(machine: Machine, ranks: int) -> list[Finding]:
    """Examine this machine with a job of `ranks` ranks."""
    return [*_here(machine, ranks), *_in_job(machine, ranks)]


def _here(machine: Machine, ranks: int) -> list[Finding]:
    cores = provenance.cores()
    cpus = len(provenance.host()["cpus_allowed"])
    threads = machine.threads_per_rank
    crowded = ranks * threads > cpus
    return [
        Finding("python", f"{sys.version.split()[0]} at {sys.executable}", GOOD),
        Finding("cores", f"{cores} cores, {cpus} hardware threads allowed here", GOOD),
        Finding(
            "oversubscription",
            f"{ranks} ranks x {threads} threads on {cpus} hardware threads"
            + (": ranks share them, times are not to be trusted" if crowded else ""),
            NOTE if crowded else GOOD,
        ),
        Finding("BLAS threads", f"{threads} per rank, set for every rank", GOOD),
        _hdf5(),
    ]


def _hdf5() -> Finding:
    from dsgd_bench import trace

    version, parallel = trace.hdf5()
    kind = "parallel" if parallel else "serial, as the shards need it"
    return Finding("HDF5", f"{version}, {kind}", GOOD)


def _in_job(machine: Machine, ranks: int) -> list[Finding]:
    """Start a small job and ask it."""
    answers: list[dict[str, Any]] = []
    complaints: list[str] = []

    def listen(line: str) -> None:
        if line.startswith(ANSWER):
            answers.append(json.loads(line.removeprefix(ANSWER)))
        else:
            complaints.append(line)

    ask = ["doctor-rank", str(ranks), machine.progress]
    try:
        launcher = launch.find(machine.launcher[0], sys.executable)
        status = rank.start(machine, ranks, ask, listen)
    except LaunchError as error:
        return [Finding("launcher", str(error), BAD)]
    found = [Finding("launcher", f"{launcher} ({launch.family(launcher)})", GOOD)]
    if status or not answers:
        said = next((line for line in complaints if "dsgd-bench:" in line), None)
        said = said or " ".join(complaints[-3:]) or "no word"
        return [*found, Finding("ranks", f"status {status}: {said}", BAD)]
    return [*found, *_judge(answers[0], ranks)]


def _judge(answer: dict[str, Any], ranks: int) -> list[Finding]:
    path = answer["libmpi_path"] or "unknown"
    shadows = answer["in_slurm"] and path.startswith(sys.prefix)
    findings = [
        Finding("ranks", f"{ranks} started, {ranks} in one job", GOOD),
        Finding(
            "MPI library",
            f"{answer['mpi_library']}, standard {answer['mpi_version']}, at {path}"
            + (": a wheel shadows the site's MPI" if shadows else ""),
            BAD if shadows else GOOD,
        ),
        Finding("thread level", answer["thread_level"], GOOD),
    ]
    for where, pair in answer["progress"]["pairs"].items():
        for name, operation in pair["operations"].items():
            verdict = operation["verdict"]
            how = {
                "passive": "a computing target answers",
                "with-thread": "a computing target answers thanks to our thread",
                "waits": "waits for a computing target: asynchronous is not "
                "asynchronous here; set progress = 'thread' in the machine file",
            }[verdict]
            findings.append(
                Finding(
                    f"{name}, {where.replace('_', ' ')}",
                    f"{how} ({operation['seconds'] * 1e3:.3g} ms)",
                    BAD if verdict == "waits" else GOOD,
                )
            )
    return findings


def on_rank(ranks: int, mode: str) -> int:
    """Be one rank of the small job: rank 0 prints what the job found, as JSON."""
    try:
        fabric = rank.connect(ranks)
    except LaunchError as error:
        print(f"dsgd-bench: {error}", file=sys.stderr)
        return rank.REFUSED
    answer = fabric.describe() | {
        "libmpi_path": provenance.libmpi(),
        "in_slurm": "SLURM_JOB_ID" in provenance.environment(),
        "progress": progress.preflight(fabric, mode),
    }
    if fabric.rank == 0:
        print(ANSWER + json.dumps(answer), flush=True)
    fabric.close()
    return 0
