"""Looks at the machine before core-hours are spent: MPI, launcher, HDF5, cores.

The parts that need ranks are asked of a small MPI job; the rest is read here.
"""

import json
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec

import msgspec

from dsgd_bench import arrays
from dsgd_bench.errors import ConfigError, GpuError, LaunchError
from dsgd_bench.fabric import preflight
from dsgd_bench.host import (
    cgroups,
    environment,
    mpi_bugs,
    placement,
    provenance,
    shared_memory,
)
from dsgd_bench.host.placement import Arranged
from dsgd_bench.io import printing
from dsgd_bench.spec.machine import Machine
from dsgd_bench.study import capacity, launch, rank_process

GOOD, NOTE, BAD = "ok", "note", "bad"
ANSWER = "DSGD_BENCH_DOCTOR "
GIB, MIB = 2**30, 2**20


@dataclass(frozen=True)
class Finding:
    """One line of the examination: what, how it is, whether that is well."""

    what: str
    found: str
    verdict: str


class Answer(msgspec.Struct, frozen=True):
    """What the ranks of the small job found; rank 0 prints it as JSON.

    Attributes
    ----------
    mpi_library, mpi_version, thread_level : str
        As the library names itself, the standard's version, and what was granted.
    libmpi_path : str or None
        The file that was loaded.
    cores : int or float
        That the ranks of a node have together.
    placement : list of Arranged
        Where every rank runs, by rank.
    environment : dict of str to str
        Variables of rank 0 that tell of MPI libraries, secrets withheld.
    progress : Verdict
        Of the preflight.
    known_bugs : list of str
        A sentence for each that can be met.
    """

    mpi_library: str
    mpi_version: str
    thread_level: str
    libmpi_path: str | None
    cores: int | float
    placement: list[Arranged]
    environment: dict[str, str]
    progress: preflight.Verdict
    known_bugs: list[str]


def examine(machine: Machine, ranks: int) -> list[Finding]:
    """Examine this machine with a job of `ranks` ranks."""
    return [*_here(machine, ranks), *_in_job(machine, ranks)]


def _here(machine: Machine, ranks: int) -> list[Finding]:
    cores, usable = provenance.cores(), provenance.usable_cores()
    cpus = len(provenance.host().cpus_allowed)
    threads = machine.threads_per_rank
    said = f"{cores} cores, {cpus} hardware threads allowed here"
    if usable < cores:
        said += f"; a control group allows {usable:g} of them"
    return [
        Finding("python", f"{sys.version.split()[0]} at {sys.executable}", GOOD),
        Finding("cores", said, NOTE if usable < cores else GOOD),
        _memory(),
        _shared_memory(ranks),
        Finding("BLAS threads", f"{threads} per rank, set for every rank", GOOD),
        _hdf5(),
        _gpu(),
    ]


def _memory() -> Finding:
    left, limit = environment.available_memory(), cgroups.memory_limit()
    said = "unknown" if left is None else f"{left / GIB:.1f} GiB left"
    if limit is not None:
        said += f"; a control group allows {limit / GIB:.1f} GiB in all"
    return Finding("memory", said, GOOD)


def _shared_memory(ranks: int) -> Finding:
    """Compare what ranks need in ``/dev/shm`` with what is there."""
    left, need = capacity.shared_memory_left(), capacity.shared_memory_needed(ranks)
    if left is None:
        return Finding("shared memory", f"there is no {shared_memory.SHM} here", NOTE)
    if lack := capacity.too_little_shared_memory(ranks):
        return Finding("shared memory", lack, NOTE)  # whether it suffices, ranks tell
    said = (
        f"{left / MIB:.0f} MiB left in {shared_memory.SHM}, {ranks} ranks need about "
    )
    return Finding("shared memory", f"{said}{need / MIB:.0f} MiB and windows", GOOD)


def _gpu() -> Finding:
    """Say what `compute.device = "cuda"` would find here."""
    if find_spec("cupy") is None:
        return Finding("GPU", "CuPy is not installed: ranks compute on the host", GOOD)
    try:
        place = arrays.device("cuda")
        with place.guard(0):
            gpu = place.describe()
    except (ConfigError, GpuError) as error:
        return Finding("GPU", str(error), NOTE)
    mps = "runs" if gpu["mps"] else "does not run, so ranks on one GPU take turns"
    return Finding(
        "GPU",
        f"{gpu['name']}, {gpu['memory'] / 2**30:.0f} GiB, CuPy {gpu['cupy']}; the "
        f"Multi-Process Service {mps}",
        GOOD,
    )


def _hdf5() -> Finding:
    from dsgd_bench import trace

    version, parallel = trace.hdf5()
    kind = "parallel" if parallel else "serial, as the shards need it"
    return Finding("HDF5", f"{version}, {kind}", GOOD)


def _in_job(machine: Machine, ranks: int) -> list[Finding]:
    """Start a small job and ask it."""
    answers: list[Answer] = []
    complaints: list[str] = []

    def listen(line: str) -> None:
        if line.startswith(ANSWER):
            # msgspec's own JSON refuses names that are not UTF-8
            written = json.loads(line.removeprefix(ANSWER))
            answers.append(msgspec.convert(written, Answer))
        else:
            complaints.append(line)

    ask = ["doctor-rank", str(ranks), machine.progress]
    try:
        launcher = launch.find(machine.launcher[0], sys.executable)
        status = rank_process.start(machine, ranks, ask, listen)
    except LaunchError as error:
        return [Finding("launcher", str(error), BAD)]
    found = [Finding("launcher", f"{launcher} ({launch.family(launcher)})", GOOD)]
    if status or not answers:
        said = next((line for line in complaints if "dsgd-bench:" in line), None)
        said = said or " ".join(complaints[-3:]) or "no word"
        if capacity.killed_by_memory(status, complaints):
            said = capacity.too_little_shared_memory(ranks) or said
        return [*found, Finding("ranks", f"status {status}: {said}", BAD)]
    return [*found, *_judge(answers[0], ranks)]


def _judge(answer: Answer, ranks: int) -> list[Finding]:
    path = answer.libmpi_path or "unknown"
    findings = [
        Finding("ranks", f"{ranks} started, {ranks} in one job", GOOD),
        Finding(
            "MPI library",
            f"{answer.mpi_library}, standard {answer.mpi_version}, at {path}",
            GOOD,
        ),
        Finding("thread level", answer.thread_level, GOOD),
        *_judge_library(answer),
        *_judge_placement(answer.placement, answer.cores),
    ]
    for where, pair in answer.progress.pairs.items():
        for name, found in pair.operations.items():
            how = {
                "passive": "a computing target answers",
                "with-thread": "a computing target answers thanks to our thread",
                "waits": "waits for a computing target: asynchronous is not "
                "asynchronous here; set progress = 'thread' in the machine file",
            }[found.verdict]
            findings.append(
                Finding(
                    f"{name}, {where.replace('_', ' ')}",
                    f"{how} ({found.seconds * 1e3:.3g} ms)",
                    BAD if found.verdict == preflight.WAITS else GOOD,
                )
            )
    return findings


def _judge_library(answer: Answer) -> list[Finding]:
    """Say whether the library is the site's own, and free of known bugs here."""
    findings = []
    if hidden := environment.shadowed(answer.libmpi_path, answer.environment):
        sure = environment.site_mpi(answer.environment)
        findings.append(Finding("site's MPI", hidden, BAD if sure else NOTE))
    if not answer.known_bugs:
        text = "none of those we know can be met on these nodes"
        findings.append(Finding("known bugs", text, GOOD))
    bugs = (Finding("known bug", sentence, NOTE) for sentence in answer.known_bugs)
    return [*findings, *bugs]


def _judge_placement(places: list[Arranged], cores: float) -> list[Finding]:
    """Map ranks to nodes and cores, and say whether any share a core."""
    shares = any(place.shares for place in places)
    threads = max(place.threads for place in places)
    said = f"{placement.summary(places)}, {threads} thread{'s' * (threads > 1)} each"
    if shares:
        on = f"{len(places)} ranks on {cores:g} cores: "
        on = on if len({place.node for place in places}) == 1 else ""
        said += (
            f"; {on}ranks wait for each other's cores, and their times are not to be "
            "trusted"
        )
    verdict = NOTE if shares else GOOD
    nodes = placement.lines(places).items()
    return [
        Finding("oversubscription", said, verdict),
        *(Finding(f"node {host}", text, verdict) for host, text in nodes),
    ]


def _site_variables() -> dict[str, str]:
    """Return the variables of this rank that tell of a site's MPI library."""
    names = (*environment.SITE_MPI, "SLURM_JOB_ID", "LOADEDMODULES")
    return {name: os.environ[name] for name in names if name in os.environ}


def on_rank(ranks: int, mode: str) -> int:
    """Be one rank of the small job: rank 0 prints what the job found, as JSON."""
    try:
        fabric = rank_process.meet(ranks)
    except LaunchError as error:
        printing.complain(f"dsgd-bench: {error}")
        return rank_process.REFUSED
    with rank_process.answering(fabric):
        described, path = fabric.describe(), environment.libmpi()
        answer = Answer(
            mpi_library=described["mpi_library"],
            mpi_version=described["mpi_version"],
            thread_level=described["thread_level"],
            libmpi_path=path,
            cores=described["cores"],
            placement=placement.read(described["placement"]),
            environment=provenance.recorded_variables() | _site_variables(),
            progress=preflight.preflight(fabric, mode),
            known_bugs=mpi_bugs.on_these_ranks(described, path),
        )
        if fabric.rank == 0:
            printing.lines([ANSWER + json.dumps(msgspec.to_builtins(answer))])
    rank_process.leave(fabric)
    return 0
